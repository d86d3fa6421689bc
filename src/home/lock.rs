//! One supervisor a home. The lock is the kernel's (`flock`) on `run/lite.lock`, and on the home's
//! folder too: a lock file that somebody removed would let a second supervisor in, the folder
//! cannot be removed while it is in use.

use super::Home;
use crate::sys::files;
use crate::sys::flock::FileLock;
use crate::sys::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::fs::{File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Who has the home, for the one who is refused.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub process: ProcessId,
    /// `leoflow lite`, or the command that has the home for a moment.
    pub command: String,
    pub url: Option<String>,
}

impl Holder {
    /// Where the instance serves, if that is who has the home.
    pub fn address(&self) -> Option<(Ipv4Addr, u16)> {
        let (host, port) = self.url.as_ref()?.strip_prefix("http://")?.rsplit_once(':')?;
        Some((host.parse().ok()?, port.parse().ok()?))
    }
}

/// The home is ours until this is dropped.
#[derive(Debug)]
pub struct HomeLock {
    file: FileLock,
    _folder: FileLock,
}

/// The home is another's. `holder` is missing for the moment between its lock and its name in it.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the home is in use")]
    Held { holder: Option<Holder> },
    #[error("cannot lock {path}: {source}")]
    Io { path: std::path::PathBuf, source: io::Error },
}

const SETTLING_TRIES: u32 = 50;
const SETTLING_PAUSE: std::time::Duration = std::time::Duration::from_millis(10);

impl HomeLock {
    /// Takes the home without waiting for whoever has it. Its folders must exist.
    pub fn take(home: &Home, command: &str, url: Option<&str>) -> Result<Self, LockError> {
        for _ in 0..SETTLING_TRIES {
            match Self::try_take(home, command, url) {
                // Somebody who only looks has it for an instant, or the new holder has not yet
                // written its name over the last one's.
                Err(LockError::Held { holder: None }) => std::thread::sleep(SETTLING_PAUSE),
                settled => return settled,
            }
        }
        Self::try_take(home, command, url)
    }

    fn try_take(home: &Home, command: &str, url: Option<&str>) -> Result<Self, LockError> {
        let path = home.lock();
        let io = |source| LockError::Io { path: path.clone(), source };
        let held = || LockError::Held { holder: holder(home) };
        let folder = FileLock::try_exclusive(File::open(home.root()).map_err(io)?).map_err(io)?;
        // Whoever does not get the folder leaves the file alone, for the one who did.
        let _folder = folder.ok_or_else(held)?;
        let file = FileLock::try_exclusive(open(home).map_err(io)?).map_err(io)?.ok_or_else(held)?;
        let mut lock = Self { file, _folder };
        lock.describe(command, url).map_err(io)?;
        Ok(lock)
    }

    /// Whether the home is still the one that was locked, and has not been emptied. What cannot be told is no reason
    /// to give it up.
    pub fn is_in_place(&self, home: &Home) -> bool {
        let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let is_gone = |path: PathBuf| matches!(path.try_exists(), Ok(false));
        let has_data = || !is_gone(home.postgres_data()) || !is_gone(home.datastore());
        match (self._folder.metadata().map(identity), std::fs::metadata(home.root()).map(identity)) {
            (Ok(own), Ok(now)) => own == now && (!is_gone(home.lock()) || has_data()),
            (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        }
    }

    /// The descriptors that hold it, for a program that is executed in our place.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self._folder.as_fd()]
    }

    /// The lock that the program before us, in this very process, had taken and left open.
    pub fn inherit(home: &Home, [file, folder]: [OwnedFd; 2]) -> Result<Self, LockError> {
        let path = home.lock();
        let lock = |descriptor: OwnedFd| {
            let taken = FileLock::try_exclusive(File::from(descriptor));
            let taken = taken.map_err(|source| LockError::Io { path: path.clone(), source })?;
            taken.ok_or_else(|| LockError::Held { holder: holder(home) })
        };
        Ok(Self { file: lock(file)?, _folder: lock(folder)? })
    }

    /// Writes who we are into the lock file.
    fn describe(&mut self, command: &str, url: Option<&str>) -> io::Result<()> {
        write_holder(self.file.file(), command, url)
    }
}

fn open(home: &Home) -> io::Result<File> {
    files::create_private_dir(&home.run())?;
    OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(home.lock())
}

/// The one long operation of a home, beside a running instance or not: backup, restore, uninstall.
#[derive(Debug)]
pub struct OperationLock {
    file: FileLock,
}

impl Drop for OperationLock {
    fn drop(&mut self) {
        // Its process may live on: nobody is named any more. What cannot be emptied names one who has let go of it.
        let _ = self.file.file().set_len(0);
    }
}

impl OperationLock {
    /// Takes it without waiting for whoever has it. The home's folders must exist.
    pub fn take(home: &Home, command: &str) -> Result<Self, LockError> {
        for _ in 0..SETTLING_TRIES {
            match Self::try_take(home, command) {
                // The new holder has not yet written its name.
                Err(LockError::Held { holder: None }) => std::thread::sleep(SETTLING_PAUSE),
                settled => return settled,
            }
        }
        Self::try_take(home, command)
    }

    fn try_take(home: &Home, command: &str) -> Result<Self, LockError> {
        let path = home.operation_lock();
        let io = |source| LockError::Io { path: path.clone(), source };
        files::create_private_dir(&home.run()).map_err(io)?;
        let file = OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(&path);
        let Some(mut lock) = FileLock::try_exclusive(file.map_err(io)?).map_err(io)? else {
            return Err(LockError::Held { holder: read_holder_of(&path) });
        };
        write_holder(lock.file(), command, None).map_err(io)?;
        Ok(Self { file: lock })
    }
}

fn write_holder(file: &mut File, command: &str, url: Option<&str>) -> io::Result<()> {
    let process = ProcessId::current().ok_or(io::ErrorKind::NotFound)?;
    let holder = Holder { process, command: command.to_owned(), url: url.map(str::to_owned) };
    file.set_len(0)?;
    file.rewind()?;
    file.write_all(&serde_json::to_vec(&holder)?)
}

/// Who holds the home now; `None` when nobody does (or nobody we can tell).
pub fn holder(home: &Home) -> Option<Holder> {
    read_holder_of(&home.lock()).filter(|holder| holder.process.is_alive())
}

/// Who is at the one long operation now.
pub fn operation_holder(home: &Home) -> Option<Holder> {
    read_holder_of(&home.operation_lock()).filter(|holder| holder.process.is_alive())
}

fn read_holder_of(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(path).ok()?.take(64 * 1024).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// Whether some process has the home, asked of the kernel: takes the folder's lock for a moment.
pub fn is_held(home: &Home) -> io::Result<bool> {
    match File::open(home.root()) {
        Ok(folder) => Ok(FileLock::try_exclusive(folder)?.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn home(folder: &tempfile::TempDir) -> Home {
        let home = super::super::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        home
    }

    #[test]
    fn a_second_holder_is_told_who_the_first_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let first = HomeLock::take(&home, "leoflow lite", Some("http://127.0.0.1:1")).unwrap();
        let Err(LockError::Held { holder: Some(holder) }) = HomeLock::take(&home, "x", None) else {
            panic!("two holders");
        };
        assert_eq!(holder.process, ProcessId::current().unwrap());
        assert_eq!(holder.url.as_deref(), Some("http://127.0.0.1:1"));
        drop(first);
        assert!(HomeLock::take(&home, "x", None).is_ok());
    }

    #[test]
    fn who_has_let_go_of_the_operation_is_not_named_any_more() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let lock = OperationLock::take(&home, "a test").unwrap();
        assert_eq!(operation_holder(&home).map(|holder| holder.command).as_deref(), Some("a test"));
        drop(lock);
        assert!(operation_holder(&home).is_none());
    }

    #[test]
    fn removing_the_lock_file_lets_nobody_in() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let _first = HomeLock::take(&home, "leoflow lite", None).unwrap();
        std::fs::remove_file(home.lock()).unwrap();
        assert!(matches!(HomeLock::take(&home, "x", None), Err(LockError::Held { .. })));
        assert!(is_held(&home).unwrap());
    }
}

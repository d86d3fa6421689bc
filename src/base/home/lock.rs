//! The home's lock, which one supervisor or one command that needs a stopped instance holds: `flock` on `run/lite.lock`
//! and on the home's folder. The folder's lock also keeps a second process out after the lock file was removed.

use super::Home;
use crate::sys::fs::flock::FileLock;
use crate::sys::process::ProcessId;
use serde::{Deserialize, Serialize};
use std::fs::File;
use std::io::{self, Read, Seek, Write};
use std::net::Ipv4Addr;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The holder of the lock, for error messages.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Holder {
    pub process: ProcessId,
    /// `leoflow lite`, or another command that holds the lock.
    pub command: String,
    /// The address of a running instance; `None` for other commands.
    pub url: Option<String>,
}

impl Holder {
    /// The instance's address, if the holder is one.
    pub fn address(&self) -> Option<(Ipv4Addr, u16)> {
        let (host, port) = self.url.as_ref()?.strip_prefix("http://")?.rsplit_once(':')?;
        Some((host.parse().ok()?, port.parse().ok()?))
    }
}

/// The lock of a home, released when dropped.
#[derive(Debug)]
pub struct HomeLock {
    file: FileLock,
    folder_lock: FileLock,
}

/// Why the lock was not taken. `holder` is `None` if the process that holds the lock has not written its name yet, or
/// if the lock file with its name was removed.
#[derive(Debug, thiserror::Error)]
pub enum LockError {
    #[error("the home is in use")]
    Held { holder: Option<Holder> },
    #[error("cannot lock {path}: {source}")]
    Io { path: std::path::PathBuf, source: io::Error },
}

/// How often a lock is tried whose holder is unknown: a new holder writes its name a moment after it locks.
const SETTLING_TRIES: u32 = 50;
/// Pause between those attempts.
const SETTLING_PAUSE: Duration = Duration::from_millis(10);

/// Tries to take a lock until it is taken or its holder is known.
fn settled<T>(try_take: impl Fn() -> Result<T, LockError>) -> Result<T, LockError> {
    for _ in 0..SETTLING_TRIES {
        match try_take() {
            Err(LockError::Held { holder: None }) => std::thread::sleep(SETTLING_PAUSE),
            outcome => return outcome,
        }
    }
    try_take()
}

impl HomeLock {
    /// Takes the lock; fails at once when another process holds it. The home's folders must exist.
    pub fn take(home: &Home, command: &str, url: Option<&str>) -> Result<Self, LockError> {
        // `is_held` takes the lock for an instant, or the new holder has not yet replaced the last one's name.
        settled(|| Self::try_take(home, command, url))
    }

    fn try_take(home: &Home, command: &str, url: Option<&str>) -> Result<Self, LockError> {
        let path = home.lock();
        let io_error = |source| LockError::Io { path: path.clone(), source };
        let held = || LockError::Held { holder: holder(home) };
        let folder = File::open(home.root()).and_then(|folder| lock_folder(home, folder)).map_err(io_error)?;
        // The folder is locked first: without its lock the lock file must not be touched, because the holder writes its
        // name there.
        let folder_lock = folder.ok_or_else(held)?;
        let file = FileLock::try_exclusive(open_or_create(home, &path).map_err(io_error)?)
            .map_err(io_error)?
            .ok_or_else(held)?;
        let mut lock = Self { file, folder_lock };
        if !lock.is_in_place(home) {
            // `remove_if_unused` has removed the folder since it was opened, so another process may lock a new one.
            return Err(LockError::Held { holder: None });
        }
        write_holder(lock.file.file(), command, url).map_err(io_error)?;
        Ok(lock)
    }

    /// False when the home's folder was removed, replaced or emptied since it was locked. True when that cannot be
    /// determined.
    pub fn is_in_place(&self, home: &Home) -> bool {
        let identity = |meta: std::fs::Metadata| (meta.dev(), meta.ino());
        let is_gone = |path: PathBuf| matches!(path.try_exists(), Ok(false));
        let has_data = || !is_gone(home.postgres_data()) || !is_gone(home.datastore());
        let locked = self.folder_lock.metadata();
        let path = match &locked {
            Ok(meta) if !meta.is_dir() => home.folder_lock(),
            _ => home.root().to_owned(),
        };
        match (locked.map(identity), std::fs::metadata(path).map(identity)) {
            (Ok(locked), Ok(current)) => locked == current && (!is_gone(home.lock()) || has_data()),
            (_, Err(error)) => error.kind() != io::ErrorKind::NotFound,
            (Err(_), Ok(_)) => true,
        }
    }

    /// The descriptors that hold the lock, for a program that replaces this one by exec.
    pub fn descriptors(&self) -> [BorrowedFd<'_>; 2] {
        [self.file.as_fd(), self.folder_lock.as_fd()]
    }

    /// Takes over the lock from the previous program of this process.
    pub fn inherit(home: &Home, [file, folder]: [OwnedFd; 2]) -> Result<Self, LockError> {
        let path = home.lock();
        let relock = |descriptor: OwnedFd| {
            let file_lock = FileLock::try_exclusive(File::from(descriptor));
            let file_lock = file_lock.map_err(|source| LockError::Io { path: path.clone(), source })?;
            file_lock.ok_or_else(|| LockError::Held { holder: holder(home) })
        };
        Ok(Self { file: relock(file)?, folder_lock: relock(folder)? })
    }
}

fn open_or_create(home: &Home, path: &Path) -> io::Result<File> {
    // Does not recreate a home that is being removed.
    home.create_folder(&home.run())?;
    FileLock::open(path)
}

/// Locks the home's opened folder. NFS locks only files opened for writing, which a folder cannot be (EBADF, flock(2));
/// there `run/home.lock` is locked in place of the folder.
fn lock_folder(home: &Home, folder: File) -> io::Result<Option<FileLock>> {
    match FileLock::try_exclusive(folder) {
        Err(error) if error.raw_os_error() == Some(nix::libc::EBADF) => {
            FileLock::try_exclusive(open_or_create(home, &home.folder_lock())?)
        }
        outcome => outcome,
    }
}

/// The lock of a home's long operations (such as a backup or an upgrade), of which only one runs at a time.
#[derive(Debug)]
pub struct OperationLock {
    file: FileLock,
}

impl Drop for OperationLock {
    fn drop(&mut self) {
        // The process may live on, so the file must not name it any more. If this fails, the file names a process that
        // does not hold the lock.
        let _ = self.file.file().set_len(0);
    }
}

impl OperationLock {
    /// Takes the lock; fails at once when another process holds it. The home's folders must exist.
    pub fn take(home: &Home, command: &str) -> Result<Self, LockError> {
        settled(|| Self::try_take(home, command))
    }

    fn try_take(home: &Home, command: &str) -> Result<Self, LockError> {
        let path = home.operation_lock();
        let io_error = |source| LockError::Io { path: path.clone(), source };
        let file = open_or_create(home, &path).map_err(io_error)?;
        let Some(mut lock) = FileLock::try_exclusive(file).map_err(io_error)? else {
            return Err(LockError::Held { holder: read_holder(&path) });
        };
        write_holder(lock.file(), command, None).map_err(io_error)?;
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

/// The process that holds the home's lock; `None` when none does or it is unknown.
pub fn holder(home: &Home) -> Option<Holder> {
    read_holder(&home.lock()).filter(|holder| holder.process.is_alive())
}

/// The process that performs a long operation.
pub fn operation_holder(home: &Home) -> Option<Holder> {
    read_holder(&home.operation_lock()).filter(|holder| holder.process.is_alive())
}

fn read_holder(path: &Path) -> Option<Holder> {
    let mut text = String::new();
    File::open(path).ok()?.take(64 * 1024).read_to_string(&mut text).ok()?;
    serde_json::from_str(&text).ok()
}

/// True when a process holds the home's lock. Tests it by taking the folder's lock for a moment.
pub fn is_held(home: &Home) -> io::Result<bool> {
    match File::open(home.root()) {
        Ok(folder) => Ok(lock_folder(home, folder)?.is_none()),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::OpenOptionsExt;

    fn home(folder: &tempfile::TempDir) -> Home {
        let home = super::super::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        home
    }

    #[test]
    fn a_refused_process_learns_the_holder() {
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
    fn a_removed_home_is_never_locked() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        std::thread::scope(|scope| {
            let remover = scope.spawn(|| {
                for _ in 0..300 {
                    home.remove_if_unused("another test");
                }
            });
            while !remover.is_finished() {
                // Fails if the home is removed meanwhile.
                let _ = home.create();
                let Ok(lock) = HomeLock::take(&home, "a test", None) else { continue };
                assert!(lock.is_in_place(&home));
                assert_eq!(holder(&home).map(|holder| holder.command).as_deref(), Some("a test"));
            }
        });
    }

    #[test]
    fn a_released_operation_lock_names_no_holder() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let lock = OperationLock::take(&home, "a test").unwrap();
        assert_eq!(operation_holder(&home).map(|holder| holder.command).as_deref(), Some("a test"));
        drop(lock);
        assert!(operation_holder(&home).is_none());
    }

    /// A descriptor with O_PATH cannot be locked, like a folder on NFS.
    #[test]
    fn locks_a_file_where_the_folder_cannot_be_locked() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let path_only = || File::options().read(true).custom_flags(nix::libc::O_PATH).open(home.root()).unwrap();
        let lock = lock_folder(&home, path_only()).unwrap().unwrap();
        assert!(lock_folder(&home, path_only()).unwrap().is_none(), "held");
        let home_lock = HomeLock {
            file: FileLock::try_exclusive(open_or_create(&home, &home.lock()).unwrap()).unwrap().unwrap(),
            folder_lock: lock,
        };
        assert!(home_lock.is_in_place(&home));
        std::fs::remove_dir_all(home.run()).unwrap();
        assert!(!home_lock.is_in_place(&home));
    }

    #[test]
    fn the_home_stays_locked_without_the_lock_file() {
        let folder = tempfile::tempdir().unwrap();
        let home = home(&folder);
        let _first = HomeLock::take(&home, "leoflow lite", None).unwrap();
        std::fs::remove_file(home.lock()).unwrap();
        assert!(matches!(HomeLock::take(&home, "x", None), Err(LockError::Held { .. })));
        assert!(is_held(&home).unwrap());
    }
}

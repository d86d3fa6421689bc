//! Advisory whole-file locks. The kernel releases them when the holder dies for any reason, so a lock is never stale:
//! an existing lock file does not mean that it is locked.

use nix::fcntl::{Flock, FlockArg};
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::{Duration, Instant};

/// An exclusive lock, held until dropped.
#[derive(Debug)]
pub struct FileLock(Flock<File>);

impl FileLock {
    /// Opens a lock file; creates it with mode 0600 if it is missing.
    pub fn open(path: &Path) -> io::Result<File> {
        OpenOptions::new().read(true).write(true).create(true).truncate(false).mode(0o600).open(path)
    }

    /// Takes the lock without waiting; `Ok(None)` when another process holds it.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Takes the lock, waiting at most `timeout` for another process; then an error of kind `TimedOut`.
    pub fn exclusive_within(file: File, timeout: Duration) -> io::Result<Self> {
        Self::within(file, FlockArg::LockExclusiveNonblock, timeout)
    }

    /// Takes a shared lock, waiting like `exclusive_within`; any number of processes can hold one.
    pub fn shared_within(file: File, timeout: Duration) -> io::Result<Self> {
        Self::within(file, FlockArg::LockSharedNonblock, timeout)
    }

    fn within(file: File, kind: FlockArg, timeout: Duration) -> io::Result<Self> {
        let (mut file, deadline) = (file, Instant::now() + timeout);
        loop {
            match Flock::lock(file, kind) {
                Ok(lock) => return Ok(Self(lock)),
                Err((returned, nix::Error::EWOULDBLOCK)) if Instant::now() < deadline => file = returned,
                Err((_, nix::Error::EWOULDBLOCK)) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another process holds the lock"));
                }
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// The metadata of the locked file, even if its name now refers to another one.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.0.metadata()
    }

    /// The locked file.
    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

/// ENOLCK and ENOSYS are the answers of network file systems that are mounted without locks.
pub fn is_unsupported(error: &io::Error) -> bool {
    error.kind() == io::ErrorKind::Unsupported || error.raw_os_error() == Some(nix::libc::ENOLCK)
}

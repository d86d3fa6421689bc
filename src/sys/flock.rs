//! Advisory whole-file locks. The kernel drops them when the holder dies, however it dies, so a
//! lock is never stale and a lock file is never removed.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::time::{Duration, Instant};

/// An exclusive lock, held until dropped.
#[derive(Debug)]
pub struct FileLock(Flock<File>);

impl FileLock {
    /// Takes the lock without waiting; `Ok(None)` when another process has it.
    pub fn try_exclusive(file: File) -> io::Result<Option<Self>> {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => Ok(Some(Self(lock))),
            Err((_, nix::Error::EWOULDBLOCK)) => Ok(None),
            Err((_, error)) => Err(error.into()),
        }
    }

    /// Takes the lock, waiting for another process at most `patience`; an error of kind `TimedOut` then.
    pub fn exclusive_within(file: File, patience: Duration) -> io::Result<Self> {
        let (mut file, deadline) = (file, Instant::now() + patience);
        loop {
            match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, nix::Error::EWOULDBLOCK)) if Instant::now() < deadline => file = back,
                Err((_, nix::Error::EWOULDBLOCK)) => {
                    return Err(io::Error::new(io::ErrorKind::TimedOut, "another process has it locked"));
                }
                Err((_, error)) => return Err(error.into()),
            }
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    pub fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }

    /// Of the file that is locked, wherever its name leads now.
    pub fn metadata(&self) -> io::Result<std::fs::Metadata> {
        self.0.metadata()
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

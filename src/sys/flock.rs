//! Advisory whole-file locks. The kernel drops them when the holder dies, however it dies, so a
//! lock is never stale and a lock file is never removed.

use nix::fcntl::{Flock, FlockArg};
use std::fs::File;
use std::io;

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

    /// Takes the lock, however long another process has it.
    pub fn exclusive(file: File) -> io::Result<Self> {
        let mut file = file;
        loop {
            match Flock::lock(file, FlockArg::LockExclusive) {
                Ok(lock) => return Ok(Self(lock)),
                Err((back, nix::Error::EINTR)) => file = back,
                Err((_, error)) => return Err(error.into()),
            }
        }
    }

    pub fn file(&mut self) -> &mut File {
        &mut self.0
    }
}

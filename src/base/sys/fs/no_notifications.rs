//! Stands for the notifications of a system where folders are polled.

use std::convert::Infallible;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

/// A folder as it is watched.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WatchId(Infallible);

pub struct Notifications(Infallible);

impl Notifications {
    pub fn start() -> io::Result<Self> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub fn add(&self, _folder: &Path) -> io::Result<WatchId> {
        match self.0 {}
    }

    pub fn remove(&self, id: WatchId) {
        match id.0 {}
    }

    pub fn take(&self) -> io::Result<bool> {
        match self.0 {}
    }
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.0 {}
    }
}

impl AsRawFd for Notifications {
    fn as_raw_fd(&self) -> RawFd {
        match self.0 {}
    }
}

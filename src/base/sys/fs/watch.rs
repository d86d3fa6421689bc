//! Waits for changes in a folder (inotify).

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// Watches one folder for files written, created, renamed or removed.
pub struct FolderWatch(Inotify);

impl FolderWatch {
    pub fn new(folder: &Path) -> io::Result<Self> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let flags =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, flags)?;
        Ok(Self(inotify))
    }

    /// Blocks until something has changed or the time limit is reached.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        crate::sys::process::poll_readable(self.0.as_fd(), limit)?;
        match self.0.read_events() {
            Ok(_) | Err(nix::Error::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

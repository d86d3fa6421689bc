//! Waits for changes in a folder (inotify).

use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;

/// Watches one folder for files written, created, renamed or removed. Where inotify is not available, it polls: other
/// programs of the user can use up the instances and watches that the kernel allows.
pub struct FolderWatch(Option<Inotify>);

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl FolderWatch {
    pub fn new(folder: &Path) -> Self {
        Self(Self::notified(folder).ok())
    }

    fn notified(folder: &Path) -> io::Result<Inotify> {
        let inotify = Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?;
        let flags =
            AddWatchFlags::IN_MODIFY | AddWatchFlags::IN_CREATE | AddWatchFlags::IN_DELETE | AddWatchFlags::IN_MOVED_TO;
        inotify.add_watch(folder, flags)?;
        Ok(inotify)
    }

    /// Blocks until something has changed, the next poll is due, or the time limit is reached.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let Some(inotify) = &self.0 else {
            std::thread::sleep(limit.min(POLL_INTERVAL));
            return Ok(());
        };
        crate::sys::process::poll_readable(inotify.as_fd(), limit)?;
        match inotify.read_events() {
            Ok(_) | Err(nix::Error::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    #[test]
    fn polls_where_a_folder_cannot_be_watched() {
        let watch = FolderWatch::new(Path::new("/missing"));
        assert!(watch.0.is_none());
        let begin = Instant::now();
        watch.wait(Duration::from_millis(20)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }
}

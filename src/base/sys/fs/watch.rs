//! Waits for changes in folders, without their subfolders.

#[cfg_attr(target_os = "linux", path = "inotify.rs")]
#[cfg_attr(not(target_os = "linux"), path = "no_notifications.rs")]
mod notifications;

use crate::sys::poll::wait_readable;
use notifications::Notifications;
pub use notifications::WatchId;
use std::future::pending;
use std::io;
use std::os::fd::AsFd;
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Watches one folder. Where changes are not notified, it polls: macOS, and on Linux if other programs of the user have
/// used up the instances and watches that the kernel allows.
pub struct FolderWatch(Option<Notifications>);

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl FolderWatch {
    pub fn new(folder: &Path) -> Self {
        Self(Notifications::start().ok().filter(|notifications| notifications.add(folder).is_ok()))
    }

    /// Blocks until something has changed, the next poll is due, or the time limit is reached.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let Some(notifications) = &self.0 else {
            std::thread::sleep(limit.min(POLL_INTERVAL));
            return Ok(());
        };
        wait_readable([Some(notifications.as_fd())], Some(limit))?;
        match notifications.take() {
            Err(error) if error.kind() != io::ErrorKind::WouldBlock => Err(error),
            _ => Ok(()),
        }
    }
}

/// Watches any number of folders.
pub struct FolderWatches(AsyncFd<Notifications>);

impl FolderWatches {
    /// Watches no folder yet. Must be called in a runtime. `Unsupported` where folders are always polled.
    pub fn new() -> io::Result<Self> {
        let notifications = Notifications::start()?;
        // SAFETY: the value keeps its descriptor open until it is dropped, and the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(notifications, Interest::READABLE) }?))
    }

    /// Watches a folder; the id is the same as before if it is watched already.
    pub fn add(&self, folder: &Path) -> io::Result<WatchId> {
        self.0.get_ref().add(folder)
    }

    pub fn remove(&self, id: WatchId) {
        self.0.get_ref().remove(id);
    }

    /// Waits for a change. Cancel-safe.
    pub async fn changed(&self) {
        loop {
            // Fails only while the runtime shuts down.
            let Ok(mut ready) = self.0.readable().await else { return pending().await };
            match ready.try_io(|notifications| notifications.get_ref().take()) {
                Ok(Ok(false)) => {}
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sys::is_portable;
    use std::time::Instant;

    #[test]
    fn polls_where_a_folder_cannot_be_watched() {
        let watch = FolderWatch::new(Path::new("/missing"));
        assert!(watch.0.is_none());
        let begin = Instant::now();
        watch.wait(Duration::from_millis(20)).unwrap();
        assert!(begin.elapsed() >= Duration::from_millis(20));
    }

    #[tokio::test]
    async fn reports_changes_but_no_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "a").unwrap();
        if is_portable() {
            assert!(FolderWatches::new().is_err_and(|error| error.kind() == io::ErrorKind::Unsupported));
            return;
        }
        let watches = FolderWatches::new().unwrap();
        let id = watches.add(folder.path()).unwrap();
        assert_eq!(watches.add(folder.path()).unwrap(), id);
        let is_notified = async || tokio::time::timeout(Duration::from_millis(50), watches.changed()).await.is_ok();
        std::fs::read(&file).unwrap();
        assert!(!is_notified().await);
        std::fs::write(&file, "b").unwrap();
        assert!(is_notified().await);
        watches.remove(id);
        assert!(!is_notified().await);
        assert_ne!(watches.add(folder.path()).unwrap(), id);
    }
}

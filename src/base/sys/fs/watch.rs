//! Waits for changes in folders, without their subfolders (inotify).

use crate::sys::poll::wait_readable;
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify, InotifyEvent, WatchDescriptor};
use std::future::pending;
use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::path::Path;
use std::time::Duration;
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// Files that are written, created, renamed, removed or get other permissions, and the folder itself.
const CHANGES: AddWatchFlags = AddWatchFlags::IN_MODIFY
    .union(AddWatchFlags::IN_CLOSE_WRITE)
    .union(AddWatchFlags::IN_CREATE)
    .union(AddWatchFlags::IN_DELETE)
    .union(AddWatchFlags::IN_MOVED_FROM)
    .union(AddWatchFlags::IN_MOVED_TO)
    .union(AddWatchFlags::IN_ATTRIB)
    .union(AddWatchFlags::IN_DELETE_SELF)
    .union(AddWatchFlags::IN_MOVE_SELF);

fn start() -> io::Result<Inotify> {
    Ok(Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?)
}

/// Watches one folder. Where inotify is not available, it polls: other programs of the user can use up the instances
/// and watches that the kernel allows.
pub struct FolderWatch(Option<Inotify>);

/// Interval of polls.
const POLL_INTERVAL: Duration = Duration::from_millis(500);

impl FolderWatch {
    pub fn new(folder: &Path) -> Self {
        Self(start().ok().filter(|inotify| inotify.add_watch(folder, CHANGES).is_ok()))
    }

    /// Blocks until something has changed, the next poll is due, or the time limit is reached.
    pub fn wait(&self, limit: Duration) -> io::Result<()> {
        let Some(inotify) = &self.0 else {
            std::thread::sleep(limit.min(POLL_INTERVAL));
            return Ok(());
        };
        wait_readable([Some(inotify.as_fd())], Some(limit))?;
        match inotify.read_events() {
            Ok(_) | Err(Errno::EAGAIN) => Ok(()),
            Err(error) => Err(error.into()),
        }
    }
}

/// A folder as it is watched. A folder that took the place of another has another id.
pub type WatchId = WatchDescriptor;

/// Watches any number of folders.
pub struct FolderWatches(AsyncFd<Instance>);

struct Instance(Inotify);

impl AsRawFd for Instance {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

impl FolderWatches {
    /// Watches no folder yet. Must be called in a runtime.
    pub fn new() -> io::Result<Self> {
        let instance = Instance(start()?);
        // SAFETY: the instance keeps its descriptor open until it is dropped, and the AsyncFd owns it.
        Ok(Self(unsafe { AsyncFd::register_with_interest(instance, Interest::READABLE) }?))
    }

    /// Watches a folder; the id is the same as before if it is watched already.
    pub fn add(&self, folder: &Path) -> io::Result<WatchId> {
        self.0.get_ref().0.add_watch(folder, CHANGES).map_err(|error| match error {
            // The kernel's error would say that the disk is full.
            Errno::ENOSPC => io::Error::other("the limit of watches is reached (fs.inotify.max_user_watches)"),
            error => error.into(),
        })
    }

    pub fn remove(&self, id: WatchId) {
        // Usually fails because the folder is gone.
        let _ = self.0.get_ref().0.rm_watch(id);
    }

    /// Waits for a change. Cancel-safe.
    pub async fn changed(&self) {
        loop {
            // Fails only while the runtime shuts down.
            let Ok(mut ready) = self.0.readable().await else { return pending().await };
            match ready.try_io(|instance| Ok(instance.get_ref().0.read_events()?)) {
                Ok(Ok(events)) if !events.iter().any(is_change) => {}
                Ok(_) => return,
                Err(_) => {}
            }
        }
    }
}

/// False for the end of a watch, which `remove` causes; the removal of a folder has an event of its own.
fn is_change(event: &InotifyEvent) -> bool {
    event.mask != AddWatchFlags::IN_IGNORED
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

    #[tokio::test]
    async fn reports_changes_but_no_reads() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("file");
        std::fs::write(&file, "a").unwrap();
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

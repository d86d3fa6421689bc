//! Notifications of changes in folders, inotify(7).

use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, InotifyEvent, WatchDescriptor};
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, RawFd};
use std::path::Path;

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

/// A folder as it is watched. A folder that took the place of another has another id.
pub type WatchId = WatchDescriptor;

/// A queue of notifications, which is readable when it has one.
pub struct Notifications(nix::sys::inotify::Inotify);

impl Notifications {
    pub fn start() -> io::Result<Self> {
        if crate::sys::is_portable() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        Ok(Self(nix::sys::inotify::Inotify::init(InitFlags::IN_CLOEXEC | InitFlags::IN_NONBLOCK)?))
    }

    /// Watches a folder; the id is the same as before if it is watched already.
    pub fn add(&self, folder: &Path) -> io::Result<WatchId> {
        self.0.add_watch(folder, CHANGES).map_err(|error| match error {
            // The kernel's error would say that the disk is full.
            Errno::ENOSPC => io::Error::other("the limit of watches is reached (fs.inotify.max_user_watches)"),
            error => error.into(),
        })
    }

    pub fn remove(&self, id: WatchId) {
        // Usually fails because the folder is gone.
        let _ = self.0.rm_watch(id);
    }

    /// Takes the waiting notifications; returns true if one is about a change. `WouldBlock` if there is none.
    pub fn take(&self) -> io::Result<bool> {
        Ok(self.0.read_events()?.iter().any(is_change))
    }
}

/// False for the end of a watch, which `remove` causes; the removal of a folder has an event of its own.
fn is_change(event: &InotifyEvent) -> bool {
    event.mask != AddWatchFlags::IN_IGNORED
}

impl AsFd for Notifications {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl AsRawFd for Notifications {
    fn as_raw_fd(&self) -> RawFd {
        self.0.as_fd().as_raw_fd()
    }
}

//! Retries blocked children once a full disk has free space, or free inodes, again.

use crate::supervisor::policy::Event;
use crate::supervisor::run::Supervisor;
use leoflow_base::sys::fs::disk::{self, Shortage};

/// Free bytes that the datastore needs to start.
const NEEDED_BYTES: u64 = 48 * 1024 * 1024;

impl Supervisor {
    /// Returns `TryNow` when the disk has free space and inodes now but had not at the last check.
    pub(crate) fn check_disk_space(&mut self) -> Option<Event> {
        let data = self.home.postgres_data();
        let has_space = disk::free_bytes(&data).is_ok_and(|free| free >= NEEDED_BYTES)
            && disk::shortage(&data).is_ok_and(|shortage| shortage != Shortage::Files);
        let had_space = std::mem::replace(&mut self.has_disk_space, has_space);
        (has_space && !had_space).then_some(Event::TryNow)
    }
}

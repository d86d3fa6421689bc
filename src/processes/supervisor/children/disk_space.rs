//! Retries blocked children once a full disk has free space again.

use crate::supervisor::policy::Event;
use crate::supervisor::run::Supervisor;
use leoflow_base::sys::fs::disk;

/// Free bytes that the datastore needs to start.
const NEEDED_BYTES: u64 = 48 * 1024 * 1024;

impl Supervisor {
    /// Returns `TryNow` when the disk has free space now but had none at the last check.
    pub(crate) fn check_disk_space(&mut self) -> Option<Event> {
        let has_space = disk::free_bytes(&self.home.postgres_data()).is_ok_and(|free| free >= NEEDED_BYTES);
        let had_space = std::mem::replace(&mut self.has_disk_space, has_space);
        (has_space && !had_space).then_some(Event::TryNow)
    }
}

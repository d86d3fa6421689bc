//! Going on when a disk that was full has room again.

use super::policy::Event;
use super::run::Supervisor;
use crate::sys::disk;

/// What the datastore needs to go on, bytes.
const ROOM: u64 = 48 * 1024 * 1024;

impl Supervisor {
    /// Whether there is room on the disk again, where there was none when somebody last looked.
    pub(super) fn room_again(&mut self) -> Option<Event> {
        let has_room = disk::free_bytes(&self.home.postgres_data()).is_ok_and(|free| free >= ROOM);
        let had_room = std::mem::replace(&mut self.has_room, has_room);
        (has_room && !had_room).then_some(Event::TryNow)
    }
}

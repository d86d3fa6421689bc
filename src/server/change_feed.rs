//! Where the parts of a server that show something hear that it has changed.

use crate::engine::store::events::Event;
use tokio::sync::{broadcast, watch};

/// Events that a slow listener may be behind; one that is further behind is told to look at all.
const BEHIND: usize = 256;
/// The one source of changes in a server.
pub struct Changes {
    pub events: broadcast::Sender<Event>,
    pub count: watch::Sender<u64>,
    /// Tells those who wait that the server leaves.
    pub leaving: watch::Sender<bool>,
}

impl Changes {
    pub fn new() -> Self {
        Self {
            events: broadcast::Sender::new(BEHIND),
            count: watch::Sender::new(0),
            leaving: watch::Sender::new(false),
        }
    }

    /// `None` when something may have happened that nobody was told of.
    pub fn tell(&self, event: Option<&Event>) {
        let shown = match event {
            Some(Event::Queued | Event::Stop | Event::Sweep | Event::Plan(_)) => return,
            Some(event) => event.clone(),
            None => Event::Dags,
        };
        self.count.send_modify(|count| *count += 1);
        // Nobody listens just now.
        let _ = self.events.send(shown);
    }

    pub fn leave(&self) {
        self.leaving.send_replace(true);
    }
}

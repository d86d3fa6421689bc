//! Notifies the parts of the server that display state about changes.

use leoflow_engine::store::events::Event;
use tokio::sync::{broadcast, watch};

/// Events buffered per subscriber; a subscriber that lags further behind has to reload everything.
const BUFFER_CAPACITY: usize = 256;
/// Published when events may have been missed: each makes its subscribers read what they may not know.
const MISSED: &[Event] = &[Event::Dags, Event::Callback, Event::Notification];

/// The server's source of change events.
pub struct Changes {
    pub events: broadcast::Sender<Event>,
    /// Number of published events.
    pub count: watch::Sender<u64>,
    /// True when the server is shutting down; ends long-running responses.
    pub shutting_down: watch::Sender<bool>,
}

impl Changes {
    pub fn new() -> Self {
        Self {
            events: broadcast::Sender::new(BUFFER_CAPACITY),
            count: watch::Sender::new(0),
            shutting_down: watch::Sender::new(false),
        }
    }

    /// Publishes an event; `None` means that events may have been missed.
    pub fn publish(&self, event: Option<&Event>) {
        if let Some(Event::Prepare { .. } | Event::Queued | Event::Stop | Event::Sweep | Event::Plan(_)) = event {
            return;
        }
        self.count.send_modify(|count| *count += 1);
        for event in event.map_or(MISSED, std::slice::from_ref) {
            // There may be no subscribers.
            let _ = self.events.send(event.clone());
        }
    }

    /// Announces that the server is shutting down.
    pub fn announce_shutdown(&self) {
        self.shutting_down.send_replace(true);
    }
}

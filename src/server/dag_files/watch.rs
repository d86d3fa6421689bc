//! Being told of changes below the workspace.

use crate::protocol::log;
use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::HashSet;
use std::path::PathBuf;
use std::time::Duration;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};

/// Editors write in several steps: one look is for all of them.
const QUIET: Duration = Duration::from_millis(25);
/// But something that is written all the time is looked at all the same.
const LONGEST: Duration = Duration::from_millis(200);
/// How often the workspace is looked through where the system cannot tell of changes.
const POLL: Duration = Duration::from_secs(3);

pub struct Watch {
    watcher: Option<RecommendedWatcher>,
    events: UnboundedReceiver<()>,
    watched: HashSet<PathBuf>,
    complete: bool,
    /// There was a change, and nobody has looked since. Kept here, because waiting may be cut short.
    changed: bool,
}

impl Watch {
    pub fn new() -> Self {
        let (sender, events) = unbounded_channel();
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| is_a_change(event.kind)) {
                // The server is leaving when nobody is there to hear it.
                let _ = sender.send(());
            }
        });
        if let Err(error) = &watcher {
            log::say(format!("the workspace cannot be watched: {error}; looking every {} s", POLL.as_secs()));
        }
        Self { watcher: watcher.ok(), events, watched: HashSet::new(), complete: false, changed: false }
    }

    /// Watches exactly these folders. A folder that is replaced under its name is a new one.
    pub fn set_folders(&mut self, folders: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let wanted: HashSet<&PathBuf> = folders.iter().collect();
        self.watched.retain(|old| {
            let keep = wanted.contains(old);
            if !keep {
                // Gone with its folder, most likely.
                let _ = watcher.unwatch(old);
            }
            keep
        });
        let was_complete = self.complete;
        self.complete = true;
        for folder in folders {
            // Also those that are watched: the same inode gets the same watch.
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    self.watched.insert(folder.clone());
                }
                Err(error) => {
                    if was_complete || self.watched.is_empty() {
                        log::say(format!(
                            "{} cannot be watched: {error}; looking every {} s",
                            folder.display(),
                            POLL.as_secs()
                        ));
                    }
                    self.complete = false;
                }
            }
        }
        self.complete &= !folders.is_empty();
    }

    /// Completes some milliseconds after a change, or when it is time to look without one.
    /// Cut short, it has lost nothing.
    pub async fn changed(&mut self) {
        if !self.changed {
            if self.complete {
                self.events.recv().await;
            } else {
                let _ = tokio::time::timeout(POLL, self.events.recv()).await;
            }
            self.changed = true;
        }
        let deadline = tokio::time::Instant::now() + LONGEST;
        while tokio::time::Instant::now() < deadline
            && matches!(tokio::time::timeout(QUIET, self.events.recv()).await, Ok(Some(())))
        {}
        self.changed = false;
    }
}

/// Not that somebody reads, which we do ourselves.
fn is_a_change(kind: EventKind) -> bool {
    match kind {
        EventKind::Access(access) => access == AccessKind::Close(AccessMode::Write),
        _ => true,
    }
}

//! Being told of changes below the workspace.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// Editors write in several steps: one look is for all of them.
const QUIET: Duration = Duration::from_millis(25);
/// But something that is written all the time is looked at all the same.
const LONGEST: Duration = Duration::from_millis(200);
/// How often the workspace is looked through where the system cannot tell of changes.
const POLL: Duration = Duration::from_secs(3);

/// What the system tells of changes.
pub struct Changes {
    events: UnboundedReceiver<()>,
    /// There was a change, and nobody has looked since. Kept here, because waiting may be cut short.
    changed: bool,
    /// Without a watcher nobody else may tell anything, and waiting is still waiting.
    _sender: UnboundedSender<()>,
}

/// The folders of which it tells.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: HashMap<PathBuf, Option<Identity>>,
    complete: bool,
}

/// A folder that is replaced under its name is another one.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder).ok().map(|meta| (meta.dev(), meta.ino(), meta.created().ok()))
}

pub fn watch() -> (Folders, Changes) {
    let (sender, events) = unbounded_channel();
    let _sender = sender.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_a_change(event.kind)) {
            // The server is leaving when nobody is there to hear it.
            let _ = sender.send(());
        }
    });
    if let Err(error) = &watcher {
        warn!("the workspace cannot be watched: {error}; looking every {} s", POLL.as_secs());
    }
    let folders = Folders { watcher: watcher.ok(), watched: HashMap::new(), complete: false };
    (folders, Changes { events, changed: false, _sender })
}

impl Folders {
    /// Nothing is told: whoever waits for changes looks from time to time.
    pub fn none() -> Self {
        Self { watcher: None, watched: HashMap::new(), complete: false }
    }

    /// Whether every change will be told.
    pub fn are_complete(&self) -> bool {
        self.complete
    }

    /// Watches exactly these folders. `true` when one of them was not watched until now: what came into it since
    /// it was looked into was told to nobody, so it has to be looked into again.
    pub fn set(&mut self, folders: &[PathBuf]) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let wanted: HashSet<&PathBuf> = folders.iter().collect();
        self.watched.retain(|old, _| {
            let keep = wanted.contains(old);
            if !keep {
                // Gone with its folder, most likely.
                let _ = watcher.unwatch(old);
            }
            keep
        });
        let was_complete = self.complete || self.watched.is_empty();
        let mut has_new = false;
        let mut failed: Vec<String> = Vec::new();
        for folder in folders {
            // Also those that are watched: the same inode gets the same watch.
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    let now = identity(folder);
                    has_new |= self.watched.insert(folder.clone(), now) != Some(now);
                }
                Err(error) => failed.push(format!("{}: {error}", folder.display())),
            }
        }
        self.complete = failed.is_empty();
        if let Some(first) = failed.first().filter(|_| was_complete) {
            warn!("{} folder(s) cannot be watched, such as {first}; looking every {} s", failed.len(), POLL.as_secs());
        }
        self.complete &= !folders.is_empty();
        has_new
    }
}

impl Changes {
    /// As if there had been a change.
    pub fn expect_one(&mut self) {
        self.changed = true;
    }

    /// Completes some milliseconds after a change, or when it is time to look without one.
    /// Cut short, it has lost nothing.
    pub async fn next(&mut self, are_complete: bool) {
        if !self.changed {
            if are_complete {
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn says_which_folder_nobody_told_of_until_now() {
        let folder = tempfile::tempdir().unwrap();
        let (top, below) = (folder.path().to_owned(), folder.path().join("below"));
        fs::create_dir(&below).unwrap();
        let (mut folders, _changes) = watch();
        assert!(folders.set(std::slice::from_ref(&top)));
        assert!(!folders.set(std::slice::from_ref(&top)));
        assert!(folders.set(&[top.clone(), below.clone()]));
        assert!(!folders.set(&[top.clone(), below.clone()]));
        assert!(folders.are_complete());
        fs::remove_dir(&below).unwrap();
        fs::create_dir(&below).unwrap();
        assert!(folders.set(&[top.clone(), below.clone()]));
        assert!(!folders.set(&[top]));
    }
}

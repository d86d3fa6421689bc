//! Watches the workspace for changes.

use notify::event::{AccessKind, AccessMode, EventKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};
use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tracing::warn;

/// A change is reported after this time without another one: editors write in several steps, and one scan covers them.
const DEBOUNCE: Duration = Duration::from_millis(25);
/// A change is reported after this time at the latest, such as when a file is written continuously.
const MAX_DEBOUNCE: Duration = Duration::from_millis(200);
/// Scan interval where changes cannot be watched.
const POLL: Duration = Duration::from_secs(3);

/// Reports changes in the watched folders.
pub struct Changes {
    events: UnboundedReceiver<()>,
    /// True when a change was seen but not reported yet. Stored here, since the call of `next` may be cancelled.
    changed: bool,
    /// Keeps the channel open without a watcher, so that `recv` waits.
    _sender: UnboundedSender<()>,
}

/// The watched folders.
pub struct Folders {
    watcher: Option<RecommendedWatcher>,
    watched: HashMap<PathBuf, Option<Identity>>,
    /// True when there are folders and every one is watched.
    complete: bool,
}

/// Device, inode and creation time, which differ after a folder was replaced by another of the same name.
type Identity = (u64, u64, Option<SystemTime>);

fn identity(folder: &Path) -> Option<Identity> {
    fs::metadata(folder).ok().map(|meta| (meta.dev(), meta.ino(), meta.created().ok()))
}

/// Creates a watcher, which watches no folders yet.
pub fn watch() -> (Folders, Changes) {
    let (sender, events) = unbounded_channel();
    let _sender = sender.clone();
    let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
        if event.is_ok_and(|event| is_a_change(event.kind)) {
            // Fails only while the server shuts down.
            let _ = sender.send(());
        }
    });
    if let Err(error) = &watcher {
        warn!("cannot watch the workspace: {error}; scanning every {} s", POLL.as_secs());
    }
    let folders = Folders { watcher: watcher.ok(), watched: HashMap::new(), complete: false };
    (folders, Changes { events, changed: false, _sender })
}

/// Whether every change in the workspace is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    Complete,
    /// Some folders are not watched, so the workspace must be scanned periodically.
    Partial,
}

impl Folders {
    /// Watches nothing; the caller scans periodically.
    pub fn none() -> Self {
        Self { watcher: None, watched: HashMap::new(), complete: false }
    }

    pub fn coverage(&self) -> Coverage {
        if self.complete { Coverage::Complete } else { Coverage::Partial }
    }

    /// Watches exactly these folders. Returns `true` when a folder is new: changes since it was scanned were not
    /// notified, so it must be scanned again.
    pub fn set(&mut self, folders: &[PathBuf]) -> bool {
        let Some(watcher) = &mut self.watcher else { return false };
        let targets: HashSet<&PathBuf> = folders.iter().collect();
        self.watched.retain(|old, _| {
            let keep = targets.contains(old);
            if !keep {
                // Usually fails because the folder is gone.
                let _ = watcher.unwatch(old);
            }
            keep
        });
        let is_new_problem = self.complete || self.watched.is_empty();
        let mut has_new = false;
        let mut failed: Vec<String> = Vec::new();
        for folder in folders {
            // Also for watched folders: one that was replaced needs a new watch; an unchanged one keeps its watch.
            match watcher.watch(folder, RecursiveMode::NonRecursive) {
                Ok(()) => {
                    let current = identity(folder);
                    has_new |= self.watched.insert(folder.clone(), current) != Some(current);
                }
                Err(error) => failed.push(format!("{}: {error}", folder.display())),
            }
        }
        self.complete = failed.is_empty();
        if let Some(first) = failed.first().filter(|_| is_new_problem) {
            warn!("cannot watch {} folder(s), such as {first}; scanning every {} s", failed.len(), POLL.as_secs());
        }
        self.complete &= !folders.is_empty();
        has_new
    }
}

impl Changes {
    /// Makes `next` complete as if a change had happened.
    pub fn set_changed(&mut self) {
        self.changed = true;
    }

    /// Completes some milliseconds after a change, or when a periodic scan is due. Cancel-safe.
    pub async fn next(&mut self, coverage: Coverage) {
        if !self.changed {
            match coverage {
                Coverage::Complete => drop(self.events.recv().await),
                Coverage::Partial => drop(tokio::time::timeout(POLL, self.events.recv()).await),
            }
            self.changed = true;
        }
        let deadline = tokio::time::Instant::now() + MAX_DEBOUNCE;
        while tokio::time::Instant::now() < deadline
            && matches!(tokio::time::timeout(DEBOUNCE, self.events.recv()).await, Ok(Some(())))
        {}
        self.changed = false;
    }
}

/// False for read accesses, which the scan itself causes.
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
    fn reports_folders_that_were_not_watched_before() {
        let folder = tempfile::tempdir().unwrap();
        let (top, subfolder) = (folder.path().to_owned(), folder.path().join("below"));
        fs::create_dir(&subfolder).unwrap();
        let (mut folders, _changes) = watch();
        assert!(folders.set(std::slice::from_ref(&top)));
        assert!(!folders.set(std::slice::from_ref(&top)));
        assert!(folders.set(&[top.clone(), subfolder.clone()]));
        assert!(!folders.set(&[top.clone(), subfolder.clone()]));
        assert_eq!(folders.coverage(), Coverage::Complete);
        fs::remove_dir(&subfolder).unwrap();
        fs::create_dir(&subfolder).unwrap();
        assert!(folders.set(&[top.clone(), subfolder.clone()]));
        assert!(!folders.set(&[top]));
    }
}

//! Watches the workspace for changes.

use leoflow_base::sys::fs::mounts;
use leoflow_base::sys::fs::watch::{FolderWatches, WatchId};
use leoflow_base::sys::is_portable;
use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;
use tokio::time::{Instant, timeout};
use tracing::warn;

/// A change is reported after this time without another one: editors write in several steps, and one scan covers them.
const DEBOUNCE: Duration = Duration::from_millis(25);
/// A change is reported after this time at the latest, such as when a file is written continuously.
const MAX_DEBOUNCE: Duration = Duration::from_millis(200);
/// Scan interval where changes cannot be watched.
const POLL: Duration = Duration::from_secs(3);
/// Scan interval where no change is notified: on macOS, and on a mount of another machine, or of the host of a virtual
/// machine or container.
const UNNOTIFIED_POLL: Duration = Duration::from_millis(800);

/// Reports changes in the watched folders.
pub struct Changes {
    watches: Option<Arc<FolderWatches>>,
    /// True when a change was seen but not reported yet. Stored here, since the call of `next` may be cancelled.
    changed: bool,
}

/// The watched folders.
pub struct Folders {
    watches: Option<Arc<FolderWatches>>,
    watched: HashMap<PathBuf, WatchId>,
    /// True when there are folders and every one is watched.
    complete: bool,
    /// True where the system notifies of no changes, and when a folder is on a mount whose changes elsewhere are not
    /// notified.
    unnotified: bool,
}

/// Creates a watcher, which watches no folders yet.
pub fn watch() -> (Folders, Changes) {
    let watches = FolderWatches::new().map(Arc::new);
    if let Some(error) = watches.as_ref().err().filter(|_| !is_portable()) {
        warn!("cannot watch the workspace: {error}; scanning every {} s", POLL.as_secs());
    }
    let watches = watches.ok();
    (
        Folders { watches: watches.clone(), unnotified: is_portable(), ..Folders::none() },
        Changes { watches, changed: false },
    )
}

/// Whether every change in the workspace is notified.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Coverage {
    Complete,
    /// Some changes are not notified, so the workspace must be scanned at this interval.
    Partial(Duration),
}

impl Folders {
    /// Watches nothing; the caller scans periodically.
    pub fn none() -> Self {
        Self { watches: None, watched: HashMap::new(), complete: false, unnotified: false }
    }

    pub fn coverage(&self) -> Coverage {
        match (self.complete, self.unnotified) {
            (_, true) => Coverage::Partial(UNNOTIFIED_POLL),
            (true, false) => Coverage::Complete,
            (false, false) => Coverage::Partial(POLL),
        }
    }

    /// Watches exactly these folders. Returns `true` when a folder is new: changes since it was scanned were not
    /// notified, so it must be scanned again.
    pub fn set(&mut self, folders: &[PathBuf]) -> bool {
        self.unnotified = is_portable() || folders.iter().any(|folder| mounts::is_shared(folder));
        let Some(watches) = &self.watches else { return false };
        let targets: HashSet<&PathBuf> = folders.iter().collect();
        self.watched.extract_if(|old, _| !targets.contains(old)).for_each(|(_, id)| watches.remove(id));
        let is_new_problem = self.complete || self.watched.is_empty();
        let mut has_new = false;
        let mut failed: Vec<String> = Vec::new();
        for folder in folders {
            // Also for watched folders: one that was replaced needs a new watch; an unchanged one keeps its watch.
            match watches.add(folder) {
                Ok(id) => has_new |= self.watched.insert(folder.clone(), id) != Some(id),
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
                Coverage::Complete => self.notified().await,
                // The time is over: the periodic scan is due.
                Coverage::Partial(interval) => drop(timeout(interval, self.notified()).await),
            }
            self.changed = true;
        }
        let deadline = Instant::now() + MAX_DEBOUNCE;
        while Instant::now() < deadline && timeout(DEBOUNCE, self.notified()).await.is_ok() {}
        self.changed = false;
    }

    async fn notified(&self) {
        match &self.watches {
            Some(watches) => watches.changed().await,
            None => std::future::pending().await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn reports_folders_that_were_not_watched_before() {
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

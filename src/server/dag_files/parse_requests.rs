//! Files that a client asked to parse again, and clients that wait until changed files are parsed.

use super::refresh::Refresh;
use leoflow_base::sys::mutex::lock;
use std::path::PathBuf;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use tokio::sync::{Notify, oneshot};

#[derive(Default)]
pub struct ParseRequests {
    files: Mutex<Vec<PathBuf>>,
    added: Notify,
    refreshes: Mutex<Vec<Refresh>>,
    refresh_added: Notify,
    /// True when nothing parses DAG files, since there is no workspace.
    is_closed: AtomicBool,
}

impl ParseRequests {
    pub fn add(&self, file: PathBuf) {
        lock(&self.files).push(file);
        self.added.notify_one();
    }

    /// Waits for requests and returns their files.
    pub async fn take(&self) -> Vec<PathBuf> {
        self.added.notified().await;
        std::mem::take(&mut lock(&self.files))
    }

    /// Records that nothing parses DAG files: calls of `refresh` return at once.
    pub fn close(&self) {
        self.is_closed.store(true, Ordering::Relaxed);
    }

    /// Scans the workspace at once. Then waits until the file or folder `path` (all DAG files if `None`) is parsed and
    /// stored, or waits for its environment. Returns all files that wait for theirs.
    pub async fn refresh(&self, path: Option<PathBuf>) -> Vec<PathBuf> {
        if self.is_closed.load(Ordering::Relaxed) {
            return Vec::new();
        }
        let (done, answer) = oneshot::channel();
        lock(&self.refreshes).push(Refresh { path, done });
        self.refresh_added.notify_one();
        // Fails only while the server shuts down.
        answer.await.unwrap_or_default()
    }

    /// Waits for calls of `refresh` and returns them.
    pub(super) async fn take_refreshes(&self) -> Vec<Refresh> {
        self.refresh_added.notified().await;
        std::mem::take(&mut lock(&self.refreshes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures_util::FutureExt;

    #[test]
    fn without_a_workspace_a_refresh_returns_at_once() {
        let requests = ParseRequests::default();
        assert!(requests.refresh(None).now_or_never().is_none());
        requests.close();
        assert!(requests.refresh(None).now_or_never().is_some());
    }
}

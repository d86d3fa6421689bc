//! Commands that wait until the server has imported the DAG files as they are on the disk.

use super::file_index::FileIndex;
use std::path::PathBuf;
use tokio::sync::oneshot;

/// A command that waits.
pub struct Refresh {
    /// The DAG file that it needs; `None` for all.
    pub file: Option<PathBuf>,
    pub done: oneshot::Sender<()>,
}

impl Refresh {
    fn is_done(&self, index: &FileIndex) -> bool {
        match &self.file {
            Some(file) => !index.is_pending(file),
            None => index.dag_files().all(|file| !index.is_pending(file)),
        }
    }
}

/// Answers those whose files have been imported. Call it after a scan that began after they asked.
pub fn answer(waiting: &mut Vec<Refresh>, index: &FileIndex) {
    let (done, pending): (Vec<Refresh>, _) =
        std::mem::take(waiting).into_iter().partition(|refresh| refresh.is_done(index));
    *waiting = pending;
    for refresh in done {
        // Fails when the command has given up.
        let _ = refresh.done.send(());
    }
}

//! Commands that wait until the server has imported the DAG files as they are on the disk.

use super::file_index::FileIndex;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// The request of a command that waits.
pub struct Refresh {
    /// The DAG file that the command needs; `None` for all.
    pub file: Option<PathBuf>,
    pub done: oneshot::Sender<()>,
}

impl Refresh {
    fn is_done(&self, index: &FileIndex, is_unsaved: &impl Fn(&Path) -> bool) -> bool {
        let is_current = |file: &Path| !index.is_pending(file) && !is_unsaved(file);
        match &self.file {
            Some(file) => is_current(file),
            None => index.dag_files().all(|file| is_current(file)),
        }
    }
}

/// Answers the commands whose files have been imported. `is_unsaved` returns true if the last result of a file could
/// not be written to the datastore yet. Call it after a scan that began after the commands sent their requests.
pub fn answer(waiting: &mut Vec<Refresh>, index: &FileIndex, is_unsaved: impl Fn(&Path) -> bool) {
    let (done, pending): (Vec<Refresh>, _) =
        std::mem::take(waiting).into_iter().partition(|refresh| refresh.is_done(index, &is_unsaved));
    *waiting = pending;
    for refresh in done {
        // Fails when the command has given up.
        let _ = refresh.done.send(());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_waits_until_the_result_is_stored() {
        let (done, mut answered) = oneshot::channel();
        let mut waiting = vec![Refresh { file: Some("a.py".into()), done }];
        let index = FileIndex::default();
        answer(&mut waiting, &index, |file| file == Path::new("a.py"));
        assert!(waiting.len() == 1 && answered.try_recv().is_err());
        answer(&mut waiting, &index, |file| file == Path::new("b.py"));
        assert!(waiting.is_empty() && answered.try_recv().is_ok());
    }
}

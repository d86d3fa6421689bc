//! Commands that wait until the server has imported the DAG files as they are on the disk.

use super::file_index::FileIndex;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// The request of a command that waits.
pub struct Refresh {
    /// The DAG file that the command needs; `None` for all.
    pub file: Option<PathBuf>,
    /// Gets the files that still wait for their environment: the server has not imported their current content.
    pub done: oneshot::Sender<Vec<PathBuf>>,
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

/// Answers the commands whose files have been imported or wait for their environment. `is_unsaved` returns true if the
/// last result of a file could not be written to the datastore yet. Call it after a scan that began after the commands
/// sent their requests.
pub fn answer(
    waiting: &mut Vec<Refresh>,
    index: &FileIndex,
    is_unsaved: impl Fn(&Path) -> bool,
    without_environment: &HashSet<PathBuf>,
) {
    let (done, pending): (Vec<Refresh>, _) =
        std::mem::take(waiting).into_iter().partition(|refresh| refresh.is_done(index, &is_unsaved));
    *waiting = pending;
    for refresh in done {
        // Fails when the command has given up.
        let _ = refresh.done.send(without_environment.iter().cloned().collect());
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
        answer(&mut waiting, &index, |file| file == Path::new("a.py"), &HashSet::new());
        assert!(waiting.len() == 1 && answered.try_recv().is_err());
        let without_environment = HashSet::from([PathBuf::from("c.py")]);
        answer(&mut waiting, &index, |file| file == Path::new("b.py"), &without_environment);
        assert!(waiting.is_empty());
        assert_eq!(answered.try_recv().unwrap(), [Path::new("c.py")]);
    }
}

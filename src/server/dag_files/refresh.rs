//! Commands that wait until the server has imported the DAG files as they are on the disk.

use super::file_index::FileIndex;
use std::collections::HashSet;
use std::path::{Path, PathBuf};
use tokio::sync::oneshot;

/// The request of a command that waits.
pub struct Refresh {
    /// The DAG file that the command needs, or the folder of all that it needs; `None` for all DAG files.
    pub path: Option<PathBuf>,
    /// Receives all files that wait for their environment: the server has not imported their current content.
    pub done: oneshot::Sender<Vec<PathBuf>>,
}

impl Refresh {
    fn is_done(&self, index: &FileIndex, is_unfinished: &impl Fn(&Path) -> bool) -> bool {
        let is_needed = |file: &&PathBuf| self.path.as_ref().is_none_or(|path| file.starts_with(path));
        index.dag_files().filter(is_needed).all(|file| !index.is_pending(file) && !is_unfinished(file))
    }
}

/// Answers the commands whose files have been imported or wait for their environment. `is_unfinished` returns true
/// if the last result of a file could not be written to the datastore yet, or if another parse of it follows. Call it
/// after a scan that began after the commands sent their requests.
pub fn answer(
    waiting: &mut Vec<Refresh>,
    index: &FileIndex,
    is_unfinished: impl Fn(&Path) -> bool,
    without_environment: &HashSet<PathBuf>,
) {
    let (done, pending): (Vec<Refresh>, _) =
        std::mem::take(waiting).into_iter().partition(|refresh| refresh.is_done(index, &is_unfinished));
    *waiting = pending;
    for refresh in done {
        // Fails when the command has given up.
        let _ = refresh.done.send(without_environment.iter().cloned().collect());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refresh(path: Option<&Path>) -> (Refresh, oneshot::Receiver<Vec<PathBuf>>) {
        let (done, answered) = oneshot::channel();
        (Refresh { path: path.map(Path::to_owned), done }, answered)
    }

    #[test]
    fn a_command_waits_for_the_files_that_it_needs() {
        let index = FileIndex::with_dag_files(&["/w/p/a.py", "/w/q/b.py"]);
        let (file, mut file_answer) = refresh(Some(Path::new("/w/p/a.py")));
        let (folder, mut folder_answer) = refresh(Some(Path::new("/w/p")));
        let (other, mut other_answer) = refresh(Some(Path::new("/w/q")));
        let (all, mut all_answer) = refresh(None);
        let mut waiting = vec![file, folder, other, all];
        let without_environment = HashSet::from([PathBuf::from("/w/q/b.py")]);
        answer(&mut waiting, &index, |file| file == Path::new("/w/p/a.py"), &without_environment);
        assert_eq!(other_answer.try_recv().unwrap(), [Path::new("/w/q/b.py")]);
        assert_eq!(waiting.len(), 3);
        assert!(file_answer.try_recv().is_err() && folder_answer.try_recv().is_err() && all_answer.try_recv().is_err());
        answer(&mut waiting, &index, |_| false, &HashSet::new());
        assert!(waiting.is_empty());
        for answer in [&mut file_answer, &mut folder_answer, &mut all_answer] {
            assert!(answer.try_recv().unwrap().is_empty());
        }
    }
}

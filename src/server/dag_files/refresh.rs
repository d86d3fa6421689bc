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
        let is_below = |file: &PathBuf| self.path.as_ref().is_some_and(|path| file.starts_with(path));
        // The command may use another name of the folder, such as that of a link.
        let needs_all = !index.dag_files().any(is_below);
        let mut needed = index.dag_files().filter(|file| needs_all || is_below(file));
        needed.all(|file| !index.is_pending(file) && !is_unfinished(file))
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
        let (link, mut link_answer) = refresh(Some(Path::new("/link/p")));
        let (all, mut all_answer) = refresh(None);
        let mut waiting = vec![file, folder, other, link, all];
        let without_environment = HashSet::from([PathBuf::from("/w/q/b.py")]);
        answer(&mut waiting, &index, |file| file == Path::new("/w/p/a.py"), &without_environment);
        assert_eq!(other_answer.try_recv().unwrap(), [Path::new("/w/q/b.py")]);
        assert_eq!(waiting.len(), 4);
        for answer in [&mut file_answer, &mut folder_answer, &mut link_answer, &mut all_answer] {
            assert!(answer.try_recv().is_err());
        }
        answer(&mut waiting, &index, |_| false, &HashSet::new());
        assert!(waiting.is_empty());
        for answer in [&mut file_answer, &mut folder_answer, &mut link_answer, &mut all_answer] {
            assert!(answer.try_recv().unwrap().is_empty());
        }
    }
}

//! Commands that wait until the server has imported the DAG files as they are on the disk.

use super::dag_file::{Outcome, Work};
use super::file_index::FileIndex;
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
    fn is_done(&self, index: &FileIndex, is_building: &impl Fn(&Path) -> bool) -> bool {
        let is_below = |file: &PathBuf| self.path.as_ref().is_some_and(|path| file.starts_with(path));
        // The command may use another name of the folder, such as that of a link.
        let needs_all = !index.dag_files().any(is_below);
        let mut needed = index.dag_files().filter(|file| needs_all || is_below(file));
        needed.all(|path| match index.get(path).map(|file| (&file.work, &file.outcome)) {
            Some((Work::Parsing(_) | Work::Unsaved(_), _)) => false,
            // If the environment is no longer being built, another parse of the file follows.
            Some((Work::Idle, Outcome::AwaitsEnvironment { .. })) => is_building(path),
            Some((Work::Idle, _)) | None => true,
        })
    }
}

/// Answers the commands whose files have been imported or wait for their environment. `is_building` returns true while
/// the environment of a file is being built. Call this after a scan that began after the commands sent their requests.
pub fn answer(waiting: &mut Vec<Refresh>, index: &FileIndex, is_building: impl Fn(&Path) -> bool) {
    for refresh in waiting.extract_if(.., |refresh| refresh.is_done(index, &is_building)) {
        // Fails when the command has given up.
        let _ = refresh.done.send(index.select(|file| matches!(file.outcome, Outcome::AwaitsEnvironment { .. })));
    }
}

#[cfg(test)]
mod tests {
    use super::super::dag_file::DagOwner;
    use super::*;
    use std::time::SystemTime;

    fn refresh(path: Option<&Path>) -> (Refresh, oneshot::Receiver<Vec<PathBuf>>) {
        let (done, answered) = oneshot::channel();
        (Refresh { path: path.map(Path::to_owned), done }, answered)
    }

    #[test]
    fn a_command_waits_for_the_files_that_it_needs() {
        let mut index = FileIndex::with_dag_files(&["/w/p/a.py", "/w/q/b.py"]);
        index.set_outcome("/w/q/b.py", Outcome::AwaitsEnvironment { began: SystemTime::now() });
        index.set_outcome("/w/p/a.py", Outcome::AwaitsEnvironment { began: SystemTime::now() });
        let (file, mut file_answer) = refresh(Some(Path::new("/w/p/a.py")));
        let (folder, mut folder_answer) = refresh(Some(Path::new("/w/p")));
        let (other, mut other_answer) = refresh(Some(Path::new("/w/q")));
        let (link, mut link_answer) = refresh(Some(Path::new("/link/p")));
        let (all, mut all_answer) = refresh(None);
        let mut waiting = vec![file, folder, other, link, all];
        answer(&mut waiting, &index, |file| file == Path::new("/w/q/b.py"));
        assert!(other_answer.try_recv().unwrap().contains(&PathBuf::from("/w/q/b.py")));
        assert_eq!(waiting.len(), 4);
        for answer in [&mut file_answer, &mut folder_answer, &mut link_answer, &mut all_answer] {
            assert!(answer.try_recv().is_err());
        }
        for path in ["/w/p/a.py", "/w/q/b.py"] {
            index.set_outcome(path, Outcome::Imported(DagOwner::ThisFile));
        }
        answer(&mut waiting, &index, |_| false);
        assert!(waiting.is_empty());
        for answer in [&mut file_answer, &mut folder_answer, &mut link_answer, &mut all_answer] {
            assert!(answer.try_recv().unwrap().is_empty());
        }
    }
}

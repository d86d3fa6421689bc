//! The tasks of a home whose processes leave, or have left.

use super::folder::TaskFolder;
use crate::home::Home;
use crate::python::TASK_MARK;
use crate::sys::process::{self, ProcessId, Signal};
use crate::sys::reaper;
use std::io;
use std::time::{Duration, Instant};

/// What tasks have to leave at a stop: their keepers' own five seconds, and a little.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// For the task's own process, once its keeper is gone: the kernel is ending it.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(5);

/// How many tasks of a home run now, as far as their folders can be read, and the first error.
pub fn running(home: &Home) -> (usize, Option<io::Error>) {
    let (kept, unread) = kept(home);
    (kept.len(), unread)
}

/// The tries of a home whose keepers live, as far as their folders can be read, and the first error.
fn kept(home: &Home) -> (Vec<(TaskFolder, ProcessId)>, Option<io::Error>) {
    let (mut kept, mut unread) = (Vec::new(), None);
    let folders = TaskFolder::all(home).unwrap_or_else(|error| {
        unread = Some(error);
        Vec::new()
    });
    for folder in folders {
        match folder.keeper() {
            Ok(keeper) => kept.extend(keeper.filter(ProcessId::is_alive).map(|keeper| (folder, keeper))),
            Err(error) => unread = unread.or(Some(error)),
        }
    }
    (kept, unread)
}

/// Ends all tasks of a home whose processes have left, as far as their folders can be read. Returns how many there were, and
/// the first error.
pub fn end_all(home: &Home) -> (usize, Option<io::Error>) {
    let (mut left, unread) = kept(home);
    let count = left.len();
    left.iter().for_each(|(_, keeper)| keeper.signal(Signal::Terminate));
    let deadline = Instant::now() + STOP_LIMIT;
    while !left.is_empty() && Instant::now() < deadline {
        reaper::ended_children();
        left.retain(|(_, keeper)| keeper.is_alive());
        std::thread::sleep(Duration::from_millis(5));
    }
    for (folder, _) in &left {
        end_now(folder);
    }
    (count, unread)
}

/// A keeper that was killed takes the task's process with it, by the kernel's hand, and nothing
/// else that the task had started: those are found by their mark.
pub fn end_orphans(folder: &TaskFolder) {
    if let Ok(Some(child)) = folder.child() {
        child.wait_gone(ORPHAN_PATIENCE);
    }
    end_marked(folder);
    if let Ok(Some(spec)) = folder.spec() {
        super::log::join(&spec.keeper.log, 0);
    }
}

fn end_marked(folder: &TaskFolder) {
    for process in process::marked(TASK_MARK, &[folder.mark()]) {
        process.signal(Signal::Kill);
        process.wait_gone(ORPHAN_PATIENCE);
    }
}

/// Ends whatever of a try that nobody wants still runs.
pub fn end_now(folder: &TaskFolder) {
    if let Ok(Some(keeper)) = folder.keeper() {
        keeper.signal(Signal::Kill);
    }
    end_marked(folder);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_unreadable_task_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let of = |name: &str| TaskFolder::at(home.running_tasks().join(name));
        // A folder in the place of the file fails every read, also as root.
        std::fs::create_dir_all(of("a").path().join("process.json")).unwrap();
        std::fs::create_dir_all(of("b").path()).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let keeper = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(of("b").take(&keeper).unwrap());
        assert!(of("a").keeper().is_err());

        let (count, unread) = running(&home);
        assert_eq!((count, unread.is_some()), (1, true));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

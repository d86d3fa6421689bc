//! The tasks of a home whose processes leave, or have left.

use super::folder::TaskFolder;
use crate::home::Home;
use crate::python::TASK_MARK;
use crate::sys::process::{self, ProcessId, Signal};
use crate::sys::reaper;
use std::time::{Duration, Instant};

/// What tasks have to leave at a stop: their keepers' own five seconds, and a little.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// For the task's own process, once its keeper is gone: the kernel is ending it.
const ORPHAN_PATIENCE: Duration = Duration::from_secs(5);

/// How many tasks of a home run now.
pub fn running(home: &Home) -> usize {
    let is_kept = |folder: &TaskFolder| folder.keeper().ok().flatten().is_some_and(|keeper| keeper.is_alive());
    TaskFolder::all(home).iter().filter(|folder| is_kept(folder)).count()
}

/// Ends all tasks of a home whose processes have left. Returns how many there were.
pub fn end_all(home: &Home) -> usize {
    let mut left: Vec<(TaskFolder, ProcessId)> = TaskFolder::all(home)
        .into_iter()
        .filter_map(|folder| Some((folder.clone(), folder.keeper().ok().flatten()?)))
        .filter(|(_, keeper)| keeper.is_alive())
        .collect();
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
    count
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

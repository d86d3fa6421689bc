//! Ends all tasks of a home when it is stopped, and the processes that an ended task leaves running.

use crate::keeper::{self, TaskFolder, join_pieces};
use leoflow_base::home::Home;
use leoflow_base::sys::process::reaper;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use leoflow_python::TASK_MARK;
use std::collections::HashSet;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};

/// Time for tasks to end when the home is stopped: the keepers' grace of five seconds, and a margin.
const STOP_LIMIT: Duration = Duration::from_secs(8);

/// Time for a keeper to exit once nothing runs and no agent is connected.
const KEEPER_EXIT_LIMIT: Duration = Duration::from_secs(2);

/// Time for a process to vanish after it was killed; the kernel kills a task's own process together with its keeper.
const ORPHAN_EXIT_LIMIT: Duration = Duration::from_secs(5);

/// Returns the number of running tasks of a home, without tasks whose folders cannot be read, and the first read error.
pub fn running(home: &Home) -> (usize, Option<io::Error>) {
    let (live, first_error) = live_keepers(home);
    (live.len(), first_error)
}

/// Lists the tries of a home whose keepers are alive, without tries whose folders cannot be read, and the first read
/// error.
fn live_keepers(home: &Home) -> (Vec<(TaskFolder, ProcessId)>, Option<io::Error>) {
    let (mut live, mut first_error) = (Vec::new(), None);
    let folders = TaskFolder::all(home).unwrap_or_else(|error| {
        first_error = Some(error);
        Vec::new()
    });
    for folder in folders {
        match keeper_of_running(&folder) {
            Ok(keeper) => live.extend(keeper.filter(ProcessId::is_alive).map(|keeper| (folder, keeper))),
            Err(error) => first_error = first_error.or(Some(error)),
        }
    }
    (live, first_error)
}

fn keeper_of_running(folder: &TaskFolder) -> io::Result<Option<ProcessId>> {
    if folder.outcome()?.is_some() { Ok(None) } else { folder.keeper() }
}

/// Ends all tasks of a stopped home, except those whose folders cannot be read. Returns the number of tasks, and the
/// first read error.
pub fn end_all(home: &Home) -> (usize, Option<io::Error>) {
    let (tries, first_error) = live_keepers(home);
    // A keeper has many tries.
    let mut remaining: HashSet<&ProcessId> = tries.iter().map(|(_, keeper)| keeper).collect();
    remaining.iter().for_each(|keeper| keeper.signal(Signal::Terminate));
    let deadline = Instant::now() + STOP_LIMIT;
    while !remaining.is_empty() && Instant::now() < deadline {
        reaper::ended_children();
        remaining.retain(|keeper| keeper.is_alive());
        std::thread::sleep(Duration::from_millis(5));
    }
    for (folder, _) in tries.iter().filter(|(_, keeper)| remaining.contains(keeper)) {
        end_now(folder);
    }
    // Those without tasks exit by themselves, unless they were stopped.
    for keeper in keeper::running(home) {
        keeper.signal(Signal::Terminate);
        keeper.signal(Signal::Continue);
        if !keeper.wait_gone(KEEPER_EXIT_LIMIT) {
            keeper.signal(Signal::Kill);
        }
    }
    (tries.len(), first_error)
}

/// Ends the processes that a killed keeper left, and completes the task's log. On Linux, the kernel kills the task's own
/// process with its keeper (PDEATHSIG), but not the processes that the task has started.
pub fn end_orphans(folder: &TaskFolder, log: &Path) {
    end_processes(folder);
    if let Ok(Some(child)) = folder.child() {
        child.wait_gone(ORPHAN_EXIT_LIMIT);
    }
    join_pieces(log, 0);
}

/// Kills the keeper and all other processes of a try.
pub fn end_now(folder: &TaskFolder) {
    if let Ok(Some(keeper)) = folder.keeper() {
        keeper.signal(Signal::Kill);
    }
    end_processes(folder);
}

/// Kills the processes of a try, but not its keeper: its process group, and those with the try's mark.
pub fn end_processes(folder: &TaskFolder) {
    if let Ok(Some(child)) = folder.child()
        && child.is_alive()
    {
        process::signal_group(child.pid, Signal::Kill);
        child.signal(Signal::Kill);
    }
    let own = folder.mark();
    process::kill_marked(TASK_MARK, |mark| mark == own, ORPHAN_EXIT_LIMIT);
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn an_unreadable_task_does_not_hide_the_others() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        let task = |name: &str| TaskFolder::at(home.running_tasks().join(name));
        // A folder in the place of the file fails every read, also as root.
        std::fs::create_dir_all(task("a").path().join("process.json")).unwrap();
        std::fs::create_dir_all(task("b").path()).unwrap();
        let mut child = Command::new("sleep").arg("60").spawn().unwrap();
        let keeper = ProcessId::of(i32::try_from(child.id()).unwrap()).unwrap();
        assert!(task("b").take(&keeper).unwrap());
        assert!(task("a").keeper().is_err());

        let (count, first_error) = running(&home);
        assert_eq!((count, first_error.is_some()), (1, true));
        child.kill().unwrap();
        child.wait().unwrap();
    }
}

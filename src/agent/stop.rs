//! The tasks of a home whose processes leave, or have left.

use super::folder::TaskFolder;
use super::run::end_now;
use crate::home::Home;
use crate::sys::process::{ProcessId, Signal};
use crate::sys::reaper;
use std::time::{Duration, Instant};

/// What tasks have to leave at a stop: their keepers' own five seconds, and a little.
const STOP_LIMIT: Duration = Duration::from_secs(8);

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

//! Finds processes that a task has started and that still run after it has ended. They are children of this process then,
//! because it adopts orphans.

use leoflow_base::sys::process::{self, reaper};
use leoflow_python::{NO_MARK, TASK_MARK};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;

/// The tries of this process.
#[derive(Default)]
pub struct Siblings {
    /// The pids of running tasks.
    pids: RefCell<HashSet<i32>>,
    /// Number of tries, also those that are about to start.
    count: Cell<usize>,
}

impl Siblings {
    pub fn add(&self, pid: i32) {
        self.pids.borrow_mut().insert(pid);
    }

    pub fn remove(&self, pid: i32) {
        self.pids.borrow_mut().remove(&pid);
    }

    pub fn set_count(&self, count: usize) {
        self.count.set(count);
    }
}

/// A look at the children of this process.
pub struct Leftovers {
    /// The running processes of the task.
    pub pids: Vec<i32>,
    /// True if no other process of the task can appear, because nothing has ended or is ending meanwhile.
    pub is_settled: bool,
}

/// Finds the leftovers of the ended task with this pid, which is also its process group, and this mark: processes with
/// either. One with neither, such as a daemon that has cleared its environment, belongs to the task if no other runs.
/// Reaps those that have ended.
pub fn find(pid: i32, mark: &str, siblings: &Siblings) -> Leftovers {
    let is_last = siblings.count.get() <= 1;
    let is_in_group = |child| is_last || process::group_of(child) == Some(pid);
    let mut found = Leftovers { pids: Vec::new(), is_settled: true };
    let others: Vec<i32> = {
        let tasks = siblings.pids.borrow();
        process::children_and_zombies().into_iter().filter(|child| !tasks.contains(child)).collect()
    };
    for child in others {
        match process::variable_of(child, TASK_MARK) {
            // A warm Python, or its fork that has not begun.
            Some(child_mark) if child_mark == NO_MARK => {}
            Some(child_mark) if child_mark == mark || is_in_group(child) => found.pids.push(child),
            Some(_) => {}
            // A process that exits shows no environment.
            None if process::is_zombie(child) => {
                reaper::ended_child(child);
                found.is_settled = false;
            }
            None if process::has_begun_to_exit(child) => found.is_settled = false,
            None if is_in_group(child) => found.pids.push(child),
            None => {}
        }
    }
    found.is_settled &= found.pids.is_empty();
    found
}

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
    let mut found = Leftovers { pids: Vec::new(), is_settled: true };
    for child in process::children_and_zombies() {
        if siblings.pids.borrow().contains(&child) {
            continue;
        }
        let child_mark = process::variable_of(child, TASK_MARK);
        // Checked after the mark was read, which a process that exits does not show.
        if process::is_zombie(child) {
            reaper::ended_child(child);
            found.is_settled = false;
        } else if process::has_begun_to_exit(child) {
            found.is_settled = false;
        } else {
            let is_own = child_mark.as_deref() == Some(mark) || process::group_of(child) == Some(pid);
            // A warm Python, and its fork that has not begun, have the mark of no try.
            if is_own || is_last && child_mark.as_deref() != Some(NO_MARK) {
                found.pids.push(child);
            }
        }
    }
    found.is_settled &= found.pids.is_empty();
    found
}

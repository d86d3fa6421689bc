//! The children of the keeper: the tasks, the warm Pythons, and processes that tasks have started and not waited for, which
//! become children of this process because it adopts orphans.

use leoflow_base::sys::is_portable;
use leoflow_base::sys::process::{self, EMPTY_SCANS, reaper, reaper::Exit};
use leoflow_python::{NO_MARK, TASK_MARK};
use std::cell::{Cell, RefCell};
use std::collections::{HashMap, HashSet};
use tokio::sync::watch;

/// Reaps all children and keeps the exits of tasks.
pub struct Children {
    /// The pids of running tasks.
    tasks: RefCell<HashSet<i32>>,
    /// The marks of running tries, also of those that are about to start.
    marks: RefCell<HashSet<String>>,
    /// Exits that `take_exit` has not returned yet. While a task is forked, its pid is unknown, so every exit is kept.
    exits: RefCell<HashMap<i32, Exit>>,
    forking: Cell<usize>,
    reaped: watch::Sender<()>,
}

/// Guard for a fork in progress.
pub struct Forking<'a>(&'a Children);

impl Drop for Forking<'_> {
    fn drop(&mut self) {
        let Children { tasks, exits, forking, .. } = self.0;
        forking.set(forking.get() - 1);
        if forking.get() == 0 {
            let tasks = tasks.borrow();
            exits.borrow_mut().retain(|pid, _| tasks.contains(pid));
        }
    }
}

/// A look at the processes that a task has left running.
pub struct Leftovers {
    pub pids: Vec<i32>,
    /// True if no other can appear, because no child is exiting.
    pub is_settled: bool,
}

impl Children {
    pub fn new() -> Self {
        Self {
            tasks: RefCell::default(),
            marks: RefCell::default(),
            exits: RefCell::default(),
            forking: Cell::new(0),
            reaped: watch::Sender::new(()),
        }
    }

    /// Reaps the children that have exited. To be called at each SIGCHLD.
    pub fn reap(&self) {
        let tasks = self.tasks.borrow();
        let is_kept = |(pid, _): &(i32, Exit)| self.forking.get() > 0 || tasks.contains(pid);
        self.exits.borrow_mut().extend(reaper::ended_children().into_iter().filter(is_kept));
        self.reaped.send_replace(());
    }

    /// Receives a change whenever children were reaped.
    pub fn reaped(&self) -> watch::Receiver<()> {
        self.reaped.subscribe()
    }

    pub fn add_try(&self, mark: String) {
        self.marks.borrow_mut().insert(mark);
    }

    pub fn remove_try(&self, mark: &str) {
        self.marks.borrow_mut().remove(mark);
    }

    /// Must be called before a task is forked. The guard is dropped once the task's pid is added or the fork has failed.
    pub fn begin_fork(&self) -> Forking<'_> {
        self.forking.set(self.forking.get() + 1);
        Forking(self)
    }

    pub fn add_task(&self, pid: i32) {
        self.tasks.borrow_mut().insert(pid);
    }

    /// The exit of a task that has ended, which is then forgotten.
    pub fn take_exit(&self, pid: i32) -> Option<Exit> {
        let exit = self.exits.borrow_mut().remove(&pid)?;
        self.tasks.borrow_mut().remove(&pid);
        Some(exit)
    }

    /// Forgets a task that does not end.
    pub fn give_up(&self, pid: i32) {
        self.tasks.borrow_mut().remove(&pid);
    }

    /// Finds what the ended task with this pid, which is also its process group, and this mark has left running: processes
    /// with either, and those with the mark of a try that has ended before. One without a mark, such as a daemon that has
    /// cleared its environment, belongs to the task if no other try runs.
    pub fn leftovers(&self, pid: i32, mark: &str) -> Leftovers {
        if is_portable() {
            return marked_or_in_group(pid, mark);
        }
        let marks = self.marks.borrow();
        let mut found = Leftovers { pids: Vec::new(), is_settled: true };
        let is_task = |child: &i32| self.tasks.borrow().contains(child);
        for child in process::children_and_zombies().into_iter().filter(|child| !is_task(child)) {
            let is_own = match process::variable_of(child, TASK_MARK) {
                // A warm Python, or its fork that has not begun.
                Some(child_mark) if child_mark == NO_MARK => false,
                Some(child_mark) => child_mark == mark || !marks.contains(&child_mark) || is_in_group(child, pid),
                // A process that exits shows no environment.
                None if process::has_begun_to_exit(child) => {
                    found.is_settled = false;
                    false
                }
                None => !self.has_others() || is_in_group(child, pid),
            };
            if is_own {
                found.pids.push(child);
            }
        }
        found.is_settled &= found.pids.is_empty();
        found
    }

    /// True if another try than that of the caller runs.
    pub fn has_others(&self) -> bool {
        self.marks.borrow().len() > 1
    }
}

/// Finds leftovers where orphans become children of init: one without the mark that has left the process group is not
/// found.
fn marked_or_in_group(pid: i32, mark: &str) -> Leftovers {
    let mut scans = (0..EMPTY_SCANS).map(|_| process::marked_or_in_group(TASK_MARK, mark, pid));
    let pids = scans.find(|pids| !pids.is_empty()).unwrap_or_default();
    Leftovers { is_settled: pids.is_empty(), pids }
}

fn is_in_group(child: i32, group: i32) -> bool {
    process::group_of(child) == Some(group)
}

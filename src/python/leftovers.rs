//! Kills leftovers: processes that a child (a process that runs a DAG file) has started and that still run after it has
//! exited.

use super::interpreter::TASK_MARK;
use leoflow_base::sys::blocking;
use leoflow_base::sys::process::pidfd::PidFd;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::{self, Signal};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

/// Time for which `end_soon` collects marks before it scans: a scan reads all processes of the machine.
const SCAN_DELAY: Duration = Duration::from_millis(200);

thread_local! {
    /// Pids of the children that have not been reaped. One thread starts and reaps all of them.
    static LIVE: RefCell<HashSet<i32>> = RefCell::default();
    /// Number of forks in progress: a forked process is our child before we know its pid.
    static FORKING: Cell<usize> = const { Cell::new(0) };
    /// Marks of children whose leftovers are to be killed.
    static ENDED: RefCell<Vec<String>> = RefCell::default();
}

/// Guard for a fork in progress: while it exists, an unknown child process may be the new child, so it is not killed.
pub struct Forking(());

impl Forking {
    pub fn begin() -> Self {
        FORKING.set(FORKING.get() + 1);
        Self(())
    }
}

impl Drop for Forking {
    fn drop(&mut self) {
        FORKING.set(FORKING.get() - 1);
    }
}

/// Registers a child; `wait` must follow.
pub fn add(pid: i32) {
    LIVE.with_borrow_mut(|live| live.insert(pid));
}

/// Waits for a child to end and reaps it.
pub async fn wait(pid: i32) -> Exit {
    if let Ok(fd) = PidFd::of_pid(pid) {
        // On an old kernel this fails; then the loop below polls.
        let _ = fd.ended().await;
    }
    loop {
        if let Some(exit) = reaper::ended_child(pid) {
            LIVE.with_borrow_mut(|live| live.remove(&pid));
            return exit;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// Kills the leftovers of the child with this mark, which has exited, after `SCAN_DELAY`.
pub fn end_soon(mark: String) {
    let is_first = ENDED.with_borrow_mut(|ended| {
        ended.push(mark);
        ended.len() == 1
    });
    if is_first {
        tokio::task::spawn_local(async {
            tokio::time::sleep(SCAN_DELAY).await;
            end_pending().await;
        });
    }
}

/// Whether a child itself, as opposed to its descendants, has exited.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    Running,
    Ended,
}

/// Kills the processes of the child with this mark, and all pending leftovers, now.
pub async fn end_now(mark: String, child: ChildState) {
    ENDED.with_borrow_mut(|ended| ended.push(mark));
    scan(child).await;
}

/// Kills all pending leftovers now.
pub async fn end_pending() {
    if ENDED.with_borrow(|ended| !ended.is_empty()) {
        scan(ChildState::Ended).await;
    }
}

/// Kills the processes with the marks in `ENDED`, and adopted children. `children_state` is `Ended` if the children
/// with these marks have all exited.
async fn scan(children_state: ChildState) {
    let marks = ENDED.take();
    let live_pids = LIVE.with_borrow(|live| live.clone());
    // Reads every process, which takes a while.
    let scanning = blocking::run(move || {
        let children = process::children_in_other_sessions();
        // Once a child has exited, its orphaned descendants are our children, because this process is a subreaper:
        // without such children there are no leftovers.
        if children_state == ChildState::Ended && children.iter().all(|pid| live_pids.contains(pid)) {
            return Vec::new();
        }
        process::with_variable(TASK_MARK, &marks).iter().for_each(|process| process.signal(Signal::Kill));
        process::children_in_other_sessions()
    });
    // A panic of the scan is ignored: the next scan tries again.
    if let Ok(children) = scanning.await {
        end_adopted(&children);
    }
}

/// Kills those adopted processes in other sessions that have no mark, and reaps them. While a child runs or is being
/// forked, such a process may belong to it, so a later scan decides. A pid cannot be reused between its check and its
/// kill, because only this thread reaps.
fn end_adopted(children: &[i32]) {
    if FORKING.get() > 0 {
        return;
    }
    let is_ours = |pid: i32| LIVE.with_borrow(|live| live.contains(&pid));
    let no_child_runs = children.iter().all(|pid| !is_ours(*pid) || process::is_zombie(*pid));
    for pid in children.iter().copied().filter(|pid| !is_ours(*pid) && process::is_child_in_other_session(*pid)) {
        if process::is_zombie(pid) {
            let _ = reaper::ended_child(pid);
        } else if no_child_runs && LIVE.with_borrow_mut(|live| live.insert(pid)) {
            process::signal_process(pid, Signal::Kill);
            tokio::task::spawn_local(wait(pid));
        }
    }
}

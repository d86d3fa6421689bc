//! Ends leftovers: processes that the child of a DAG file leaves running when it ends.

use super::interpreter::TASK_MARK;
use leoflow_base::sys::blocking;
use leoflow_base::sys::process::pidfd::PidFd;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::{self, Signal};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

/// A scan reads all processes of the machine, so one scan serves all children that end within this time.
const SCAN_DELAY: Duration = Duration::from_millis(200);

thread_local! {
    /// Children that are waited for. One thread starts and reaps all of them.
    static LIVE: RefCell<HashSet<i32>> = RefCell::default();
    /// Number of forks in progress: their processes are our children before we know their pids.
    static FORKING: Cell<usize> = const { Cell::new(0) };
    /// Marks of children that have ended but whose leftovers have not been ended yet.
    static ENDED: RefCell<Vec<String>> = RefCell::default();
}

/// Guard of a fork in progress: while it exists, an unknown process may become our child.
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

/// Registers a child that is waited for.
pub fn add(pid: i32) {
    LIVE.with_borrow_mut(|live| live.insert(pid));
}

/// Waits for a child to end and reaps it.
pub async fn wait(pid: i32) -> Exit {
    if let Ok(fd) = PidFd::of_pid(pid) {
        // Fails on an old kernel; then the loop below polls.
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

/// Ends the leftovers of the ended child with this mark within `SCAN_DELAY`.
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

/// Whether a child itself has ended, as opposed to its descendants.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChildState {
    Running,
    Ended,
}

/// Ends the leftovers of the child with this mark now, and all pending ones.
pub async fn end_now(mark: String, child: ChildState) {
    ENDED.with_borrow_mut(|ended| ended.push(mark));
    scan(child).await;
}

/// Ends all pending leftovers now.
pub async fn end_pending() {
    if ENDED.with_borrow(|ended| !ended.is_empty()) {
        scan(ChildState::Ended).await;
    }
}

/// Kills the processes with the marks in `ENDED`. `children_state` is `Ended` if all those children have ended.
async fn scan(children_state: ChildState) {
    let marks = ENDED.take();
    let live_pids = LIVE.with_borrow(|live| live.clone());
    // Reads every process, which takes a while.
    let scanning = blocking::run(move || {
        let children = process::children_in_other_sessions();
        // Once a child has ended, the tops of its leftovers are our children, because we are a subreaper.
        if children_state == ChildState::Ended && children.iter().all(|pid| live_pids.contains(pid)) {
            return Vec::new();
        }
        process::marked(TASK_MARK, &marks).iter().for_each(|process| process.signal(Signal::Kill));
        process::children_in_other_sessions()
    });
    // An error (a panic of the scan) is ignored: the next scan tries again.
    if let Ok(children) = scanning.await {
        end_adopted(&children);
    }
}

/// Kills adopted children in other sessions: leftovers without a mark. While a child of a DAG file runs or is being
/// forked, they may belong to it, so they are left to a later scan. A pid cannot be reused between its check and its
/// kill, because this thread is the only one that reaps.
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

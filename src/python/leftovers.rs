//! Kills leftovers: processes that a child (a process that runs a DAG file) has started and that still run after it has
//! exited.

use super::interpreter::TASK_MARK;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::{self, Signal, exit};
use leoflow_base::sys::{blocking, is_portable};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::{Duration, Instant};

/// Time for which `end_soon` collects marks before it scans: a scan reads all processes of the machine.
const SCAN_DELAY: Duration = Duration::from_millis(200);
/// How long leftovers are killed that start new ones.
const KILL_LIMIT: Duration = Duration::from_secs(2);
/// Pause between two rounds; shorter than the life of a process in a chain of them.
const KILL_PAUSE: Duration = Duration::from_millis(1);

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
    exit::wait_child(pid).await;
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

/// Kills the processes of the child with this mark, and all pending leftovers, now. `exit` is `None` while the child
/// itself runs.
pub async fn end_now(mark: String, exit: Option<Exit>) {
    ENDED.with_borrow_mut(|ended| ended.push(mark));
    scan(exit.is_some()).await;
}

/// Kills all pending leftovers now.
pub async fn end_pending() {
    if ENDED.with_borrow(|ended| !ended.is_empty()) {
        scan(true).await;
    }
}

/// Kills the processes with the marks in `ENDED`, and adopted children. `have_exited` is true if the children with
/// these marks have all exited.
async fn scan(have_exited: bool) {
    let marks = ENDED.take();
    let live_pids = LIVE.with_borrow(|live| live.clone());
    // Reads every process, which takes a while.
    let scanning = blocking::run(move || {
        let children = process::children_in_other_sessions();
        // Once a child has exited, its orphaned descendants are our children, because this process is a subreaper:
        // without such children there are no leftovers.
        if have_exited && !is_portable() && children.iter().all(|pid| live_pids.contains(pid)) {
            return marks;
        }
        process::kill_marked(TASK_MARK, |mark| marks.iter().any(|ended| ended == mark), KILL_LIMIT);
        marks
    });
    // An error (a panic of the scan) is ignored: what it leaves is killed when no child runs any more.
    if let Ok(marks) = scanning.await {
        end_adopted(&marks).await;
    }
}

/// Kills adopted children in other sessions with one of the marks, or without any mark, until none is left: a process may
/// have started another before it was killed or exited. While a child of a DAG file runs, those without a mark may belong
/// to it, so they are left to a later scan.
async fn end_adopted(marks: &[String]) {
    let deadline = Instant::now() + KILL_LIMIT;
    loop {
        let Some(killed) = kill_adopted(marks) else { return };
        if Instant::now() >= deadline {
            // The kernel has not ended them yet.
            for pid in killed.into_iter().filter(|pid| LIVE.with_borrow_mut(|live| live.insert(*pid))) {
                tokio::task::spawn_local(wait(pid));
            }
            return;
        }
        tokio::time::sleep(KILL_PAUSE).await;
    }
}

/// One round of [`end_adopted`]; returns the killed processes. `None` if all children were looked at, none was killed
/// and none exits, so that none can have started another. A pid cannot be reused between its check and its kill,
/// because this thread is the only one that reaps.
fn kill_adopted(marks: &[String]) -> Option<Vec<i32>> {
    if FORKING.get() > 0 {
        return Some(Vec::new());
    }
    let (mut killed, mut is_settled) = (Vec::new(), true);
    let children = process::children_in_other_sessions();
    let is_ours = |pid: i32| LIVE.with_borrow(|live| live.contains(&pid));
    let no_child_runs = children.iter().all(|pid| !is_ours(*pid) || process::is_zombie(*pid));
    let has_ended_mark = |pid: i32| process::variable_of(pid, TASK_MARK).is_some_and(|mark| marks.contains(&mark));
    for pid in children.into_iter().filter(|pid| !is_ours(*pid)) {
        let is_leftover = no_child_runs || has_ended_mark(pid);
        // Checked after its mark was read, which a process that exits does not show.
        if process::is_zombie(pid) {
            if reaper::ended_child(pid).is_none() {
                // Other threads of the process still run.
                process::signal_process(pid, Signal::Kill);
            }
            is_settled = false;
        } else if is_leftover {
            process::signal_process(pid, Signal::Kill);
            killed.push(pid);
            is_settled = false;
        } else if process::has_begun_to_exit(pid) {
            is_settled = false;
        }
    }
    (!is_settled).then_some(killed)
}

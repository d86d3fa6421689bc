//! What children leave running: found below us once they have ended, and ended too.

use super::interpreter::TASK_MARK;
use crate::sys::blocking;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::time::Duration;

/// A look is about every process of the machine, so one is for all that end within this time.
const TOGETHER: Duration = Duration::from_millis(200);

thread_local! {
    /// Those that somebody waits for. All are started by one thread, and waited for by it.
    static LIVE: RefCell<HashSet<i32>> = RefCell::default();
    /// How many are being forked, which are our children before we know their pids.
    static FORKING: Cell<usize> = const { Cell::new(0) };
    /// The marks of those that have ended and were not looked after yet.
    static ENDED: RefCell<Vec<String>> = RefCell::default();
}

/// From when it is made until it is dropped one may be about to become our child that is not known yet.
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

/// From here on it is a child that somebody waits for.
pub fn add(pid: i32) {
    LIVE.with_borrow_mut(|live| live.insert(pid));
}

/// Waits for a child of ours.
pub async fn wait(pid: i32) -> Exit {
    if let Ok(fd) = PidFd::of_pid(pid) {
        // Not to be had on an old kernel; then it is asked for below.
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

/// Ends what the child with this mark has left, soon.
pub fn end_soon(mark: String) {
    let is_first = ENDED.with_borrow_mut(|ended| {
        ended.push(mark);
        ended.len() == 1
    });
    if is_first {
        tokio::task::spawn_local(async {
            tokio::time::sleep(TOGETHER).await;
            end().await;
        });
    }
}

/// Ends it now, with what is to be ended soon. `has_ended` is whether that child has.
pub async fn end_now(mark: String, has_ended: bool) {
    ENDED.with_borrow_mut(|ended| ended.push(mark));
    look(has_ended).await;
}

/// Ends what is to be ended soon.
pub async fn end() {
    if ENDED.with_borrow(|ended| !ended.is_empty()) {
        look(true).await;
    }
}

async fn look(have_ended: bool) {
    let marks = ENDED.take();
    let known = LIVE.with_borrow(|live| live.clone());
    // Reads about every process, which takes its time.
    let looked = blocking::run(move || {
        let children = process::children_in_other_sessions();
        // Once they have ended, whatever they left is below a child of ours that we have not started.
        if have_ended && children.iter().all(|pid| known.contains(pid)) {
            return Vec::new();
        }
        process::marked(TASK_MARK, &marks).iter().for_each(|left| left.signal(Signal::Kill));
        process::children_in_other_sessions()
    });
    // It cannot fail in a way that would be worth more than the result.
    if let Ok(children) = looked.await {
        end_adopted(&children);
    }
}

/// Children in other sessions that we have not started are what a file left. While others run it may be theirs, so it
/// is left to the last of them; so it is while one is being forked. Nothing else is done between a look at one and what
/// is done to it: the thread that comes here is the only one that waits for them.
fn end_adopted(children: &[i32]) {
    if FORKING.get() > 0 {
        return;
    }
    let is_ours = |pid: i32| LIVE.with_borrow(|live| live.contains(&pid));
    let is_quiet = children.iter().all(|pid| !is_ours(*pid) || process::is_zombie(*pid));
    for pid in children.iter().copied().filter(|pid| !is_ours(*pid) && process::is_child_in_other_session(*pid)) {
        if process::is_zombie(pid) {
            let _ = reaper::ended_child(pid);
        } else if is_quiet && LIVE.with_borrow_mut(|live| live.insert(pid)) {
            process::signal_process(pid, Signal::Kill);
            tokio::task::spawn_local(wait(pid));
        }
    }
}

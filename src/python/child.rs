//! A child that runs a user's DAG file for us, and what it leaves: waited for, ended with all that it started.

use super::interpreter::TASK_MARK;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

/// Of the result; a DAG of 5,000 tasks has 1.5 MB.
pub const RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Of what is kept of the output; the rest is read and forgotten.
const OUTPUT_BYTES: usize = 16 * 1024;
/// What a child that has ended may still have in its pipes is there at once.
const DRAIN: Duration = Duration::from_millis(500);

thread_local! {
    /// Those that somebody waits for. All are started by one thread, and waited for by it.
    static LIVE: RefCell<HashSet<i32>> = RefCell::default();
    /// How many are being forked, which are our children before we know their pids.
    static FORKING: Cell<usize> = const { Cell::new(0) };
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

pub struct Child {
    pid: i32,
    /// In the environment of all its processes.
    mark: String,
    exit: Option<Exit>,
    result: Pipe,
    output: Pipe,
}

impl Child {
    /// One that was just started, with the pipes for its result and its output.
    pub fn new(pid: i32, mark: String, result: Receiver, output: Receiver) -> Self {
        LIVE.with_borrow_mut(|live| live.insert(pid));
        let (result, output) = (Pipe::read(result, RESULT_BYTES), Pipe::read(output, OUTPUT_BYTES));
        Self { pid, mark, exit: None, result, output }
    }

    pub async fn ended(&mut self) -> Exit {
        let exit = wait(self.pid).await;
        self.exit = Some(exit);
        exit
    }

    /// Its group, and what it had started in sessions of their own.
    pub async fn end_all(&self) {
        self.end_group();
        let mark = self.mark.clone();
        let has_ended = self.exit.is_some();
        let known = LIVE.with_borrow(|live| live.clone());
        // Reads about every process, which takes its time.
        let looked = tokio::task::spawn_blocking(move || {
            let children = process::children_in_other_sessions();
            // Once it has ended, whatever it left is below a child of ours that we have not started.
            if has_ended && children.iter().all(|pid| known.contains(pid)) {
                return Vec::new();
            }
            process::marked(TASK_MARK, &mark).iter().for_each(|left| left.signal(Signal::Kill));
            process::children_in_other_sessions()
        });
        // It cannot fail in a way that would be worth more than the result.
        if let Ok(children) = looked.await {
            end_adopted(&children);
        }
    }

    fn end_group(&self) {
        process::signal_group(self.pid, Signal::Kill);
    }

    /// What it wrote, as far as it is there.
    pub async fn harvest(&mut self) -> (Vec<u8>, String) {
        let result = self.result.take().await;
        let output = self.output.take().await;
        (result, String::from_utf8_lossy(&output).into_owned())
    }
}

/// Children in other sessions that we have not started are what a file left. While others run it may be theirs, so it
/// is left to the last of them; so it is while one is being forked. Nothing else is done between a look at one and what is done to it: the thread that
/// comes here is the only one that waits for them.
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

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
        if self.exit.is_none() {
            tokio::task::spawn_local(wait(self.pid));
        }
    }
}

/// Waits for a child of ours.
async fn wait(pid: i32) -> Exit {
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

/// What comes through a pipe, while it comes.
struct Pipe {
    kept: Rc<RefCell<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Pipe {
    /// Keeps the first `limit` bytes and reads the rest too, so that the writer is never held up.
    fn read(mut reader: Receiver, limit: usize) -> Self {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let shared = kept.clone();
        let reading = tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                let mut kept = shared.borrow_mut();
                let room = limit - kept.len();
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
        });
        Self { kept, reading }
    }

    /// All of it, or what is there when somebody keeps the pipe open.
    async fn take(&mut self) -> Vec<u8> {
        let _ = tokio::time::timeout(DRAIN, &mut self.reading).await;
        self.kept.take()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

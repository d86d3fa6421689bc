//! A child that runs a user's DAG file for us, and what it leaves: waited for, ended with all that it started.

use super::leftovers;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::Exit;
use std::cell::RefCell;
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
/// Where nobody else has its pipes.
const AT_ONCE: Duration = Duration::from_millis(5);

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
        leftovers::add(pid);
        let (result, output) = (Pipe::read(result, RESULT_BYTES), Pipe::read(output, OUTPUT_BYTES));
        Self { pid, mark, exit: None, result, output }
    }

    /// Its session has the same number.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    pub async fn ended(&mut self) -> Exit {
        let exit = leftovers::wait(self.pid).await;
        self.exit = Some(exit);
        exit
    }

    /// Its group, and what it had started in sessions of their own: `soon` when that is in no hurry and others end too.
    pub async fn end_all(&mut self, soon: bool) {
        self.end_group();
        let mark = std::mem::take(&mut self.mark);
        // Who holds a pipe holds up what is read from it.
        if soon && self.exit.is_some() && self.result.ends().await && self.output.ends().await {
            leftovers::end_soon(mark);
        } else {
            leftovers::end_now(mark, self.exit.is_some()).await;
        }
    }

    fn end_group(&self) {
        // One that was forked just now may have no group of its own yet; its pid is its own until it is waited for.
        if self.exit.is_none() {
            process::signal_process(self.pid, Signal::Kill);
        }
        process::signal_group(self.pid, Signal::Kill);
    }

    /// What it wrote, as far as it is there.
    pub async fn harvest(&mut self) -> (Vec<u8>, String) {
        let result = self.result.take().await;
        let output = self.output.take().await;
        (result, String::from_utf8_lossy(&output).into_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
        if self.exit.is_none() {
            tokio::task::spawn_local(leftovers::wait(self.pid));
        }
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

    /// Whether nobody has its other end any more.
    async fn ends(&mut self) -> bool {
        self.reading.is_finished() || tokio::time::timeout(AT_ONCE, &mut self.reading).await.is_ok()
    }

    /// All of it, or what is there when somebody keeps the pipe open.
    async fn take(&mut self) -> Vec<u8> {
        if !self.reading.is_finished() {
            let _ = tokio::time::timeout(DRAIN, &mut self.reading).await;
        }
        self.kept.take()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

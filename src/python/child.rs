//! A child process that parses a DAG file or answers a question about it: collects its result and output, and kills
//! it with its descendants.

use super::leftovers;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::process::{self, Signal};
use std::cell::RefCell;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

/// Size limit of the result, bytes; a DAG of 5,000 tasks has 1.5 MB.
pub const RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Output that is kept, bytes; the rest is read and discarded.
const OUTPUT_BYTES: usize = 16 * 1024;
/// Time limit for draining the pipes of a child that has ended.
const DRAIN: Duration = Duration::from_millis(500);
/// Time limit for noticing that the last writer of a pipe has closed it.
const CLOSE_WAIT: Duration = Duration::from_millis(5);

/// When to kill the descendants of a child.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KillTiming {
    AtOnce,
    /// Some 200 ms later, in one scan of /proc together with those of other children.
    Batched,
}

pub struct Child {
    pid: i32,
    /// Value of `TASK_MARK` in the environment of the child and its descendants; identifies them. Empty once the
    /// descendants have been killed or are about to be.
    mark: String,
    /// `None` while the child runs.
    exit: Option<Exit>,
    result: Pipe,
    output: Pipe,
}

impl Child {
    /// Wraps a child that was just started, with the pipes for its result and its output.
    pub fn new(pid: i32, mark: String, result: Receiver, output: Receiver) -> Self {
        leftovers::add(pid);
        let (result, output) = (Pipe::read(result, RESULT_BYTES), Pipe::read(output, OUTPUT_BYTES));
        Self { pid, mark, exit: None, result, output }
    }

    /// The child's pid, which is also its session id.
    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Waits until the child has exited.
    pub async fn wait_for_exit(&mut self) -> Exit {
        let exit = leftovers::wait(self.pid).await;
        self.exit = Some(exit);
        exit
    }

    /// Kills the child's process group now. `timing` applies to its descendants in other sessions.
    pub async fn end_all(&mut self, timing: KillTiming) {
        self.end_group();
        let mark = self.mark.clone();
        // A descendant that still holds a pipe is killed now: `collect` would wait for it.
        if timing == KillTiming::Batched
            && self.exit.is_some()
            && self.result.has_ended().await
            && self.output.has_ended().await
        {
            leftovers::end_soon(mark);
        } else {
            leftovers::end_now(mark, self.exit).await;
        }
        self.mark.clear();
    }

    fn end_group(&self) {
        // A child that was just forked may not lead its group yet. Its pid cannot be reused before it is reaped.
        if self.exit.is_none() {
            process::signal_process(self.pid, Signal::Kill);
        }
        process::signal_group(self.pid, Signal::Kill);
    }

    /// Returns the result and the output as far as they have arrived.
    pub async fn collect(&mut self) -> (Vec<u8>, String) {
        let result = self.result.take().await;
        let output = self.output.take().await;
        (result, String::from_utf8_lossy(&output).into_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
        let (pid, has_exited, mark) = (self.pid, self.exit.is_some(), std::mem::take(&mut self.mark));
        if has_exited && mark.is_empty() {
            return;
        }
        tokio::task::spawn_local(async move {
            if !has_exited {
                leftovers::wait(pid).await;
            }
            // `end_all` was not called, or was cancelled.
            if !mark.is_empty() {
                leftovers::end_soon(mark);
            }
        });
    }
}

/// Reads one pipe in the background.
struct Pipe {
    bytes: Rc<RefCell<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Pipe {
    /// Keeps the first `limit` bytes and reads the rest too, so that the writer never blocks.
    fn read(mut reader: Receiver, limit: usize) -> Self {
        let bytes = Rc::new(RefCell::new(Vec::new()));
        let shared = bytes.clone();
        let reading = tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                let mut bytes = shared.borrow_mut();
                let capacity = limit - bytes.len();
                bytes.extend_from_slice(&buffer[..length.min(capacity)]);
            }
        });
        Self { bytes, reading }
    }

    /// True when no process holds the other end any more.
    async fn has_ended(&mut self) -> bool {
        self.reading.is_finished() || tokio::time::timeout(CLOSE_WAIT, &mut self.reading).await.is_ok()
    }

    /// Returns the kept bytes; waits at most `DRAIN` if a process keeps the pipe open.
    async fn take(&mut self) -> Vec<u8> {
        if !self.reading.is_finished() {
            let _ = tokio::time::timeout(DRAIN, &mut self.reading).await;
        }
        self.bytes.take()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}

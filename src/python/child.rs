//! Children that run a user's DAG file for us, with limits on time, memory and output, so that a file can
//! do nothing to the others and nothing to us.

use super::interpreter::{Interpreter, Job, TASK_MARK, environment};
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::{FIRST_PASSED, Spawn};
use crate::sys::{listener, random};
use serde_json::{Value, json};
use std::cell::RefCell;
use std::collections::HashSet;
use std::io;
use std::os::fd::AsFd;
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

/// Airflow's `dagbag_import_timeout`.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Of writable memory.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Of the result; a DAG of 5,000 tasks has 1.5 MB.
pub const RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Of what is kept of the output; the rest is read and forgotten.
const OUTPUT_BYTES: usize = 16 * 1024;
/// What a child that has ended may still have in its pipes is there at once.
const DRAIN: Duration = Duration::from_millis(500);

/// What a child left.
pub struct Left {
    pub result: Vec<u8>,
    pub exit: Exit,
    /// What it printed, as a paragraph for people; empty when that was nothing.
    pub said: String,
}

thread_local! {
    /// Those that somebody waits for. All are started by one thread, and waited for by it.
    static LIVE: RefCell<HashSet<i32>> = RefCell::default();
}

/// Runs one to its end, in the first folder of its `work_in` that is there. `Err` is for people: why there is nothing.
/// Dropped, it ends the child. Must be called on the main thread of the process, inside a `LocalSet`.
pub async fn run(interpreter: &Interpreter, job: Job, options: Value) -> Result<Left, String> {
    let mut child = Child::start(interpreter, job, options)
        .map_err(|error| format!("{} cannot be started: {error}", interpreter.program.display()))?;
    let exit = tokio::time::timeout(TIME_LIMIT, child.ended()).await;
    // What it left running goes with it, and lets go of the pipes.
    child.end_all().await;
    let (result, output) = child.harvest().await;
    let said = if output.is_empty() { String::new() } else { format!("\n\nIt printed:\n{}", output.trim_end()) };
    match exit {
        Err(_) => Err(format!("Importing it took longer than {} s and was ended.{said}", TIME_LIMIT.as_secs())),
        Ok(exit) => Ok(Left { result, exit, said }),
    }
}

struct Child {
    pid: i32,
    /// In the environment of all its processes.
    mark: String,
    exit: Option<Exit>,
    result: Pipe,
    output: Pipe,
}

impl Child {
    /// Starts one for a job. `options` are the job's own.
    fn start(interpreter: &Interpreter, job: Job, options: Value) -> io::Result<Self> {
        let (result, result_writer) = listener::pipe_with_async_reader()?;
        let (output, output_writer) = listener::pipe_with_async_reader()?;
        let mut options = options;
        options["descriptor"] = FIRST_PASSED.into();
        options["limits"] = json!({
            "RLIMIT_DATA": MEMORY_BYTES, "RLIMIT_CPU": TIME_LIMIT.as_secs() + 5, "RLIMIT_CORE": 0,
        });
        let mark = format!("parse-{}", hex::encode(random::bytes::<8>()));
        let mut environment = environment();
        environment.push((TASK_MARK.into(), mark.clone().into()));
        let spawn = Spawn {
            program: interpreter.program.clone(),
            called: None,
            arguments: interpreter.arguments(job, &options),
            environment,
            output: output_writer.as_fd(),
            errors: None,
            // Not here: what hangs there must not hang us.
            folder: None,
            passed: vec![result_writer.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: true,
        };
        // What it forks twice, with an environment of its own, becomes our child and not init's.
        process::become_subreaper()?;
        let pid = spawn.start().map_err(io::Error::other)?;
        LIVE.with_borrow_mut(|live| live.insert(pid));
        Ok(Self {
            pid,
            mark,
            exit: None,
            result: Pipe::read(result, RESULT_BYTES),
            output: Pipe::read(output, OUTPUT_BYTES),
        })
    }

    async fn ended(&mut self) -> Exit {
        let exit = wait(self.pid).await;
        self.exit = Some(exit);
        exit
    }

    /// Its group, and what it had started in sessions of their own.
    async fn end_all(&self) {
        self.end_group();
        let mark = self.mark.clone();
        // Reads every process's environment, which takes its time.
        let looked = tokio::task::spawn_blocking(move || {
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
    async fn harvest(&mut self) -> (Vec<u8>, String) {
        let result = self.result.take().await;
        let output = self.output.take().await;
        (result, String::from_utf8_lossy(&output).into_owned())
    }
}

/// Children in other sessions that we have not started are what a file left. While others run it may be theirs, so it
/// is left to the last of them. Nothing else is done between a look at one and what is done to it: the thread that
/// comes here is the only one that waits for them.
fn end_adopted(children: &[i32]) {
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

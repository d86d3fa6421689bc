//! Runs child processes for users' DAG files, with limits on time, memory and output, so that one file cannot harm
//! other files or this process.

use super::child::{Child, KillTiming};
use super::dotenv::InvalidVariable;
use super::import_timeout::{ImportTimeout, TimeSpent};
use super::interpreter::{Interpreter, Job, parse_marks_of};
use super::leftovers::{self, Forking};
use super::no_result::NoResult;
use super::shared_warm::SharedWarm;
use leoflow_base::home::Home;
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process;
use leoflow_base::sys::process::descriptors::FIRST_PASSED;
use leoflow_base::sys::process::processor;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::transient::is_transient;
use leoflow_base::sys::{blocking, random};
use serde_json::{Value, json};
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::time::Instant;

/// Time limit for reading a project's `.env`; when it expires, as on a hanging mount, the file is ignored.
const SETTINGS_LIMIT: Duration = Duration::from_secs(5);
/// `RLIMIT_DATA` of a child, bytes.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Time limit for waiting until a zygote (a warm Python, see `zygote/`) has loaded Airflow's own SDK.
const ZYGOTE_WAIT: Duration = Duration::from_secs(15);
/// Children fork from a zygote when this many start within `BUSY_WINDOW`; for fewer, starting one costs more time.
const BUSY_STARTS: usize = 3;
const BUSY_WINDOW: Duration = Duration::from_secs(10);

/// The output of a child that has ended.
pub struct ChildOutput {
    pub result: Vec<u8>,
    pub exit: Exit,
    /// The child's output as a paragraph to append to a message; empty without output.
    pub printed: String,
}

/// Comes before the text that a process printed.
const PRINTED: &str = "\n\nIt printed:\n";

impl ChildOutput {
    /// What the process printed, without the words before it.
    pub fn text(&self) -> &str {
        self.printed.strip_prefix(PRINTED).unwrap_or(&self.printed)
    }

    /// Parses the result as an answer to `Job::Ask`.
    pub fn answer(self) -> Result<Value, AnswerError> {
        let Ok(answer) = serde_json::from_slice::<Value>(&self.result) else {
            return Err(AnswerError::NoAnswer { exit: self.exit, printed: self.printed });
        };
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(AnswerError::Code { error: error.to_owned(), printed: self.printed }),
            None => Ok(answer),
        }
    }
}

/// Why a child has not answered; each text is a message for the user.
#[derive(Debug, thiserror::Error)]
pub enum AnswerError {
    #[error("the process ended before it answered: {exit}{printed}")]
    NoAnswer { exit: Exit, printed: String },
    /// The error of the DAG file's own code.
    #[error("{error}{printed}")]
    Code { error: String, printed: String },
}

/// Starts children, as forks of a zygote when there are many.
pub struct Children {
    warm: SharedWarm,
    /// Start times of the last `BUSY_STARTS` children.
    recent_starts: RefCell<VecDeque<Instant>>,
}

impl Children {
    pub fn new(home: &Home) -> Rc<Self> {
        Rc::new(Self { warm: SharedWarm::for_files(home), recent_starts: RefCell::default() })
    }

    /// Runs a child until it exits, in the first folder of `options["work_in"]` that exists. Updates `used` with the
    /// child's processor time so far. Dropping the future kills the child. Must be called on the process's main
    /// thread, in a `LocalSet`.
    pub async fn run(
        self: &Rc<Self>,
        interpreter: &Interpreter,
        job: Job,
        options: Value,
        used: &Cell<Duration>,
    ) -> Result<ChildOutput, NoResult> {
        let timeout = read_import_timeout(&options).await.map_err(|error| NoResult::Permanent(error.to_string()))?;
        let (children, own_interpreter) = (self.clone(), interpreter.clone());
        // A fork cannot be cancelled halfway, so it runs in a task of its own. If the caller is cancelled, that task
        // still finishes and drops the child, which kills it.
        let starting =
            tokio::task::spawn_local(async move { children.start(&own_interpreter, job, options, timeout).await });
        let started = starting.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let mut child = started.map_err(|error| {
            let reason = format!("failed to start {}: {error}", interpreter.program.display());
            if is_transient(&error) { NoResult::Transient(reason) } else { NoResult::Permanent(reason) }
        })?;
        let ended = wait_within_timeout(&mut child, job, timeout, used).await;
        // Killing the descendants also closes the pipes that they hold.
        child.end_all(if self.is_busy() { KillTiming::Batched } else { KillTiming::AtOnce }).await;
        let (result, output) = child.collect().await;
        let printed = if output.is_empty() { String::new() } else { format!("{PRINTED}{}", output.trim_end()) };
        match ended {
            Ok(exit) => Ok(ChildOutput { result, exit, printed }),
            Err(spent) => Err(NoResult::TimedOut(timeout.message(job, spent) + &printed)),
        }
    }

    /// Kills the descendants that `KillTiming::Batched` postponed. Call it before this process exits.
    pub async fn end(&self) {
        leftovers::end_pending().await;
    }

    /// Records which libraries a file imported; the zygote preloads them for later children.
    pub async fn note_libraries(&self, interpreter: &Interpreter, file: &Path, libraries: &[String]) {
        self.warm.note_libraries(interpreter, &file.to_string_lossy(), libraries).await;
    }

    /// Starts a child: a fork of the zygote, or a new Python. Adds the resource limits to `options`.
    async fn start(
        self: Rc<Self>,
        interpreter: &Interpreter,
        job: Job,
        options: Value,
        timeout: ImportTimeout,
    ) -> io::Result<Child> {
        let mut options = options;
        options["descriptor"] = FIRST_PASSED.into();
        options["limits"] = json!({"RLIMIT_DATA": MEMORY_BYTES, "RLIMIT_CORE": 0});
        if let Some(seconds) = timeout.cpu_rlimit(processor::count()) {
            options["limits"]["RLIMIT_CPU"] = seconds.into();
        }
        // A subreaper also adopts double-forked descendants that dropped the mark from their environment.
        process::become_subreaper()?;
        self.note_start();
        if (self.is_busy() || interpreter.has_airflow_sdk)
            && let Some(child) = self.fork(interpreter, ChildPlan::new(job, options.clone())?).await
        {
            return Ok(child);
        }
        // New pipes: a zygote that answers too late has forked a child that holds the old ones.
        let plan = ChildPlan::new(job, options)?;
        let pid = plan.start(interpreter)?;
        Ok(plan.into_child(pid))
    }

    /// Forks a child from the zygote; `None` when it must start cold.
    async fn fork(self: &Rc<Self>, interpreter: &Interpreter, plan: ChildPlan) -> Option<Child> {
        let file = plan.options["path"].as_str().unwrap_or_default();
        if interpreter.has_airflow_sdk {
            // A cold start takes as long as starting the zygote.
            self.warm.wait(interpreter, file, ZYGOTE_WAIT).await;
        }
        // Keeps the child from being taken for a leftover until its pid is known.
        let _forking = Forking::begin();
        let request = json!({"job": plan.job.word(), "mark": plan.mark, "options": interpreter.options(&plan.options)});
        let descriptors = [plan.output.as_fd(), plan.output.as_fd(), plan.result.as_fd()];
        let forked = self.warm.fork(interpreter, file, None, &request, descriptors).await?;
        let child = plan.into_child(forked.pid);
        forked.begin().ok().map(|()| child)
    }

    /// Records a start, for `is_busy`.
    fn note_start(&self) {
        let mut recent_starts = self.recent_starts.borrow_mut();
        recent_starts.push_back(Instant::now());
        if recent_starts.len() > BUSY_STARTS {
            recent_starts.pop_front();
        }
    }

    /// True if `BUSY_STARTS` children have started within `BUSY_WINDOW`.
    fn is_busy(&self) -> bool {
        let recent_starts = self.recent_starts.borrow();
        recent_starts.len() == BUSY_STARTS && recent_starts.front().is_some_and(|first| first.elapsed() < BUSY_WINDOW)
    }
}

/// Reads the import timeout from the project's `.env` or our environment.
async fn read_import_timeout(options: &Value) -> Result<ImportTimeout, InvalidVariable> {
    let folders = options["work_in"].as_array().into_iter().flatten();
    let folders: Vec<PathBuf> = folders.filter_map(Value::as_str).map(PathBuf::from).collect();
    let reading = blocking::run(move || ImportTimeout::read(&folders));
    match tokio::time::timeout(SETTINGS_LIMIT, reading).await {
        Ok(Ok(timeout)) => timeout,
        Ok(Err(_)) | Err(_) => ImportTimeout::read(&[]),
    }
}

/// Waits until the child exits. The error is the time that it had spent when its timeout expired.
async fn wait_within_timeout(
    child: &mut Child,
    job: Job,
    timeout: ImportTimeout,
    used: &Cell<Duration>,
) -> Result<Exit, TimeSpent> {
    let (begun, pid) = (Instant::now(), child.pid());
    loop {
        let next_check = tokio::time::sleep(timeout.next_check_in(begun.elapsed()));
        tokio::select! {
            exit = child.wait_for_exit() => {
                return Ok(exit);
            }
            () = next_check => used.set(processor::used(pid)),
        }
        if timeout.may_have_expired(begun.elapsed()) {
            let measured = blocking::run(move || (processor::used_by_session(pid), processor::queued(pid)));
            let (processor, queued) = measured.await.unwrap_or_default();
            let spent = TimeSpent { elapsed: begun.elapsed(), processor, queued };
            if timeout.has_expired(job, spent) {
                used.set(processor);
                return Err(spent);
            }
        }
    }
}

/// A child that has not started yet, with the pipes for its result and its output.
struct ChildPlan {
    job: Job,
    options: Value,
    mark: String,
    /// The child's ends of the pipes.
    output: OwnedFd,
    result: OwnedFd,
    /// Our ends of the pipes.
    output_reader: Receiver,
    result_reader: Receiver,
}

impl ChildPlan {
    fn new(job: Job, options: Value) -> io::Result<Self> {
        let (result_reader, result) = listener::pipe_with_async_reader()?;
        let (output_reader, output) = listener::pipe_with_async_reader()?;
        let mark = parse_marks_of(std::process::id()) + &hex::encode(random::bytes::<5>());
        Ok(Self { job, options, mark, output, result, output_reader, result_reader })
    }

    fn into_child(self, pid: i32) -> Child {
        Child::new(pid, self.mark, self.result_reader, self.output_reader)
    }

    /// Starts the child as a new Python; returns its pid.
    fn start(&self, interpreter: &Interpreter) -> io::Result<i32> {
        // The child changes its directory itself: a hanging mount must not block us.
        let spawn = interpreter.spawn(self.job, &self.options, Some(&self.mark));
        let spawn = Spawn { passed: vec![self.result.as_fd()], own_session: true, ..spawn };
        spawn.start(self.output.as_fd()).map_err(io::Error::other)
    }
}

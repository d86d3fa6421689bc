//! Children that run a user's DAG file for us, with limits on time, memory and output, so that a file can
//! do nothing to the others and nothing to us.

use super::child::Child;
use super::import_timeout::{ImportTimeout, Spent};
use super::interpreter::{Interpreter, Job, TASK_MARK, environment};
use super::leftovers::{self, Forking};
use super::no_result::NoResult;
use super::warm::Warm;
use crate::home::Home;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::Exit;
use crate::sys::spawn::{FIRST_PASSED, Spawn};
use crate::sys::transient::is_transient;
use crate::sys::{blocking, listener, processor, random};
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

/// For a project's settings on a mount that hangs; then the default counts.
const SETTINGS_LIMIT: Duration = Duration::from_secs(5);
/// Of writable memory.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// How long a child waits for a warm Python with Airflow's own SDK.
const LONG: Duration = Duration::from_secs(15);
/// A warm Python pays when so many have begun within its idle time.
const MANY: usize = 3;
const RECENT: Duration = Duration::from_secs(10);

/// What a child left.
pub struct Left {
    pub result: Vec<u8>,
    pub exit: Exit,
    /// What it printed, as a paragraph for people; empty when that was nothing.
    pub said: String,
}

impl Left {
    /// Its answer to a question. The error is for people.
    pub fn answer(&self) -> Result<Value, String> {
        let answer: Value = serde_json::from_slice(&self.result)
            .map_err(|_| format!("the process that was asked ended before it answered: {}{}", self.exit, self.said))?;
        match answer.get("error").and_then(Value::as_str) {
            Some(error) => Err(format!("{error}{}", self.said)),
            None => Ok(answer),
        }
    }
}

/// Starts them, as forks of a warm Python when there are many.
pub struct Children {
    warm: tokio::sync::Mutex<Warm>,
    /// When the last ones began.
    recent: RefCell<VecDeque<Instant>>,
    is_watched: Cell<bool>,
}

impl Children {
    pub fn new(home: &Home) -> Rc<Self> {
        let warm = tokio::sync::Mutex::new(Warm::alone(home));
        Rc::new(Self { warm, recent: RefCell::default(), is_watched: Cell::new(false) })
    }

    /// Runs one to its end, in the first folder of its `work_in` that is there. Says in `used` how much processor time it
    /// has used so far. Dropped, it ends the child. Must be called on the main thread of the process, inside a `LocalSet`.
    pub async fn run(
        self: &Rc<Self>,
        interpreter: &Interpreter,
        job: Job,
        options: Value,
        used: &Cell<Duration>,
    ) -> Result<Left, NoResult> {
        let timeout = timeout_of(&options).await.map_err(NoResult::Lasting)?;
        let (children, with) = (self.clone(), interpreter.clone());
        // In a task of its own, because half a fork cannot be given up; whoever gives up lets go of the child.
        let starting = tokio::task::spawn_local(async move { children.start(&with, job, options, timeout).await });
        let started = starting.await.unwrap_or_else(|error| Err(io::Error::other(error)));
        let mut child = started.map_err(|error| {
            let reason = format!("{} cannot be started: {error}", interpreter.program.display());
            if is_transient(&error) { NoResult::Passing(reason) } else { NoResult::Lasting(reason) }
        })?;
        let ended = ended_in_time(&mut child, job, timeout, used).await;
        // What it left running goes with it, and lets go of the pipes.
        child.end_all(self.are_many()).await;
        let (result, output) = child.harvest().await;
        let said = if output.is_empty() { String::new() } else { format!("\n\nIt printed:\n{}", output.trim_end()) };
        match ended {
            Ok(exit) => Ok(Left { result, exit, said }),
            Err(spent) => Err(NoResult::Passing(timeout.message(job, spent) + &said)),
        }
    }

    /// Ends what those have left that ended just now, for a process that ends itself.
    pub async fn end(&self) {
        leftovers::end().await;
    }

    /// What one has loaded is loaded ahead for those after it.
    pub async fn learn(&self, interpreter: &Interpreter, file: &Path, libraries: &[String]) {
        self.warm.lock().await.learn(interpreter, &file.to_string_lossy(), libraries);
    }

    /// `options` are the job's own.
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
        if let Some(seconds) = timeout.last_resort(processor::count()) {
            options["limits"]["RLIMIT_CPU"] = seconds.into();
        }
        // What it forks twice, with an environment of its own, becomes our child and not init's.
        process::become_subreaper()?;
        self.one_begins();
        if (self.are_many() || interpreter.is_airflows)
            && let Some(child) = self.fork(interpreter, Plan::new(job, options.clone())?).await
        {
            return Ok(child);
        }
        // With other pipes: a fork that comes too late finds that nobody reads what it has to say.
        let plan = Plan::new(job, options)?;
        let pid = plan.start(interpreter)?;
        Ok(plan.child(pid))
    }

    /// `None` when it is to be started cold.
    async fn fork(self: &Rc<Self>, interpreter: &Interpreter, plan: Plan) -> Option<Child> {
        // With Airflow's own SDK a cold start takes as long. Others have theirs meanwhile.
        let ready = self.warm.lock().await.worth_waiting_for(interpreter);
        if let Some(ready) = ready {
            let _ = tokio::time::timeout(LONG, ready).await;
        }
        let mut warm = self.warm.lock().await;
        // Until the child is known.
        let _forking = Forking::begin();
        let asked = json!({"job": plan.job.word(), "mark": plan.mark, "options": interpreter.options(&plan.options)});
        let descriptors = [plan.output.as_fd(), plan.result.as_fd()];
        let file = plan.options["path"].as_str().unwrap_or_default();
        let pid = warm.fork(interpreter, file, &asked, &descriptors, Duration::ZERO).await;
        self.let_go_when_idle();
        pid.map(|pid| plan.child(pid))
    }

    fn one_begins(&self) {
        let mut recent = self.recent.borrow_mut();
        recent.push_back(Instant::now());
        if recent.len() > MANY {
            recent.pop_front();
        }
    }

    fn are_many(&self) -> bool {
        let recent = self.recent.borrow();
        recent.len() == MANY && recent.front().is_some_and(|first| first.elapsed() < RECENT)
    }

    fn let_go_when_idle(self: &Rc<Self>) {
        if self.is_watched.replace(true) {
            return;
        }
        let children = self.clone();
        tokio::task::spawn_local(async move {
            loop {
                let mut warm = children.warm.lock().await;
                match warm.idle_at().filter(|at| *at > Instant::now()) {
                    Some(at) => {
                        drop(warm);
                        tokio::time::sleep_until(at).await;
                    }
                    None => {
                        warm.let_go();
                        if warm.idle_at().is_none() {
                            return children.is_watched.set(false);
                        }
                    }
                }
            }
        });
    }
}

/// The limit that the project's own variables set. The error is for people.
async fn timeout_of(options: &Value) -> Result<ImportTimeout, String> {
    let folders = options["work_in"].as_array().into_iter().flatten();
    let folders: Vec<PathBuf> = folders.filter_map(Value::as_str).map(PathBuf::from).collect();
    let asked = blocking::run(move || ImportTimeout::of(&folders));
    match tokio::time::timeout(SETTINGS_LIMIT, asked).await {
        Ok(Ok(timeout)) => timeout,
        Ok(Err(_)) | Err(_) => ImportTimeout::of(&[]),
    }
}

/// How it ended; else what it has spent once it has taken too long.
async fn ended_in_time(
    child: &mut Child,
    job: Job,
    timeout: ImportTimeout,
    used: &Cell<Duration>,
) -> Result<Exit, Spent> {
    let (begun, pid) = (Instant::now(), child.pid());
    loop {
        let look = tokio::time::sleep(timeout.next_look(begun.elapsed()));
        tokio::select! {
            exit = child.ended() => {
                return Ok(exit);
            }
            () = look => used.set(processor::used(pid)),
        }
        if timeout.may_be_over(begun.elapsed()) {
            let measured = blocking::run(move || (processor::used_by_session(pid), processor::queued(pid)));
            let (processor, queued) = measured.await.unwrap_or_default();
            let spent = Spent { elapsed: begun.elapsed(), processor, queued };
            if timeout.is_over(job, spent) {
                used.set(processor);
                return Err(spent);
            }
        }
    }
}

/// What to start, with the pipes for what it gives.
struct Plan {
    job: Job,
    options: Value,
    mark: String,
    output: OwnedFd,
    result: OwnedFd,
    /// Our ends.
    output_reader: Receiver,
    result_reader: Receiver,
}

impl Plan {
    fn new(job: Job, options: Value) -> io::Result<Self> {
        let (result_reader, result) = listener::pipe_with_async_reader()?;
        let (output_reader, output) = listener::pipe_with_async_reader()?;
        let mark = format!("parse-{}", hex::encode(random::bytes::<9>()));
        Ok(Self { job, options, mark, output, result, output_reader, result_reader })
    }

    fn child(self, pid: i32) -> Child {
        Child::new(pid, self.mark, self.result_reader, self.output_reader)
    }

    /// With a Python of its own.
    fn start(&self, interpreter: &Interpreter) -> io::Result<i32> {
        let mut environment = environment();
        environment.push((TASK_MARK.into(), self.mark.clone().into()));
        let spawn = Spawn {
            program: interpreter.program.clone(),
            called: None,
            arguments: interpreter.arguments(self.job, &self.options),
            environment,
            output: self.output.as_fd(),
            errors: None,
            // Not here: what hangs there must not hang us.
            folder: None,
            passed: vec![self.result.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: true,
        };
        spawn.start().map_err(io::Error::other)
    }
}

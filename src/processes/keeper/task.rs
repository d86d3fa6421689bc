//! A running task: writes its log, ends it at its time limit or on request, and says how it ended.

use super::children::Children;
use super::folder::TaskFolder;
use super::log::TaskLog;
use super::messages::Start;
use super::task_files::{Cause, Outcome};
use super::task_pipe::TaskPipe;
use jiff::Timestamp;
use leoflow_base::protocol::task_log::{Level, Stream};
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use leoflow_base::sys::transient::is_transient;
use leoflow_python::{TASK_MARK, environment};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::time::Duration;
use tokio::net::unix::pipe::Receiver;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, sleep_until};
use tracing::warn;

/// Time for a task to import its file and get its arguments; longer than it waits for a server that is down.
const IMPORT_LIMIT: Duration = Duration::from_secs(900);
/// Time between TERM and KILL for processes that a task left running.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// Time limit for other children that are exiting: each may have started another process.
const EXIT_LIMIT: Duration = Duration::from_millis(50);
/// Pauses between two rounds, each twice the one before; shorter than the life of a process in a chain that forks and
/// exits.
const FIRST_KILL_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_KILL_PAUSE: Duration = Duration::from_millis(8);
/// Pauses between attempts while a transient error lasts; each pause doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Time limit for leftovers to end after the first KILL; the kernel cannot end a process that waits for a dead mount.
const LEFTOVER_LIMIT: Duration = Duration::from_secs(10);
/// Number of KILLs after which a task that does not end is given up.
const KILLS: u32 = 2;
/// Time limit for draining the pipes of a task that has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// `oom_score_adj` of tasks, proc(5): when memory is short, the kernel kills a task rather than Postgres.
pub(crate) const OOM_SCORE: &str = "500";

/// Time that a task has to clean up after its execution_timeout, before its keeper ends it.
fn timeout_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TIMEOUT_GRACE", Duration::from_secs(5))
}

/// How often the keeper checks that the folder of a try still exists.
fn folder_check_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_FOLDER_ROUND", Duration::from_secs(10))
}

/// Time between TERM and KILL.
fn term_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TERM_GRACE", Duration::from_secs(5))
}

/// Retries `attempt` while its error is transient and the folder exists. `subject` names it in the log.
pub async fn retry_transient<T>(
    folder: &TaskFolder,
    subject: &str,
    attempt: impl Fn() -> io::Result<T>,
) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Err(error) if is_transient(&error) && folder.exists().unwrap_or(true) => {
                if pause == FIRST_PAUSE {
                    warn!("{subject}: {error}; retrying");
                }
                sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

/// The read ends of a task's pipes.
pub struct Pipes {
    output: Receiver,
    /// The standard error of the task's process and its children.
    errors: Receiver,
    messages: Receiver,
}

/// The write ends of a task's pipes: standard output, standard error, messages to the keeper.
pub struct PipeEnds([OwnedFd; 3]);

impl Pipes {
    pub fn new() -> io::Result<(Self, PipeEnds)> {
        let (output, output_end) = listener::pipe_with_async_reader()?;
        let (errors, errors_end) = listener::pipe_with_async_reader()?;
        let (messages, messages_end) = listener::pipe_with_async_reader()?;
        Ok((Self { output, errors, messages }, PipeEnds([output_end, errors_end, messages_end])))
    }
}

impl PipeEnds {
    pub fn as_fds(&self) -> [BorrowedFd<'_>; 3] {
        self.0.each_ref().map(AsFd::as_fd)
    }
}

pub struct RunningTask {
    folder: TaskFolder,
    log: TaskLog,
    pid: i32,
    /// True once the task's process was reaped.
    has_ended: bool,
    /// `None` at its end, like `errors`.
    output: Option<Receiver>,
    errors: Option<Receiver>,
    messages: TaskPipe,
    deadline: Option<Instant>,
    /// When the next KILL is due; `None` until the task was asked to end.
    kill_at: Option<Instant>,
    kills: u32,
    cause: Option<Cause>,
    /// The task's own time limit; without one there is no deadline either.
    limit: Duration,
    started: Instant,
}

impl RunningTask {
    /// Starts the task's program.
    pub fn start(folder: &TaskFolder, keeper: &ProcessId, start: &Start) -> io::Result<Self> {
        let (pipes, ends) = Pipes::new()?;
        let mut environment = environment();
        environment.push((TASK_MARK.into(), folder.mark().into()));
        let [output, errors, messages] = ends.as_fds();
        let spawn = Spawn {
            arguments: start.arguments.iter().cloned().map(Into::into).collect(),
            environment,
            errors: Some(errors),
            folder: Some(start.work_in.clone()),
            passed: vec![messages],
            parent_death: Some(Signal::Kill),
            ..Spawn::new(&start.program)
        };
        let pid = spawn.start(output).map_err(|error| {
            let mut log = TaskLog::unopened(&start.log);
            log.write_message(Level::Error, &format!("failed to start the task: {error}"));
            io::Error::other(error)
        })?;
        // Optional: the task runs without it. A fork of a warm Python sets it itself.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
        Ok(Self::new(folder, keeper, start, pid, pipes))
    }

    /// Never fails, because the process already runs.
    pub fn new(folder: &TaskFolder, keeper: &ProcessId, start: &Start, pid: i32, pipes: Pipes) -> Self {
        if let Some(process) = ProcessId::of(pid)
            && let Err(error) = folder.write_child(keeper, process)
        {
            warn!("cannot write the task's process: {error}");
        }
        process::lead_group(pid);
        let limit = start.time_limit.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_add(timeout_grace())));
        Self {
            folder: folder.clone(),
            log: TaskLog::unopened(&start.log),
            pid,
            has_ended: false,
            output: Some(pipes.output),
            errors: Some(pipes.errors),
            messages: TaskPipe::new(pipes.messages),
            deadline,
            kill_at: None,
            kills: 0,
            cause: None,
            limit: limit.unwrap_or(Duration::MAX),
            started: Instant::now(),
        }
    }

    pub fn pid(&self) -> i32 {
        self.pid
    }

    /// Watches the task until it has ended, then ends the processes that it left running and closes its log. A
    /// notification of `stop` ends the task.
    pub async fn keep(mut self, stop: &Notify, children: &Children) -> Outcome {
        self.log.open_or_later();
        let oom_kills_before = oom_kills();
        let exit = self.wait_for_end(stop, children).await;
        let ended_at = Timestamp::now();
        self.end_leftovers(children).await;
        // Read what is already in the pipes; do not wait for another process that still holds them.
        let until = Instant::now() + DRAIN;
        while (self.output.is_some() || self.errors.is_some()) && Instant::now() < until {
            self.read_next(until).await;
        }
        let is_killed = self.cause.is_none() && exit == Some(Exit::Signal(9));
        if is_killed && oom_kills_before.is_some() && oom_kills() > oom_kills_before {
            self.cause = Some(Cause::Memory);
        }
        let problem = exit.is_none().then(|| "the kernel cannot end the task's process".to_owned());
        self.log_end(exit);
        self.log.close();
        Outcome { exit, ended_at, cause: self.cause, problem, transient: false }
    }

    /// Returns the exit of the task's process; `None` if it does not end although it was killed.
    async fn wait_for_end(&mut self, stop: &Notify, children: &Children) -> Option<Exit> {
        let mut reaped = children.reaped();
        loop {
            reaped.mark_unchanged();
            if let Some(exit) = children.take_exit(self.pid) {
                self.has_ended = true;
                return Some(exit);
            }
            if self.kill_at.is_some_and(|due| due <= Instant::now()) {
                if self.kills == KILLS {
                    children.give_up(self.pid);
                    return None;
                }
                process::signal_group(self.pid, Signal::Kill);
                self.kills += 1;
                self.kill_at = Some(Instant::now() + term_grace());
            }
            let folder_check = Instant::now().checked_add(folder_check_interval());
            let due = [self.deadline, self.kill_at, folder_check].into_iter().flatten().min();
            let is_stoppable = self.kill_at.is_none();
            tokio::select! {
                _ = reaped.changed() => {}
                () = self.read_next(due.unwrap_or_else(|| Instant::now() + LONGEST_PAUSE)) => {}
                () = stop.notified(), if is_stoppable => {
                    self.log.write_message(Level::Warning, "stopping the task on request");
                    self.end(Cause::Stopped);
                }
            }
            self.check_limits();
        }
    }

    /// Ends the task if its folder is gone or its time is up.
    fn check_limits(&mut self) {
        if self.kill_at.is_some() {
            return;
        }
        // A failed check does not count: the disk may not answer for a moment.
        if !self.folder.exists().unwrap_or(true) {
            let text = "stopping the task: its folder is gone, so its outcome could not be recorded";
            self.log.write_message(Level::Error, text);
            return self.end(Cause::Stopped);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) {
            match self.time_left() {
                Duration::ZERO => {
                    let limit = self.limit.as_secs_f64();
                    let text = format!("stopping the task: it exceeded its execution_timeout of {limit} s");
                    self.log.write_message(Level::Error, &text);
                    self.end(Cause::Timeout);
                }
                left => self.deadline = now.checked_add(left),
            }
        }
    }

    /// Time left until the deadline. The time limit counts from the moment the task's own code began. A task that has not
    /// begun after `IMPORT_LIMIT` counts from the start of its process.
    fn time_left(&self) -> Duration {
        let since = match self.messages.began() {
            Some(began) => began.elapsed(),
            None if self.started.elapsed() < IMPORT_LIMIT => Duration::ZERO,
            None => self.started.elapsed(),
        };
        self.limit.saturating_add(timeout_grace()).saturating_sub(since)
    }

    /// Waits for output, at most until `due`, and reads a part of it.
    async fn read_next(&mut self, due: Instant) {
        tokio::select! {
            () = readable(self.output.as_ref()) => self.read(Stream::Output),
            () = readable(self.errors.as_ref()) => self.read(Stream::Errors),
            () = readable(self.messages.pipe()) => self.messages.read_into(&mut self.log),
            () = sleep_until(due) => {}
        }
    }

    fn end(&mut self, cause: Cause) {
        self.cause = Some(cause);
        self.deadline = None;
        process::signal_group(self.pid, Signal::Terminate);
        // A stopped process handles no signal but KILL until it continues.
        process::signal_group(self.pid, Signal::Continue);
        self.kill_at = Some(Instant::now() + term_grace());
    }

    /// Reads the available output and closes a pipe at its end. A task reports a secret before it can print it, so its
    /// messages, which are read after the output, contain every secret in that output.
    fn read(&mut self, stream: Stream) {
        let mut buffer = [0; 64 * 1024];
        let pipe = if stream == Stream::Errors { &mut self.errors } else { &mut self.output };
        let Some(pipe_reader) = pipe else { return };
        match pipe_reader.try_read(&mut buffer) {
            Ok(length @ 1..) => {
                self.messages.read_into(&mut self.log);
                match stream {
                    Stream::Errors => self.log.write_errors(&buffer[..length]),
                    _ => self.log.write_output(&buffer[..length]),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => *pipe = None,
        }
    }

    /// Ends processes that the task started and did not wait for.
    async fn end_leftovers(&mut self, children: &Children) {
        let mark = self.folder.mark();
        let (mut is_logged, begun, mut pause) = (false, Instant::now(), FIRST_KILL_PAUSE);
        loop {
            let leftovers = children.leftovers(self.pid, &mark);
            // Processes of other tries exit all the time.
            let is_patient = !leftovers.pids.is_empty() || !children.has_others();
            let limit = if is_patient { LEFTOVER_LIMIT } else { EXIT_LIMIT };
            if leftovers.is_settled || begun.elapsed() > limit {
                return;
            }
            let (pids, is_in_grace) = (leftovers.pids, begun.elapsed() < LEFTOVER_GRACE);
            if !is_logged && !pids.is_empty() {
                let text = format!("ending {} process(es) that the task left running", pids.len());
                self.log.write_message(Level::Warning, &text);
            }
            if !is_logged || !is_in_grace {
                let signal = if is_in_grace { Signal::Terminate } else { Signal::Kill };
                pids.iter().for_each(|pid| process::signal_process(*pid, signal));
            }
            is_logged |= !pids.is_empty();
            // Also reads what they print.
            self.read_next(Instant::now() + pause).await;
            pause = (pause * 2).min(LONGEST_KILL_PAUSE);
        }
    }

    fn log_end(&mut self, exit: Option<Exit>) {
        let (level, text) = match (exit, self.cause) {
            (_, Some(Cause::Timeout)) => {
                (Level::Error, "the task was ended because it exceeded its execution_timeout".to_owned())
            }
            (_, Some(Cause::Stopped)) => (Level::Error, "the task was stopped".to_owned()),
            (_, Some(Cause::Memory)) => {
                (Level::Critical, "the task was killed by the kernel: out of memory".to_owned())
            }
            // The task itself logged why.
            (None | Some(Exit::Code(0 | 1)), None) => return,
            (Some(exit), None) => (Level::Error, format!("the task's process ended: {exit}")),
        };
        self.log.write_message(level, &text);
    }
}

/// If watching the task has panicked.
impl Drop for RunningTask {
    fn drop(&mut self) {
        if !self.has_ended {
            process::signal_group(self.pid, Signal::Kill);
        }
    }
}

/// Completes when the pipe has data or is at its end; never without a pipe.
async fn readable(pipe: Option<&Receiver>) {
    match pipe {
        Some(pipe) if pipe.readable().await.is_ok() => {}
        _ => std::future::pending().await,
    }
}

/// The kernel's count of processes that it has killed because memory was short; `None` if it is unknown.
fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

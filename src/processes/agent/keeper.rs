//! The keeper: a small process of Leoflow for each try. It starts the task, writes the task's log, ends the task at its
//! timeout or on request, and records how the task ended. It has no async runtime and no connection to another process
//! of Leoflow, so that the task continues while the other processes are replaced or fail.

use super::folder::TaskFolder;
use super::log::TaskLog;
use super::secrets::SecretsPipe;
use super::task_files::{Cause, Outcome, Spec};
use jiff::Timestamp;
use leoflow_base::protocol::task_log::{Level, Stream};
use leoflow_base::sys::net::listener;
use leoflow_base::sys::process::descriptors::take_passed;
use leoflow_base::sys::process::pidfd::PidFd;
use leoflow_base::sys::process::reaper::{self, Exit};
use leoflow_base::sys::process::signals::{TerminateSignal, wait_readable};
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use leoflow_base::sys::transient::is_transient;
use leoflow_python::{TASK_MARK, environment};
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::warn;

/// Time for a task to import its file and get its arguments; longer than it waits for a server that is down.
const IMPORT_LIMIT: Duration = Duration::from_secs(900);
/// Time between TERM and KILL for processes that a task left running.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// Pause between two rounds; shorter than the life of a process in a chain that forks and exits.
const KILL_PAUSE: Duration = Duration::from_millis(1);
/// Pauses between attempts while a transient error lasts; each pause doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Poll interval for the task's end where pidfd_open(2) is missing or not permitted.
const END_POLL_INTERVAL: Duration = Duration::from_millis(20);
/// Time limit for draining the pipes of a task that has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// `oom_score_adj` of tasks, proc(5): when memory is short, the kernel kills a task rather than Postgres.
pub const OOM_SCORE: &str = "500";
/// Exit code of a keeper that was not needed, because another keeper has the try.
pub const NOT_NEEDED: u8 = 75;

/// Time that a task has to clean up after its execution_timeout, before its keeper ends it.
fn timeout_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TIMEOUT_GRACE", Duration::from_secs(5))
}

/// How often a keeper checks that its folder still exists.
fn folder_check_interval() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_FOLDER_ROUND", Duration::from_secs(10))
}

/// Time between TERM and KILL.
fn term_grace() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_TERM_GRACE", Duration::from_secs(5))
}

/// Keeps the try in `folder` until its end. Returns the exit code. `started_pid` is the task's pid if it already runs
/// as our child; its output and secrets come through the passed descriptors.
pub fn run(folder: &TaskFolder, started_pid: Option<i32>) -> io::Result<u8> {
    // Comes first: from here on, TERM is an event and does not end this process.
    let terminate = TerminateSignal::take()?;
    let own_id = ProcessId::current().ok_or_else(|| io::Error::other("this process is not in /proc"))?;
    let is_ours = match started_pid {
        None => folder.take(&own_id)?,
        // This process took the try before it executed this program; see `warm_try.py`.
        Some(_) => folder.keeper()?.as_ref() == Some(&own_id),
    };
    if !is_ours {
        return Ok(NOT_NEEDED);
    }
    if let Err(error) = process::become_subreaper() {
        warn!("processes that the task leaves running will not be ended with it: {error}");
    }
    let outcome = match begin(folder, started_pid) {
        Ok(keeper) => keeper.keep(&terminate),
        Err(error) => {
            // A task that already runs is ended with its descendants, and is not started again.
            started_pid.into_iter().for_each(kill_task_tree);
            let outcome = Outcome::not_started(&error);
            Outcome { transient: outcome.transient && started_pid.is_none(), ..outcome }
        }
    };
    retry_transient(folder, "the outcome", || folder.write_outcome(&outcome))?;
    Ok(0)
}

fn begin(folder: &TaskFolder, started_pid: Option<i32>) -> io::Result<TaskKeeper> {
    let spec = retry_transient(folder, "spec.json", || folder.spec())?;
    let spec = spec.ok_or_else(|| io::Error::other("spec.json is missing or damaged"))?;
    match started_pid {
        None => {
            folder.reserve_outcome()?;
            TaskKeeper::start(folder, &spec)
        }
        Some(pid) => {
            // Not fatal, because the task already runs: without a reserve, `run` retries the outcome while the disk is
            // full.
            if let Err(error) = folder.reserve_outcome() {
                warn!("cannot reserve disk space for the outcome: {error}");
            }
            TaskKeeper::adopt(folder, &spec, pid)
        }
    }
}

/// Retries `attempt` while its error is transient and the folder exists. `subject` names it in the log.
fn retry_transient<T>(folder: &TaskFolder, subject: &str, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Err(error) if is_transient(&error) && folder.exists().unwrap_or(true) => {
                if pause == FIRST_PAUSE {
                    warn!("{subject}: {error}; retrying");
                }
                std::thread::sleep(pause);
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
            other => return other,
        }
    }
}

struct TaskKeeper {
    log: TaskLog,
    pid: i32,
    /// Becomes readable when the task ends. `None` on kernels before 5.3 and where pidfd_open(2) is not permitted.
    ended: Option<PidFd>,
    output: Option<File>,
    /// The standard error of the task's process and its children.
    errors: Option<File>,
    secrets: SecretsPipe,
    deadline: Option<Instant>,
    /// When the next KILL is due; `None` until the task was asked to end.
    kill_at: Option<Instant>,
    cause: Option<Cause>,
    /// The kernel's OOM kills before the task started; `None` if unknown.
    oom_kills: Option<u64>,
    /// The task's own time limit; without one there is no deadline either.
    limit: Duration,
    began: PathBuf,
    started: Instant,
}

impl TaskKeeper {
    fn start(folder: &TaskFolder, spec: &Spec) -> io::Result<Self> {
        let keeper = &spec.keeper;
        let mut log = match TaskLog::open(&keeper.log) {
            Err(error) if is_transient(&error) => TaskLog::open_or_later(&keeper.log),
            other => other?,
        };
        let (output, output_writer) = nonblocking_pipe()?;
        let (errors, errors_writer) = nonblocking_pipe()?;
        let (secrets, secrets_writer) = nonblocking_pipe()?;
        let mut environment = environment();
        environment.push((TASK_MARK.into(), folder.mark().into()));
        let spawn = Spawn {
            arguments: keeper.arguments.iter().cloned().map(Into::into).collect(),
            environment,
            errors: Some(errors_writer.as_fd()),
            folder: Some(keeper.folder.clone()),
            passed: vec![secrets_writer.as_fd()],
            parent_death: Some(Signal::Kill),
            ..Spawn::new(&keeper.program)
        };
        let pid = spawn.start(output_writer.as_fd()).map_err(|error| {
            log.write_message(Level::Error, &format!("failed to start the task: {error}"));
            io::Error::other(error)
        })?;
        Ok(Self::new(folder, spec, (log, pid), [output, errors, secrets]))
    }

    fn adopt(folder: &TaskFolder, spec: &Spec, pid: i32) -> io::Result<Self> {
        let passed = take_passed(3, "output:errors:secrets")?.into_iter().map(|(_, descriptor)| descriptor);
        let pipes: Result<[OwnedFd; 3], _> = passed.collect::<Vec<_>>().try_into();
        let pipes = pipes.map_err(|_| io::Error::other("the task's pipes were not passed"))?;
        for reader in &pipes {
            listener::set_nonblocking(reader)?;
        }
        let log = TaskLog::open_or_later(&spec.keeper.log);
        Ok(Self::new(folder, spec, (log, pid), pipes.map(File::from)))
    }

    /// Never fails, because the task already runs.
    fn new(folder: &TaskFolder, spec: &Spec, (log, pid): (TaskLog, i32), pipes: [File; 3]) -> Self {
        let [output, errors, secrets] = pipes;
        if let Some(process) = ProcessId::of(pid)
            && let Err(error) = folder.write_child(&process)
        {
            warn!("child.json: {error}");
        }
        // Optional: the task runs without it.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
        let limit = spec.keeper.time_limit.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_add(timeout_grace())));
        Self {
            log,
            pid,
            ended: PidFd::of_pid(pid).ok(),
            output: Some(output),
            errors: Some(errors),
            secrets: SecretsPipe::new(secrets),
            deadline,
            kill_at: None,
            cause: None,
            oom_kills: oom_kills(),
            limit: limit.unwrap_or(Duration::MAX),
            began: folder.began(),
            started: Instant::now(),
        }
    }

    /// Supervises the task until it has ended, then ends the processes that it left running and closes its log.
    fn keep(mut self, terminate: &TerminateSignal) -> Outcome {
        let exit = loop {
            if let Err(error) = self.wait(terminate) {
                // poll(2) has failed, for example for lack of memory: the task continues meanwhile.
                warn!("waiting for the task: {error}");
                std::thread::sleep(END_POLL_INTERVAL);
            }
            if let Some(exit) = reaper::ended_child(self.pid) {
                break exit;
            }
        };
        let ended_at = Timestamp::now();
        self.end_leftovers();
        // Read what is already in the pipes; do not wait for another process that still holds them.
        let until = Instant::now() + DRAIN;
        while (self.output.is_some() || self.errors.is_some()) && Instant::now() < until {
            self.drain(until.saturating_duration_since(Instant::now()));
        }
        if self.cause.is_none() && exit == Exit::Signal(9) && self.oom_kills.is_some() && oom_kills() > self.oom_kills {
            self.cause = Some(Cause::Memory);
        }
        self.log_end(exit);
        self.log.close();
        Outcome { exit: Some(exit), ended_at, cause: self.cause, problem: None, transient: false }
    }

    fn wait(&mut self, terminate: &TerminateSignal) -> io::Result<()> {
        let folder_check = Instant::now().checked_add(folder_check_interval());
        let end_check = self.ended.is_none().then(|| Instant::now() + END_POLL_INTERVAL);
        let next = [self.deadline, self.kill_at, folder_check, end_check].into_iter().flatten().min();
        let limit = next.map(|due| due.saturating_duration_since(Instant::now()));
        let [output, errors] = self.pipes();
        let ended = self.ended.as_ref().map(AsFd::as_fd);
        let descriptors = [output, errors, self.secrets.descriptor(), ended, Some(terminate.as_fd())];
        let [output, errors, secrets, ..] = wait_readable(descriptors, limit)?;
        self.read_from([output, errors]);
        if secrets {
            self.secrets.read_into(&mut self.log);
        }
        if terminate.has_arrived() && self.kill_at.is_none() {
            self.log.write_message(Level::Warning, "stopping the task on request");
            self.end(Cause::Stopped);
        }
        if self.kill_at.is_none() && !self.has_folder() {
            self.log.write_message(
                Level::Error,
                "stopping the task: its folder is gone, so its outcome could not be recorded",
            );
            self.end(Cause::Stopped);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) && self.kill_at.is_none() {
            match self.time_left() {
                Duration::ZERO => {
                    let limit = self.limit.as_secs_f64();
                    self.log.write_message(
                        Level::Error,
                        &format!("stopping the task: it exceeded its execution_timeout of {limit} s"),
                    );
                    self.end(Cause::Timeout);
                }
                left => self.deadline = now.checked_add(left),
            }
        }
        if self.kill_at.is_some_and(|due| due <= now) {
            process::signal_group(self.pid, Signal::Kill);
            self.kill_at = Some(now + term_grace());
        }
        Ok(())
    }

    /// False once the folder was removed, for example with the home.
    fn has_folder(&self) -> bool {
        // A failed check does not count: the disk may not answer for a moment.
        self.began.parent().is_some_and(|folder| folder.try_exists().unwrap_or(true))
    }

    /// Time left until the deadline. The time limit counts from the moment the task's own code began, which is the time
    /// of the file `began`. A task that has not begun after `IMPORT_LIMIT` counts from the start of its process.
    fn time_left(&self) -> Duration {
        let since = match std::fs::metadata(&self.began).and_then(|meta| meta.modified()) {
            Ok(began) => began.elapsed().unwrap_or_default(),
            Err(_) if self.started.elapsed() < IMPORT_LIMIT => Duration::ZERO,
            Err(_) => self.started.elapsed(),
        };
        self.limit.saturating_add(timeout_grace()).saturating_sub(since)
    }

    /// Reads the available output, and waits at most `limit` for it.
    fn drain(&mut self, limit: Duration) {
        if let Ok(ready) = wait_readable(self.pipes(), Some(limit)) {
            self.read_from(ready);
        }
    }

    fn pipes(&self) -> [Option<BorrowedFd<'_>>; 2] {
        [&self.output, &self.errors].map(|pipe| pipe.as_ref().map(AsFd::as_fd))
    }

    fn read_from(&mut self, [output, errors]: [bool; 2]) {
        if output {
            self.read(Stream::Output);
        }
        if errors {
            self.read(Stream::Errors);
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

    /// Reads the available output and closes a pipe at its end. A task reports a secret before it can print it, so the
    /// secrets pipe, which is read after the output, contains every secret in that output.
    fn read(&mut self, stream: Stream) {
        let mut buffer = [0; 64 * 1024];
        let pipe = if stream == Stream::Errors { &mut self.errors } else { &mut self.output };
        let Some(file) = pipe else { return };
        match file.read(&mut buffer) {
            Ok(length @ 1..) => {
                self.secrets.read_into(&mut self.log);
                match stream {
                    Stream::Errors => self.log.write_errors(&buffer[..length]),
                    _ => self.log.write_output(&buffer[..length]),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => *pipe = None,
        }
    }

    /// Ends processes that the task started and did not wait for: orphans are reparented to this process, their nearest
    /// living subreaper.
    fn end_leftovers(&mut self) {
        let mut is_logged = false;
        let until = Instant::now() + LEFTOVER_GRACE;
        loop {
            reaper::ended_children();
            if !reaper::has_children() {
                return;
            }
            // Empty if all are zombies, which the next round reaps.
            let (leftovers, is_in_grace) = (process::children(), Instant::now() < until);
            if !is_logged && !leftovers.is_empty() {
                let text = format!("ending {} process(es) that the task left running", leftovers.len());
                self.log.write_message(Level::Warning, &text);
            }
            if !is_logged || !is_in_grace {
                let signal = if is_in_grace { Signal::Terminate } else { Signal::Kill };
                leftovers.iter().for_each(|pid| process::signal_process(*pid, signal));
            }
            is_logged |= !leftovers.is_empty();
            self.drain(Duration::ZERO);
            std::thread::sleep(KILL_PAUSE);
        }
    }

    fn log_end(&mut self, exit: Exit) {
        let (level, text) = match (exit, self.cause) {
            (_, Some(Cause::Timeout)) => {
                (Level::Error, "the task was ended because it exceeded its execution_timeout".to_owned())
            }
            (_, Some(Cause::Stopped)) => (Level::Error, "the task was stopped".to_owned()),
            (_, Some(Cause::Memory)) => {
                (Level::Critical, "the task was killed by the kernel: out of memory".to_owned())
            }
            // The task itself logged why.
            (Exit::Code(0 | 1), None) => return,
            (exit, None) => (Level::Error, format!("the task's process ended: {exit}")),
        };
        self.log.write_message(level, &text);
    }
}

/// Ends a task that cannot be kept, and all its descendants.
fn kill_task_tree(pid: i32) {
    process::signal_group(pid, Signal::Kill);
    let until = Instant::now() + LEFTOVER_GRACE;
    while reaper::has_children() && Instant::now() < until {
        process::children().into_iter().for_each(|child| process::signal_process(child, Signal::Kill));
        std::thread::sleep(KILL_PAUSE);
        reaper::ended_children();
    }
}

fn nonblocking_pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = listener::pipe()?;
    listener::set_nonblocking(&reader)?;
    Ok((File::from(reader), writer))
}

fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

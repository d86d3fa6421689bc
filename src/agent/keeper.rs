//! The process that keeps one try: it starts the task, writes its log, ends it when its time is
//! over or it is told to, and writes down how it ended. It has no runtime and no connection, so that
//! nothing of ours that is replaced or fails disturbs a task.

use super::folder::{Cause, Outcome, Spec, TaskFolder};
use super::limits::{folder_round, term_grace, timeout_grace};
use super::log::TaskLog;
use super::secrets::SecretsPipe;
use crate::protocol::task_log::{Level, Stream};
use crate::python::{TASK_MARK, environment};
use crate::sys::listener;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, ProcessId, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::signals::{TerminateSignal, wait_readable};
use crate::sys::spawn::{Spawn, take_passed};
use crate::sys::transient::is_transient;
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tracing::warn;

/// The longest that a task with a time limit may import and wait for its arguments: as long as it waits
/// for a server that is away, and then some.
const IMPORT_LIMIT: Duration = Duration::from_secs(900);
/// How long what a task left running has to leave.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
/// Between attempts while an error of the system lasts.
const FIRST_PAUSE: Duration = Duration::from_millis(20);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// How often it looks for the task's end where the kernel has no pidfd_open(2), or does not allow it.
const END_ROUND: Duration = Duration::from_millis(20);
/// For the pipe of a task that has ended.
const DRAIN: Duration = Duration::from_millis(200);
/// Above this the kernel prefers a task to Postgres when memory is short, proc(5).
pub const OOM_SCORE: &str = "500";
/// The exit code of a keeper that was not needed: another has the try.
pub const NOT_NEEDED: u8 = 75;

/// Keeps the try in `folder` until its end. Returns the exit code. `started` is the task's pid where it runs already:
/// our child, whose output and secrets come through the descriptors that were passed.
pub fn run(folder: &TaskFolder, started: Option<i32>) -> io::Result<u8> {
    // Before anything else: from now on TERM is an event and not an end.
    let terminate = TerminateSignal::take()?;
    let own = ProcessId::current().ok_or_else(|| io::Error::other("this process is not in /proc"))?;
    let is_ours = match started {
        None => folder.take(&own)?,
        // It was taken before the task was started, by what has become this program.
        Some(_) => folder.keeper()?.as_ref() == Some(&own),
    };
    if !is_ours {
        return Ok(NOT_NEEDED);
    }
    if let Err(error) = process::become_subreaper() {
        warn!("processes that the task leaves running are not ended with it: {error}");
    }
    let outcome = match begin(folder, started) {
        Ok(keeper) => keeper.keep(&terminate),
        Err(error) => {
            // One that runs already is ended with what it has started.
            started.into_iter().for_each(end_unkept);
            Outcome::not_started(&error, started.is_none() && is_transient(&error))
        }
    };
    until_it_passes(folder, "the outcome", || folder.write_outcome(&outcome))?;
    Ok(0)
}

fn begin(folder: &TaskFolder, started: Option<i32>) -> io::Result<TaskKeeper> {
    let spec = until_it_passes(folder, "spec.json", || folder.spec())?;
    let spec = spec.ok_or_else(|| io::Error::other("spec.json is missing or damaged"))?;
    match started {
        None => {
            folder.reserve_outcome()?;
            TaskKeeper::start(folder, &spec)
        }
        Some(pid) => {
            // The task runs by now: without a reserve the outcome waits for room.
            if let Err(error) = folder.reserve_outcome() {
                warn!("no room is reserved for the outcome: {error}");
            }
            TaskKeeper::adopt(folder, &spec, pid)
        }
    }
}

/// Does it again for as long as the system's error is one that passes and the folder is there.
fn until_it_passes<T>(folder: &TaskFolder, what: &str, attempt: impl Fn() -> io::Result<T>) -> io::Result<T> {
    let mut pause = FIRST_PAUSE;
    loop {
        match attempt() {
            Err(error) if is_transient(&error) && folder.exists().unwrap_or(true) => {
                if pause == FIRST_PAUSE {
                    warn!("{what}: {error}; trying again until it passes");
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
    /// `None` on kernels before 5.3 and where it is not allowed.
    ended: Option<PidFd>,
    /// What the task prints and logs: one pipe, so that it stays in the order in which it was written.
    output: Option<File>,
    /// What programs and libraries in the task write to their standard error.
    errors: Option<File>,
    secrets: SecretsPipe,
    deadline: Option<Instant>,
    /// When the next, harder way to end it is due.
    kill_at: Option<Instant>,
    cause: Option<Cause>,
    oom_kills: Option<u64>,
    /// The task's own; without one there is no deadline either.
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
            program: keeper.program.clone(),
            called: None,
            arguments: keeper.arguments.iter().cloned().map(Into::into).collect(),
            environment,
            output: output_writer.as_fd(),
            errors: Some(errors_writer.as_fd()),
            folder: Some(keeper.folder.clone()),
            passed: vec![secrets_writer.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: false,
        };
        let pid = spawn.start().map_err(|error| {
            log.say(Level::Error, &format!("the task could not be started: {error}"));
            io::Error::other(error)
        })?;
        Ok(Self::new(folder, spec, (log, pid), [output, errors, secrets]))
    }

    /// Of a task that the warm Python has started.
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

    /// The task runs by now: nothing that is missing here ends it.
    fn new(folder: &TaskFolder, spec: &Spec, (log, pid): (TaskLog, i32), pipes: [File; 3]) -> Self {
        let [output, errors, secrets] = pipes;
        if let Some(process) = ProcessId::of(pid)
            && let Err(error) = folder.write_child(&process)
        {
            warn!("child.json: {error}");
        }
        // Without it the task runs all the same.
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

    fn keep(mut self, terminate: &TerminateSignal) -> Outcome {
        let exit = loop {
            if let Err(error) = self.wait(terminate) {
                // poll(2) has no memory: the task goes on meanwhile.
                warn!("waiting for the task: {error}");
                std::thread::sleep(END_ROUND);
            }
            if let Some(exit) = reaper::ended_child(self.pid) {
                break exit;
            }
        };
        let ended_at = Timestamp::now();
        self.end_leftovers();
        // What is in the pipe is there; whoever has its other end now, we do not wait for.
        let until = Instant::now() + DRAIN;
        while (self.output.is_some() || self.errors.is_some()) && Instant::now() < until {
            self.drain(until.saturating_duration_since(Instant::now()));
        }
        if self.cause.is_none() && exit == Exit::Signal(9) && self.oom_kills.is_some() && oom_kills() > self.oom_kills {
            self.cause = Some(Cause::Memory);
        }
        self.say_how_it_ended(exit);
        self.log.close();
        Outcome { exit: Some(exit), ended_at, cause: self.cause, problem: None, transient: false }
    }

    /// Waits for output, the end, a signal or the time, and does what each asks for.
    fn wait(&mut self, terminate: &TerminateSignal) -> io::Result<()> {
        let look = Instant::now().checked_add(folder_round());
        let unannounced = self.ended.is_none().then(|| Instant::now() + END_ROUND);
        let next = [self.deadline, self.kill_at, look, unannounced].into_iter().flatten().min();
        let limit = next.map(|at| at.saturating_duration_since(Instant::now()));
        let [output, errors] = self.pipes();
        let ended = self.ended.as_ref().map(AsFd::as_fd);
        let ends = [output, errors, self.secrets.end(), ended, Some(terminate.as_fd())];
        let [output, errors, secrets, ..] = wait_readable(ends, limit)?;
        self.read_from([output, errors]);
        if secrets {
            self.secrets.read_into(&mut self.log);
        }
        if terminate.came() && self.kill_at.is_none() {
            self.log.say(Level::Warning, "told to end");
            self.end(Cause::Stopped);
        }
        if self.kill_at.is_none() && !self.has_folder() {
            self.log.say(Level::Error, "its folder is gone: nobody would know how it ends");
            self.end(Cause::Stopped);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) && self.kill_at.is_none() {
            match self.time_left() {
                Duration::ZERO => {
                    let limit = self.limit.as_secs_f64();
                    self.log.say(Level::Error, &format!("its execution_timeout of {limit} s is over"));
                    self.end(Cause::Timeout);
                }
                left => self.deadline = now.checked_add(left),
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            process::signal_group(self.pid, Signal::Kill);
            self.kill_at = Some(now + term_grace());
        }
        Ok(())
    }

    /// It goes with the home, when somebody removes that.
    fn has_folder(&self) -> bool {
        // A disk that does not answer for a moment is no end.
        self.began.parent().is_some_and(|folder| folder.try_exists().unwrap_or(true))
    }

    /// Time runs from the moment that the task's own code began, which the task says by a file.
    fn time_left(&self) -> Duration {
        let since = match std::fs::metadata(&self.began).and_then(|meta| meta.modified()) {
            Ok(began) => began.elapsed().unwrap_or_default(),
            Err(_) if self.started.elapsed() < IMPORT_LIMIT => Duration::ZERO,
            Err(_) => self.started.elapsed(),
        };
        self.limit.saturating_add(timeout_grace()).saturating_sub(since)
    }

    /// Reads what is in the pipes, and waits for more at most so long.
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
        // A stopped process hears nothing but KILL until it goes on.
        process::signal_group(self.pid, Signal::Continue);
        self.kill_at = Some(Instant::now() + term_grace());
    }

    /// Takes what is there; a pipe that is at its end is let go. A secret is told before it can be printed: what
    /// has been told by now covers all that was read.
    fn read(&mut self, stream: Stream) {
        let mut buffer = [0; 64 * 1024];
        let pipe = if stream == Stream::Errors { &mut self.errors } else { &mut self.output };
        let Some(file) = pipe else { return };
        match file.read(&mut buffer) {
            Ok(length @ 1..) => {
                self.secrets.read_into(&mut self.log);
                match stream {
                    Stream::Errors => self.log.take_errors(&buffer[..length]),
                    _ => self.log.take(&buffer[..length]),
                }
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Ok(0) | Err(_) => *pipe = None,
        }
    }

    /// What the task started and did not wait for is ended with it: it is ours by now, because we
    /// are its nearest living ancestor that takes orphans.
    fn end_leftovers(&mut self) {
        let mut told = false;
        let until = Instant::now() + LEFTOVER_GRACE;
        loop {
            reaper::ended_children();
            if !reaper::has_children() {
                return;
            }
            let left = process::children();
            let patient = Instant::now() < until;
            if !told {
                let text = format!("ending {} process(es) that the task left running", left.len());
                self.log.say(Level::Warning, &text);
            }
            if !told || !patient {
                let signal = if patient { Signal::Terminate } else { Signal::Kill };
                left.iter().for_each(|pid| process::signal_process(*pid, signal));
            }
            told = true;
            self.drain(Duration::ZERO);
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn say_how_it_ended(&mut self, exit: Exit) {
        let (level, text) = match (exit, self.cause) {
            (_, Some(Cause::Timeout)) => (Level::Error, "ended because its execution_timeout was over".to_owned()),
            (_, Some(Cause::Stopped)) => (Level::Error, "ended because it was told to".to_owned()),
            (_, Some(Cause::Memory)) => (Level::Critical, "ended by the kernel: out of memory".to_owned()),
            // It has said itself why.
            (Exit::Code(0 | 1), None) => return,
            (exit, None) => (Level::Error, format!("its process ended: {exit}")),
        };
        self.log.say(level, &text);
    }
}

/// Ends a task that cannot be kept, and whatever it has started.
fn end_unkept(pid: i32) {
    process::signal_group(pid, Signal::Kill);
    let until = Instant::now() + LEFTOVER_GRACE;
    while reaper::has_children() && Instant::now() < until {
        process::children().into_iter().for_each(|child| process::signal_process(child, Signal::Kill));
        std::thread::sleep(Duration::from_millis(5));
        reaper::ended_children();
    }
}

fn nonblocking_pipe() -> io::Result<(File, OwnedFd)> {
    let (reader, writer) = listener::pipe()?;
    listener::set_nonblocking(&reader)?;
    Ok((File::from(reader), writer))
}

/// How often the kernel has killed for memory since the machine started.
fn oom_kills() -> Option<u64> {
    let text = std::fs::read_to_string("/proc/vmstat").ok()?;
    text.lines().find_map(|line| line.strip_prefix("oom_kill "))?.trim().parse().ok()
}

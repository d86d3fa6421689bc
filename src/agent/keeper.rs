//! The process that keeps one try: it starts the task, writes its log, ends it when its time is
//! over or it is told to, and writes down how it ended. It has no runtime and no connection, so that
//! nothing of ours that is replaced or fails disturbs a task.

use super::folder::{Cause, Outcome, Spec, TaskFolder};
use super::log::TaskLog;
use super::secrets::SecretsPipe;
use crate::python::{TASK_MARK, environment};
use crate::sys::listener;
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, ProcessId, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::signals::{TerminateSignal, wait_readable};
use crate::sys::spawn::{Spawn, take_passed};
use jiff::Timestamp;
use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// After the task's own deadline, for what it has to clean up.
const TIMEOUT_GRACE: Duration = Duration::from_secs(5);
/// The longest that a task with a time limit may import and wait for its arguments: as long as it waits
/// for a server that is away, and then some.
const IMPORT_LIMIT: Duration = Duration::from_secs(900);
/// How often it looks whether its folder is still there.
const FOLDER_ROUND: Duration = Duration::from_secs(10);
/// Between TERM and KILL.
const TERM_GRACE: Duration = Duration::from_secs(5);
/// How long what a task left running has to leave.
const LEFTOVER_GRACE: Duration = Duration::from_secs(1);
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
    process::become_subreaper()?;
    let spec = folder.spec()?.ok_or_else(|| io::Error::other("spec.json is missing or damaged"))?;
    let keeper = match started {
        None => TaskKeeper::start(folder, &spec),
        Some(pid) => TaskKeeper::adopt(folder, &spec, pid),
    };
    let outcome = match keeper {
        Ok(keeper) => keeper.keep(&terminate)?,
        Err(error) => {
            // One that runs already is ended with what it has started.
            started.into_iter().for_each(end_unkept);
            let problem = Some(format!("the task could not be started: {error}"));
            Outcome { exit: None, ended_at: Timestamp::now(), cause: None, problem }
        }
    };
    folder.write_outcome(&outcome)?;
    Ok(0)
}

struct TaskKeeper {
    log: TaskLog,
    pid: i32,
    ended: PidFd,
    /// What the task prints and logs: one pipe, so that it stays in the order in which it was written.
    output: Option<File>,
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
        let mut log = TaskLog::open(&keeper.log)?;
        let (output, output_writer) = nonblocking_pipe()?;
        let (secrets, secrets_writer) = nonblocking_pipe()?;
        let mut environment = environment();
        environment.push((TASK_MARK.into(), folder.mark().into()));
        let spawn = Spawn {
            program: keeper.program.clone(),
            called: None,
            arguments: keeper.arguments.iter().cloned().map(Into::into).collect(),
            environment,
            output: output_writer.as_fd(),
            errors: None,
            folder: Some(keeper.folder.clone()),
            passed: vec![secrets_writer.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
            own_session: false,
        };
        let pid = spawn.start().map_err(|error| {
            log.say(&format!("the task could not be started: {error}"));
            io::Error::other(error)
        })?;
        Self::new(folder, spec, (log, pid), (output, secrets))
    }

    /// Of a task that the warm Python has started.
    fn adopt(folder: &TaskFolder, spec: &Spec, pid: i32) -> io::Result<Self> {
        let mut passed = take_passed(2, "output:secrets")?.into_iter().map(|(_, descriptor)| descriptor);
        let (Some(output), Some(secrets)) = (passed.next(), passed.next()) else {
            return Err(io::Error::other("the task's pipes were not passed"));
        };
        for reader in [&output, &secrets] {
            listener::set_nonblocking(reader)?;
        }
        Self::new(folder, spec, (TaskLog::open(&spec.keeper.log)?, pid), (output.into(), secrets.into()))
    }

    fn new(
        folder: &TaskFolder,
        spec: &Spec,
        (log, pid): (TaskLog, i32),
        (output, secrets): (File, File),
    ) -> io::Result<Self> {
        if let Some(process) = ProcessId::of(pid) {
            folder.write_child(&process)?;
        }
        // Without it the task runs all the same.
        let _ = std::fs::write(format!("/proc/{pid}/oom_score_adj"), OOM_SCORE);
        let limit = spec.keeper.time_limit.and_then(|seconds| Duration::try_from_secs_f64(seconds.max(0.0)).ok());
        let deadline = limit.and_then(|limit| Instant::now().checked_add(limit.saturating_add(TIMEOUT_GRACE)));
        Ok(Self {
            log,
            pid,
            ended: PidFd::of_pid(pid)?,
            output: Some(output),
            secrets: SecretsPipe::new(secrets),
            deadline,
            kill_at: None,
            cause: None,
            oom_kills: oom_kills(),
            limit: limit.unwrap_or(Duration::MAX),
            began: folder.began(),
            started: Instant::now(),
        })
    }

    fn keep(mut self, terminate: &TerminateSignal) -> io::Result<Outcome> {
        let exit = loop {
            self.wait(terminate)?;
            if let Some(exit) = reaper::ended_child(self.pid) {
                break exit;
            }
        };
        let ended_at = Timestamp::now();
        self.end_leftovers()?;
        // What is in the pipe is there; whoever has its other end now, we do not wait for.
        let until = Instant::now() + DRAIN;
        while self.output.is_some() && Instant::now() < until {
            self.drain(until.saturating_duration_since(Instant::now()))?;
        }
        if self.cause.is_none() && exit == Exit::Signal(9) && self.oom_kills.is_some() && oom_kills() > self.oom_kills {
            self.cause = Some(Cause::Memory);
        }
        self.say_how_it_ended(exit);
        self.log.close();
        Ok(Outcome { exit: Some(exit), ended_at, cause: self.cause, problem: None })
    }

    /// Waits for output, the end, a signal or the time, and does what each asks for.
    fn wait(&mut self, terminate: &TerminateSignal) -> io::Result<()> {
        let look = Instant::now().checked_add(FOLDER_ROUND);
        let next = [self.deadline, self.kill_at, look].into_iter().flatten().min();
        let limit = next.map(|at| at.saturating_duration_since(Instant::now()));
        let ends = [self.output_end(), self.secrets.end(), Some(self.ended.as_fd()), Some(terminate.as_fd())];
        let [output, secrets, ..] = wait_readable(ends, limit)?;
        if output {
            self.read();
        } else if secrets {
            self.secrets.read_into(&mut self.log);
        }
        if terminate.came() && self.kill_at.is_none() {
            self.log.say("told to end");
            self.end(Cause::Stopped);
        }
        if self.kill_at.is_none() && !self.has_folder() {
            self.log.say("its folder is gone: nobody would know how it ends");
            self.end(Cause::Stopped);
        }
        let now = Instant::now();
        if self.deadline.is_some_and(|deadline| deadline <= now) && self.kill_at.is_none() {
            match self.time_left() {
                Duration::ZERO => {
                    self.log.say(&format!("its execution_timeout of {} s is over", self.limit.as_secs_f64()));
                    self.end(Cause::Timeout);
                }
                left => self.deadline = now.checked_add(left),
            }
        }
        if self.kill_at.is_some_and(|at| at <= now) {
            process::signal_group(self.pid, Signal::Kill);
            self.kill_at = Some(now + TERM_GRACE);
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
        self.limit.saturating_add(TIMEOUT_GRACE).saturating_sub(since)
    }

    /// Reads what is in the pipe, and waits for more at most so long.
    fn drain(&mut self, limit: Duration) -> io::Result<()> {
        let [ready] = wait_readable([self.output_end()], Some(limit))?;
        if ready {
            self.read();
        }
        Ok(())
    }

    fn output_end(&self) -> Option<BorrowedFd<'_>> {
        self.output.as_ref().map(AsFd::as_fd)
    }

    fn end(&mut self, cause: Cause) {
        self.cause = Some(cause);
        self.deadline = None;
        process::signal_group(self.pid, Signal::Terminate);
        // A stopped process hears nothing but KILL until it goes on.
        process::signal_group(self.pid, Signal::Continue);
        self.kill_at = Some(Instant::now() + TERM_GRACE);
    }

    /// Takes what is there; a pipe that is at its end is let go. A secret is told before it can be printed: what
    /// has been told by now covers all that was read.
    fn read(&mut self) {
        let mut buffer = [0; 64 * 1024];
        let Some(pipe) = &mut self.output else { return };
        match pipe.read(&mut buffer) {
            Ok(0) => self.output = None,
            Ok(length) => {
                self.secrets.read_into(&mut self.log);
                self.log.take(&buffer[..length]);
            }
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(_) => self.output = None,
        }
    }

    /// What the task started and did not wait for is ended with it: it is ours by now, because we
    /// are its nearest living ancestor that takes orphans.
    fn end_leftovers(&mut self) -> io::Result<()> {
        let mut told = false;
        let until = Instant::now() + LEFTOVER_GRACE;
        loop {
            reaper::ended_children();
            if !reaper::has_children() {
                return Ok(());
            }
            let left = process::children();
            let patient = Instant::now() < until;
            if !told {
                self.log.say(&format!("ending {} process(es) that the task left running", left.len()));
            }
            if !told || !patient {
                let signal = if patient { Signal::Terminate } else { Signal::Kill };
                left.iter().for_each(|pid| process::signal_process(*pid, signal));
            }
            told = true;
            self.drain(Duration::ZERO)?;
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn say_how_it_ended(&mut self, exit: Exit) {
        let text = match (exit, self.cause) {
            (_, Some(Cause::Timeout)) => "ended because its execution_timeout was over".to_owned(),
            (_, Some(Cause::Stopped)) => "ended because it was told to".to_owned(),
            (_, Some(Cause::Memory)) => "ended by the kernel: out of memory".to_owned(),
            (Exit::Code(0 | 1), None) => return,
            (exit, None) => format!("its process ended: {exit}"),
        };
        self.log.say(&text);
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

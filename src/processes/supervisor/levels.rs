//! Levels, which an upgrade requests. At a level, the first children in start order are up and the others are stopped.
//! Level `Trial` runs a candidate server, which accepts on the listeners once it reads a byte from a pipe.

use super::policy::{Event, Overall};
use super::run::Supervisor;
use super::takeover::resources::Trial;
use leoflow_base::home::journal;
use leoflow_base::protocol::control::{Answer, Level};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::process::{self, ProcessId, Signal};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// Maximum pause before an interrupted change of release is resumed; each pause is twice the previous one.
const LONGEST_RESUME_PAUSE: Duration = Duration::from_secs(300);

/// Number of children, in the order of `Instance::specs`, that are up at a level; `total` is the number of all.
fn child_count(level: Level, total: usize) -> usize {
    match level {
        Level::Nothing => 0,
        Level::Datastore => 1,
        Level::Trial => 3,
        Level::Whole => total,
    }
}

/// Why a level cannot be prepared.
#[derive(Debug, thiserror::Error)]
enum LevelError {
    #[error("the instance is starting or stopping")]
    NotUp,
    #[error("run/trial.sock: {0}")]
    Trial(#[from] io::Error),
}

/// A worker (the process that runs an upgrade) that is stopped (SIGSTOP) for this long is killed, because requests wait
/// for it.
const FROZEN_LIMIT: Duration = Duration::from_secs(15);

impl Supervisor {
    /// Changes to `level` and answers once the level is reached or has failed. `program` replaces the program of our
    /// processes; `limit` is the time limit of a candidate server to become ready; `peer` is the pid of the client.
    pub(super) fn set_level(
        &mut self,
        level: Level,
        program: Option<PathBuf>,
        limit: Option<Duration>,
        peer: i32,
        answer: oneshot::Sender<Answer>,
    ) {
        self.own_log.info(format_args!("pid {peer} requested level {level:?}, program {program:?}"));
        if let Err(error) = self.prepare_level(level, program) {
            // The client may have disconnected.
            let _ = answer.send(Answer::Error(error.to_string()));
            return;
        }
        let level_count = child_count(level, self.children.len());
        self.feed(Event::Level(level_count));
        if let Some(limit) = limit.filter(|_| level == Level::Trial) {
            self.feed(Event::OnTrial { index: level_count - 1, limit });
        }
        match self.model.overall() {
            // The level is already reached, so no later change of state would answer the waiter.
            Overall::Healthy | Overall::Held => drop(answer.send(Answer::Accepted)),
            _ => self.waiters.push(answer),
        }
    }

    fn prepare_level(&mut self, level: Level, program: Option<PathBuf>) -> Result<(), LevelError> {
        if !self.model.was_healthy() || matches!(self.model.overall(), Overall::Stopping | Overall::Stopped) {
            return Err(LevelError::NotUp);
        }
        if let Some(program) = program {
            let is_own = program == Path::new(env_vars::OWN_PROGRAM);
            *self.change.program.borrow_mut() = if is_own { env_vars::running_program().to_owned() } else { program };
        }
        match level {
            Level::Trial if self.change.trial.is_none() => {
                self.change.trial = Some(Trial::new(&self.home)?);
            }
            Level::Whole => self.open_doors(),
            _ => {}
        }
        Ok(())
    }

    /// Makes the candidate server accept on the listeners; a server started later does so at once.
    fn open_doors(&mut self) {
        if let Some(trial) = self.change.trial.take() {
            // Fails only if no candidate server has the read end.
            let _ = std::fs::File::from(trial.doors_writer).write_all(&[1]);
            let _ = files::remove_any(&self.home.trial_socket());
        }
    }

    /// Resumes a change of release whose worker has died, and kills a worker that is stopped (SIGSTOP, a debugger)
    /// while requests wait for it.
    pub(super) fn check_change(&mut self) {
        let Some(change) = journal::change_under_way(&self.home) else {
            self.change.watch = None;
            return;
        };
        let watch = self.change.watch.get_or_insert_default();
        let own_pid = std::process::id() as i32;
        match change.by.filter(|process| process.pid != own_pid) {
            Some(process) if change.has_changed => self.watch_worker(&process),
            Some(_) => watch.frozen_since = None,
            None => self.resume_change(),
        }
    }

    /// Kills the process that runs the upgrade if it has been stopped (SIGSTOP) for too long.
    fn watch_worker(&mut self, worker: &ProcessId) {
        let watch = self.change.watch.get_or_insert_default();
        if !process::is_stopped(worker.pid) {
            watch.frozen_since = None;
            return;
        }
        let since = *watch.frozen_since.get_or_insert_with(Instant::now);
        if since.elapsed() >= FROZEN_LIMIT {
            worker.signal(Signal::Kill);
            let pid = worker.pid;
            self.own_log.warn(format_args!("killed pid {pid}: it was stopped (SIGSTOP) while requests waited for it"));
        }
    }

    /// Starts `leoflow upgrade --resume`, unless one is running or the pause after the last one is not over.
    fn resume_change(&mut self) {
        let now = Instant::now();
        let watch = self.change.watch.get_or_insert_default();
        let is_too_early = watch.not_before.is_some_and(|time| now < time);
        let is_stopping = matches!(self.model.overall(), Overall::Stopping | Overall::Stopped);
        if self.change.resume.is_some() || is_too_early || is_stopping {
            return;
        }
        let pause = Duration::from_secs(1 << watch.resume_count.min(8)).min(LONGEST_RESUME_PAUSE);
        watch.not_before = now.checked_add(pause);
        watch.resume_count = watch.resume_count.saturating_add(1);
        self.own_log.warn("a change of release was interrupted; resuming it");
        match self.spawn_resume() {
            Ok(pid) => self.change.resume = Some(pid),
            Err(error) => self.own_log.warn(format_args!("failed to resume the change of release: {error}")),
        }
    }

    /// Handles the exit of a child that the policy does not supervise.
    pub(super) fn other_child_exited(&mut self, pid: i32) {
        if self.change.resume == Some(pid) {
            self.change.resume = None;
            self.check_change();
        }
    }

    fn spawn_resume(&self) -> io::Result<i32> {
        let log = self.home.logs().join("upgrade.log");
        let output = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        let arguments: [OsString; 5] =
            ["upgrade".into(), "--resume".into(), "--yes".into(), "--home".into(), self.home.root().into()];
        let spawn = Spawn {
            argv0: Some("leoflow".into()),
            arguments: arguments.into(),
            environment: env_vars::all(),
            ..Spawn::new(env_vars::running_program())
        };
        spawn.start(output.as_fd()).map_err(io::Error::other)
    }
}

//! For an upgrade: taking the children down to a level and up again, and a server on trial, which gets the
//! listeners by one byte over a pipe.

use super::change::{Trial, Watched};
use super::policy::{Event, Overall};
use super::run::Supervisor;
use crate::home::journal;
use crate::protocol::control::{Answer, Level};
use crate::sys::files;
use crate::sys::process::{self, ProcessId, Signal};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// The longest pause before a change of release that was left in the middle is taken up again; each is twice the one before.
const LONGEST_RESUME_PAUSE: Duration = Duration::from_secs(300);

/// How many of the children, in the order of `Instance::specs`, are up at a level.
fn count(level: Level, all: usize) -> usize {
    match level {
        Level::Nothing => 0,
        Level::Datastore => 1,
        Level::Trial => 3,
        Level::Whole => all,
    }
}

/// One that is stopped for this long is ended: requests wait for it.
const FROZEN: Duration = Duration::from_secs(15);

impl Supervisor {
    pub(super) fn set_level(
        &mut self,
        level: Level,
        program: Option<PathBuf>,
        limit: Option<Duration>,
        peer: i32,
        answer: oneshot::Sender<Answer>,
    ) {
        self.own_log.info(format_args!("asked for {level:?} of {program:?} by {peer}"));
        if let Err(reason) = self.prepare_level(level, program) {
            // Whoever asked may have left.
            let _ = answer.send(Answer::Error(reason));
            return;
        }
        let up = count(level, self.children.len());
        self.feed(Event::Level(up));
        if let Some(limit) = limit.filter(|_| level == Level::Trial) {
            self.feed(Event::OnTrial { index: up - 1, limit });
        }
        match self.model.overall() {
            // Nothing had to be done, so nothing will change.
            Overall::Healthy | Overall::Held => drop(answer.send(Answer::Accepted)),
            _ => self.waiters.push(answer),
        }
    }

    fn prepare_level(&mut self, level: Level, program: Option<PathBuf>) -> Result<(), String> {
        if !self.model.was_healthy() || matches!(self.model.overall(), Overall::Stopping | Overall::Stopped) {
            return Err("it is being started or stopped".to_owned());
        }
        if let Some(program) = program {
            *self.program.borrow_mut() = program;
        }
        match level {
            Level::Trial if self.trial.is_none() => {
                self.trial = Some(Trial::new(&self.home).map_err(|error| format!("run/trial.sock: {error}"))?);
            }
            Level::Whole => self.open_doors(),
            _ => {}
        }
        Ok(())
    }

    /// A server that was started on trial begins to accept; one that is started from now on does so at once.
    fn open_doors(&mut self) {
        if let Some(trial) = self.trial.take() {
            // Without a reader there is no server on trial.
            let _ = std::fs::File::from(trial.open).write_all(&[1]);
            let _ = files::remove_any(&self.home.trial_socket());
        }
    }

    /// A change of release whose worker has gone is finished or taken back by another process, whatever step it had
    /// come to; one whose worker was stopped (SIGSTOP, a debugger) while requests wait for it is ended for that.
    pub(super) fn look_after_change(&mut self) {
        let Some(change) = journal::change_under_way(&self.home) else {
            self.change = Watched::default();
            return;
        };
        self.change.under_way = true;
        let own = std::process::id() as i32;
        match change.by.filter(|process| process.pid != own) {
            Some(process) if change.has_changed => self.watch_worker(&process),
            Some(_) => self.change.frozen = None,
            None => self.take_up_again(),
        }
    }

    fn watch_worker(&mut self, worker: &ProcessId) {
        if !process::is_stopped(worker.pid) {
            self.change.frozen = None;
            return;
        }
        let since = *self.change.frozen.get_or_insert_with(Instant::now);
        if since.elapsed() >= FROZEN {
            worker.signal(Signal::Kill);
            let pid = worker.pid;
            self.own_log.warn(format_args!("{pid} holds the instance down and does not run; it was ended"));
        }
    }

    fn take_up_again(&mut self) {
        let now = Instant::now();
        let waits = self.change.not_before.is_some_and(|at| now < at);
        let leaves = matches!(self.model.overall(), Overall::Stopping | Overall::Stopped);
        if self.resume.is_some() || waits || leaves {
            return;
        }
        let pause = Duration::from_secs(1 << self.change.taken_up.min(8)).min(LONGEST_RESUME_PAUSE);
        self.change.not_before = now.checked_add(pause);
        self.change.taken_up = self.change.taken_up.saturating_add(1);
        self.own_log.warn("a change of release was left in the middle; taking it up again");
        match self.spawn_resume() {
            Ok(pid) => self.resume = Some(pid),
            Err(error) => self.own_log.warn(format_args!("it cannot be taken up again: {error}")),
        }
    }

    /// A child that is none of the policy's has ended.
    pub(super) fn ended_aside(&mut self, pid: i32) {
        if self.resume == Some(pid) {
            self.resume = None;
            self.look_after_change();
        }
    }

    fn spawn_resume(&self) -> io::Result<i32> {
        let log = self.home.logs().join("upgrade.log");
        let output = OpenOptions::new().append(true).create(true).mode(0o600).open(log)?;
        let arguments: [OsString; 5] =
            ["upgrade".into(), "--resume".into(), "--yes".into(), "--home".into(), self.home.root().into()];
        let spawn = crate::sys::spawn::Spawn {
            program: PathBuf::from("/proc/self/exe"),
            called: Some("leoflow".into()),
            arguments: arguments.into(),
            environment: crate::sys::env_vars::all(),
            output: output.as_fd(),
            errors: None,
            folder: None,
            passed: Vec::new(),
            single_user: None,
            parent_death: None,
            own_session: false,
        };
        spawn.start().map_err(io::Error::other)
    }
}

//! For an upgrade: taking the children down to a level and up again, and a server on trial, which gets the
//! listeners by one byte over a pipe.

use super::policy::{Event, Overall};
use super::run::Supervisor;
use crate::protocol::control::{Answer, Level};
use crate::sys::process::{self, ProcessId, Signal};
use crate::sys::{files, listener, unix_socket};
use std::ffi::OsString;
use std::fs::OpenOptions;
use std::io::{self, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::net::UnixListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tokio::sync::oneshot;

/// How often an upgrade that was left in the middle is taken up again.
const RESUMES: u32 = 3;

/// What a server on trial has beside the listeners.
pub struct Trial {
    private: UnixListener,
    doors: OwnedFd,
    open: OwnedFd,
}

impl Trial {
    fn new(home: &crate::home::Home) -> io::Result<Self> {
        let private = unix_socket::listen(&home.trial_socket())?;
        private.set_nonblocking(true)?;
        let (doors, open) = listener::pipe()?;
        listener::set_nonblocking(&doors)?;
        Ok(Self { private, doors, open })
    }

    /// By the names that the process protocol gives them.
    pub fn descriptors(&self) -> [(&'static str, BorrowedFd<'_>); 2] {
        [("private", self.private.as_fd()), ("doors", self.doors.as_fd())]
    }
}

/// How many of the children, in the order of `Instance::specs`, are up at a level.
fn count(level: Level, all: usize) -> usize {
    match level {
        Level::Nothing => 0,
        Level::Datastore => 1,
        Level::Trial => 3,
        Level::Whole => all,
    }
}

/// Whoever has a part of the instance held down.
pub struct Holder {
    process: ProcessId,
    /// Since when it was seen not to run, though it lives.
    frozen: Option<Instant>,
}

/// A holder that is stopped for this long is ended: requests wait for it.
const FROZEN: Duration = Duration::from_secs(15);

impl Supervisor {
    pub(super) fn set_level(
        &mut self,
        level: Level,
        program: Option<PathBuf>,
        peer: i32,
        answer: oneshot::Sender<Answer>,
    ) {
        let holder = ProcessId::of(peer).map(|process| Holder { process, frozen: None });
        self.holder = holder.filter(|_| level != Level::Whole);
        if level == Level::Whole {
            self.abandoned = 0;
        }
        self.own_log.line(&format!("asked for {level:?} of {program:?}"));
        if let Err(reason) = self.prepare_level(level, program) {
            // Whoever asked may have left.
            let _ = answer.send(Answer::Error(reason));
            return;
        }
        self.feed(Event::Level(count(level, self.specs.len())));
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

    /// Whoever held a part of it down has gone: what it was doing is finished or taken back by another.
    pub(super) fn take_up_again(&mut self) {
        self.holder = None;
        if self.resume.is_some() {
            // Its end is what counts.
            return;
        }
        let is_held = matches!(self.model.overall(), Overall::Held | Overall::Switching | Overall::Failed);
        if !is_held || self.model.level() == self.specs.len() || self.abandoned >= RESUMES {
            return;
        }
        self.abandoned += 1;
        self.own_log.line("an upgrade was left in the middle; taking it up again");
        match self.spawn_resume() {
            Ok(pid) => self.resume = Some(pid),
            Err(error) => self.own_log.line(&format!("it cannot be taken up again: {error}")),
        }
    }

    /// A child that is none of the policy's has ended.
    pub(super) fn ended_aside(&mut self, pid: i32, success: bool) {
        if self.resume == Some(pid) {
            self.resume = None;
            if !success {
                self.take_up_again();
            }
        }
    }

    /// One that was stopped (SIGSTOP, a debugger) while requests wait for it is ended, and so its work is taken up.
    pub(super) fn watch_holder(&mut self) {
        let Some(holder) = &mut self.holder else { return };
        if !holder.process.is_alive() || !process::is_stopped(holder.process.pid) {
            holder.frozen = None;
            return;
        }
        let since = *holder.frozen.get_or_insert_with(Instant::now);
        if since.elapsed() >= FROZEN {
            holder.process.signal(Signal::Kill);
            let pid = holder.process.pid;
            self.own_log.line(&format!("{pid} holds the instance down and does not run; it was ended"));
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
        };
        spawn.start().map_err(io::Error::other)
    }
}

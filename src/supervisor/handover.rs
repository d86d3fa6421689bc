//! One supervisor in the place of another, by `exec` in the same process: what it is told, in
//! `run/handover.json`, and what it takes over. The format is part of the process protocol: the one that
//! writes it is older than the one that reads it.

use super::api_socket::ApiSocket;
use super::run::Supervisor;
use super::state::{Child as State, Phase};
use crate::home::Home;
use crate::home::lock::{HomeLock, LockError};
use crate::protocol::control::Answer;
use crate::sys::{files, replace};
use serde::{Deserialize, Serialize};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::rc::Rc;
use tokio::sync::oneshot;

const FORMAT: u32 = 1;

#[derive(Debug, thiserror::Error)]
pub enum HandoverError {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("it is of another process")]
    NotOurs,
    #[error("its format is {0}, and this version knows {FORMAT}")]
    Format(u32),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// Numbers are descriptors that stay open across the exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    format: u32,
    pid: u32,
    pub port: u16,
    pub detached: bool,
    pub uptime_seconds: u64,
    pub schema_version: Option<i64>,
    http: i32,
    api: i32,
    /// Read end, write end.
    lifeline: [i32; 2],
    /// Of `run/lite.lock` and of the home's folder.
    lock: [i32; 2],
    children: Vec<Child>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct Child {
    name: String,
    /// `None` for a one-shot that is done.
    pid: Option<i32>,
    restarts: u32,
    /// The read end of its output.
    output: Option<i32>,
}

/// What a supervisor finds of the one before it.
pub struct Inherited {
    pub handover: Handover,
    pub(super) tcp: TcpListener,
    pub(super) api: ApiSocket,
    pub(super) lifeline: OwnedFd,
    pub(super) lifeline_held: OwnedFd,
    /// Held for as long as somebody has it.
    pub lock: Rc<HomeLock>,
    pub(super) children: Vec<AdoptedChild>,
}

pub struct AdoptedChild {
    pub name: String,
    pub pid: Option<i32>,
    pub restarts: u32,
    pub output: Option<OwnedFd>,
}

impl Inherited {
    /// Takes over what `run/handover.json` describes. It may be called once.
    pub fn take(home: &Home) -> Result<Self, HandoverError> {
        let text = files::read_text(&home.handover(), 1024 * 1024)?.unwrap_or_default();
        let handover: Handover = serde_json::from_str(&text).map_err(io::Error::other)?;
        if handover.pid != std::process::id() {
            return Err(HandoverError::NotOurs);
        }
        if handover.format != FORMAT {
            return Err(HandoverError::Format(handover.format));
        }
        files::remove_any(&home.handover())?;
        let [lifeline, lifeline_held] = handover.lifeline.map(replace::take_kept);
        let [file, folder] = handover.lock.map(replace::take_kept);
        let adopted = |child: &Child| {
            let output = child.output.map(replace::take_kept).transpose()?;
            Ok(AdoptedChild { name: child.name.clone(), pid: child.pid, restarts: child.restarts, output })
        };
        Ok(Self {
            tcp: TcpListener::from(replace::take_kept(handover.http)?),
            api: ApiSocket::inherit(home, UnixListener::from(replace::take_kept(handover.api)?))?,
            lifeline: lifeline?,
            lifeline_held: lifeline_held?,
            lock: Rc::new(HomeLock::inherit(home, [file?, folder?])?),
            children: handover.children.iter().map(adopted).collect::<io::Result<_>>()?,
            handover,
        })
    }
}

impl Supervisor {
    /// Executes `program` in our place. Comes back only when that did not work, with all as it was.
    pub(super) fn become_program(&mut self, program: &Path, answer: oneshot::Sender<Answer>) {
        let error = self.try_to_become(program);
        self.own_log.warn(format_args!("{} cannot take over: {error}", program.display()));
        let _ = files::remove_any(&self.home.handover());
        // Whoever asked may have left.
        let _ = answer.send(Answer::Error(format!("{} cannot take over: {error}", program.display())));
    }

    fn try_to_become(&mut self, program: &Path) -> io::Error {
        // One that has failed is tried anew by the next supervisor; one on its way could not be told how far it is.
        let is_settled = |child: &State| !matches!(child.phase, Phase::Starting { .. } | Phase::Stopping { .. });
        if !self.model.children.iter().all(is_settled) {
            return io::Error::other("something is being started or stopped");
        }
        let handover = self.handover();
        let text = match serde_json::to_vec_pretty(&handover) {
            Ok(text) => text,
            Err(error) => return error.into(),
        };
        if let Err(error) = files::write_atomic(&self.home.handover(), &text, 0o600) {
            return error;
        }
        self.own_log.info(format_args!("handing over to {}", program.display()));
        let mut arguments = vec!["--home".into(), self.home.root().into(), "lite".into(), "--take-over".into()];
        if self.identity.detached {
            arguments.push("--report-to-stdout".into());
        }
        if self.identity.verbose {
            arguments.push("--verbose".into());
        }
        replace::replace_self(program, "leoflow", &arguments, &self.kept())
    }

    /// The output of a child, as long as there is one.
    fn output(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.model.pid_of(index)?;
        Some(self.children.get(index)?.output.as_ref()?.as_fd())
    }

    /// Every descriptor that stays open: those whose numbers `handover` tells.
    fn kept(&self) -> Vec<BorrowedFd<'_>> {
        let own = [self.tcp.as_fd(), self.api.listener.as_fd(), self.lifeline.as_fd(), self.lifeline_held.as_fd()];
        let outputs = (0..self.children.len()).filter_map(|index| self.output(index));
        own.into_iter().chain(self.lock.descriptors()).chain(outputs).collect()
    }

    fn handover(&self) -> Handover {
        let child = |(index, child): (usize, &State)| Child {
            name: child.plan.name.to_owned(),
            pid: child.phase.pid(),
            restarts: child.restarts,
            output: self.output(index).map(|output| output.as_raw_fd()),
        };
        Handover {
            format: FORMAT,
            pid: std::process::id(),
            port: self.tcp.local_addr().map(|address| address.port()).unwrap_or_default(),
            detached: self.identity.detached,
            uptime_seconds: self.started.elapsed().as_secs(),
            schema_version: self.schema_version,
            http: self.tcp.as_raw_fd(),
            api: self.api.listener.as_raw_fd(),
            lifeline: [self.lifeline.as_raw_fd(), self.lifeline_held.as_raw_fd()],
            lock: self.lock.descriptors().map(|descriptor| descriptor.as_raw_fd()),
            children: self.model.children.iter().enumerate().map(child).collect(),
        }
    }
}

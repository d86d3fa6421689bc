//! Replaces the supervisor by `exec` in the same process: the state in `run/handover.json` and the inherited
//! descriptors. The format is part of the process protocol, because an older release writes the file and a newer one
//! reads it.

use super::resources::Resources;
use crate::supervisor::children::api_socket::ApiSocket;
use crate::supervisor::run::Supervisor;
use crate::supervisor::state::{ChildState, Phase};
use leoflow_base::home::Home;
use leoflow_base::home::lock::{HomeLock, LockError};
use leoflow_base::protocol::control::Answer;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::{descriptors, replace};
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
    #[error("run/handover.json belongs to another process")]
    NotOurs,
    #[error("run/handover.json has format {0}, but this version reads {FORMAT}")]
    Format(u32),
    #[error(transparent)]
    Lock(#[from] LockError),
}

/// The state for the next supervisor. Plain numbers of type `i32` are descriptors that stay open across the exec.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Handover {
    format: u32,
    pid: u32,
    pub port: u16,
    pub detached: bool,
    pub uptime_seconds: u64,
    pub schema_version: Option<i64>,
    /// The TCP listener.
    http: i32,
    /// The listener of `run/api.sock`.
    api: i32,
    /// Read end, write end.
    lifeline: [i32; 2],
    /// Locks on `run/lite.lock` and on the home's folder.
    lock: [i32; 2],
    children: Vec<HandedOverChild<i32>>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct HandedOverChild<Descriptor> {
    pub name: String,
    /// `None` for a child that does not run, such as a finished one-shot.
    pub pid: Option<i32>,
    pub restarts: u32,
    /// The read end of the child's output pipe.
    pub output: Option<Descriptor>,
}

/// The resources and children of the previous supervisor.
pub struct Inherited {
    pub handover: Handover,
    pub resources: Resources,
    pub(crate) children: Vec<HandedOverChild<OwnedFd>>,
}

impl Inherited {
    /// Takes over the descriptors and children that `run/handover.json` describes, and removes the file. May be called
    /// only once, because the descriptors have one owner.
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
        let [lifeline, lifeline_writer] = handover.lifeline.map(descriptors::take_inherited);
        let [file, folder] = handover.lock.map(descriptors::take_inherited);
        let adopted = |child: &HandedOverChild<i32>| {
            let HandedOverChild { name, pid, restarts, output } = child.clone();
            Ok(HandedOverChild { name, pid, restarts, output: output.map(descriptors::take_inherited).transpose()? })
        };
        let resources = Resources {
            tcp: TcpListener::from(descriptors::take_inherited(handover.http)?),
            api: ApiSocket::inherit(home, UnixListener::from(descriptors::take_inherited(handover.api)?))?,
            lifeline: lifeline?,
            lifeline_writer: lifeline_writer?,
            lock: Rc::new(HomeLock::inherit(home, [file?, folder?])?),
        };
        Ok(Self { resources, children: handover.children.iter().map(adopted).collect::<io::Result<_>>()?, handover })
    }
}

impl Supervisor {
    /// Execs `program`. Returns only on failure, with nothing changed.
    pub(crate) fn become_program(&mut self, program: &Path, answer: oneshot::Sender<Answer>) {
        let problem = format!("failed to hand over to {}: {}", program.display(), self.try_to_become(program));
        self.own_log.warn(&problem);
        let _ = files::remove_any(&self.home.handover());
        // The client may have disconnected.
        let _ = answer.send(Answer::Error(problem));
    }

    /// Returns the error, because a successful exec does not return.
    fn try_to_become(&mut self, program: &Path) -> io::Error {
        // The next supervisor retries failed children; the handover cannot describe one that is starting or stopping.
        let is_settled = |child: &ChildState| !matches!(child.phase, Phase::Starting { .. } | Phase::Stopping { .. });
        if !self.model.children.iter().all(is_settled) {
            return io::Error::other("a process is starting or stopping");
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
        replace::replace_self(program, "leoflow", &arguments, &self.kept_descriptors())
    }

    /// The read end of the output of a running child; `None` if it does not run.
    fn output(&self, index: usize) -> Option<BorrowedFd<'_>> {
        self.model.pid_of(index)?;
        Some(self.children.get(index)?.process.as_ref()?.output.as_fd())
    }

    /// All descriptors that stay open across the exec; `handover` has their numbers.
    fn kept_descriptors(&self) -> Vec<BorrowedFd<'_>> {
        let Resources { tcp, api, lifeline, lifeline_writer, lock } = &self.resources;
        let own = [tcp.as_fd(), api.listener.as_fd(), lifeline.as_fd(), lifeline_writer.as_fd()];
        let outputs = (0..self.children.len()).filter_map(|index| self.output(index));
        own.into_iter().chain(lock.descriptors()).chain(outputs).collect()
    }

    fn handover(&self) -> Handover {
        let child_entry = |(index, child): (usize, &ChildState)| HandedOverChild {
            name: child.plan.name.to_owned(),
            pid: child.phase.pid(),
            restarts: child.restarts,
            output: self.output(index).map(|output| output.as_raw_fd()),
        };
        let Resources { tcp, api, lifeline, lifeline_writer, lock } = &self.resources;
        Handover {
            format: FORMAT,
            pid: std::process::id(),
            port: tcp.local_addr().map(|address| address.port()).unwrap_or_default(),
            detached: self.identity.detached,
            uptime_seconds: self.started.elapsed().as_secs(),
            schema_version: self.schema_version,
            http: tcp.as_raw_fd(),
            api: api.listener.as_raw_fd(),
            lifeline: [lifeline.as_raw_fd(), lifeline_writer.as_raw_fd()],
            lock: lock.descriptors().map(|descriptor| descriptor.as_raw_fd()),
            children: self.model.children.iter().enumerate().map(child_entry).collect(),
        }
    }
}

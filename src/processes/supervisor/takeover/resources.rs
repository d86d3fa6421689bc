//! What a supervisor holds besides its children: the descriptors that it hands over, and a change of release with the
//! program of the processes, the candidate server on trial, and the watch over the worker.

use crate::supervisor::children::api_socket::ApiSocket;
use crate::supervisor::instance::SharedProgram;
use leoflow_base::home::Home;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::sys::net::{listener, unix_socket};
use std::io;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::rc::Rc;
use std::time::Instant;

/// Resources that a supervisor holds from its start on, and hands over to the next one.
pub struct Resources {
    pub(crate) tcp: TcpListener,
    pub(crate) api: ApiSocket,
    /// Read end of the lifeline, a pipe that each child inherits.
    pub(crate) lifeline: OwnedFd,
    /// Write end of the lifeline. Nothing is written to it: it closes when this process dies, and the children exit.
    pub(crate) lifeline_writer: OwnedFd,
    /// Released when the last owner is dropped.
    pub lock: Rc<HomeLock>,
}

/// What a change of release sets and watches; the default is that none is under way.
#[derive(Default)]
pub struct ReleaseChange {
    /// The program of migrator, server and agent.
    pub program: SharedProgram,
    /// The descriptors of a candidate server, from level `Trial` until it gets the listeners.
    pub trial: Option<Trial>,
    /// The change of release under way, if any; the journal is then polled more often.
    pub watch: Option<ChangeWatch>,
    /// The pid of a running `leoflow upgrade --resume`.
    pub resume: Option<i32>,
}

/// The trial of a candidate server: the server of the new release, which runs but does not accept on the public
/// listeners yet. The fields are the descriptors that it gets besides the listeners.
pub struct Trial {
    /// Listener on `run/trial.sock`, through which only the upgrade reaches the server.
    pub private: UnixListener,
    /// Read end of the pipe `doors` of the process protocol: once a byte arrives, the server accepts on the public
    /// listeners.
    pub doors: OwnedFd,
    /// Write end of the same pipe.
    pub doors_writer: OwnedFd,
}

impl Trial {
    pub fn new(home: &Home) -> io::Result<Self> {
        let private = unix_socket::listen(&home.trial_socket())?;
        private.set_nonblocking(true)?;
        let (doors, doors_writer) = listener::pipe()?;
        listener::set_nonblocking(&doors)?;
        Ok(Self { private, doors, doors_writer })
    }

    /// The descriptors with their names in the process protocol.
    pub fn descriptors(&self) -> [(&'static str, BorrowedFd<'_>); 2] {
        [("private", self.private.as_fd()), ("doors", self.doors.as_fd())]
    }
}

/// A change of release that the journal records as under way.
#[derive(Default)]
pub struct ChangeWatch {
    /// Number of resumes started so far.
    pub resume_count: u32,
    /// Earliest time of the next resume; `None` before the first.
    pub not_before: Option<Instant>,
    /// When the worker was first seen stopped (SIGSTOP).
    pub frozen_since: Option<Instant>,
}

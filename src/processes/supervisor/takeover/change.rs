//! A change of release: the program of the processes, the candidate server on trial, and the watch over the worker.

use crate::supervisor::instance::SharedProgram;
use leoflow_base::home::Home;
use leoflow_base::sys::net::{listener, unix_socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

/// What a change of release sets and watches.
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

impl ReleaseChange {
    /// No change is under way.
    pub fn new(program: SharedProgram) -> Self {
        Self { program, trial: None, watch: None, resume: None }
    }
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

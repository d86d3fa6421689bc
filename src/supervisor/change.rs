//! A change of release, as the supervisor has a part in it.

use crate::sys::{listener, unix_socket};
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::time::Instant;

/// What a server on trial has beside the listeners.
pub struct Trial {
    pub private: UnixListener,
    pub doors: OwnedFd,
    pub open: OwnedFd,
}

impl Trial {
    pub fn new(home: &crate::home::Home) -> io::Result<Self> {
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

/// What the supervisor remembers of a change of release, whose journal it looks at.
#[derive(Default)]
pub struct Watched {
    /// There is one: it is looked at often.
    pub under_way: bool,
    /// How often it was taken up again, and when it may be the next time.
    pub taken_up: u32,
    pub not_before: Option<Instant>,
    /// Since when whoever is at it was seen not to run, though it lives.
    pub frozen: Option<Instant>,
}

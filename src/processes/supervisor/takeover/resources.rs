//! The descriptors that a supervisor hands over.

use crate::supervisor::children::api_socket::ApiSocket;
use leoflow_base::home::lock::HomeLock;
use std::net::TcpListener;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::rc::Rc;

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

impl Resources {
    /// All descriptors, which stay open across the exec.
    pub fn descriptors(&self) -> impl Iterator<Item = BorrowedFd<'_>> {
        let own_descriptors =
            [self.tcp.as_fd(), self.api.listener.as_fd(), self.lifeline.as_fd(), self.lifeline_writer.as_fd()];
        own_descriptors.into_iter().chain(self.lock.descriptors())
    }
}

//! A pair of sockets that preserve message boundaries, one of them for a child.

use nix::sys::socket::{ControlMessage, MsgFlags, UnixAddr, recv, sendmsg};
use socket2::{Domain, Socket, Type};
use std::io::{self, IoSlice};
use std::os::fd::{AsRawFd, BorrowedFd, OwnedFd};
use tokio::io::Interest;
use tokio::io::unix::AsyncFd;

/// One end of the pair.
pub struct SeqPacket(AsyncFd<OwnedFd>);

impl SeqPacket {
    /// Creates a pair: our end and the child's. Must be called inside a runtime.
    pub fn pair() -> io::Result<(Self, OwnedFd)> {
        let (own_end, child_end) = Socket::pair(Domain::UNIX, Type::SEQPACKET, None)?;
        Ok((Self::from_end(own_end.into())?, child_end.into()))
    }

    /// Wraps one end of a pair. Must be called inside a runtime.
    pub fn from_end(end: OwnedFd) -> io::Result<Self> {
        super::listener::set_nonblocking(&end)?;
        // SAFETY: an `OwnedFd` gives the same descriptor for as long as it lives.
        let end = unsafe { AsyncFd::register_with_interest(end, Interest::READABLE | Interest::WRITABLE) }?;
        Ok(Self(end))
    }

    /// Sends a message with copies of descriptors. If the other end is closed, this is an error and no signal, because Rust
    /// ignores SIGPIPE.
    pub async fn send(&self, message: &[u8], descriptors: &[BorrowedFd<'_>]) -> io::Result<()> {
        let numbers: Vec<_> = descriptors.iter().map(AsRawFd::as_raw_fd).collect();
        let passed = [ControlMessage::ScmRights(&numbers)];
        let passed = if numbers.is_empty() { &[] } else { &passed[..] };
        let parts = [IoSlice::new(message)];
        let send =
            |socket: &OwnedFd| Ok(sendmsg::<UnixAddr>(socket.as_raw_fd(), &parts, passed, MsgFlags::empty(), None)?);
        self.0.async_io(Interest::WRITABLE, send).await.map(drop)
    }

    /// Receives a message; 0 when the other end is closed.
    pub async fn receive(&self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.async_io(Interest::READABLE, |socket| Ok(recv(socket.as_raw_fd(), buffer, MsgFlags::empty())?)).await
    }
}

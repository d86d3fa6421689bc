//! Creates pipes and listeners as plain descriptors.

use nix::fcntl::OFlag;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::OwnedFd;

/// Listens on an address and port. The kernel queues up to 4,096 connections, or as many as net.core.somaxconn allows,
/// so that a server can be replaced, or pause for seconds, without refusing one.
pub fn bind_at(host: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
    };
    use std::os::fd::AsRawFd;

    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    let address = std::net::SocketAddrV4::new(host, port);
    bind(descriptor.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&descriptor, Backlog::new(4096).unwrap_or(Backlog::MAXCONN))?;
    Ok(TcpListener::from(descriptor))
}

/// Creates a pipe: `(read end, write end)`, both closed at exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    nix::unistd::pipe2(OFlag::O_CLOEXEC).map_err(io::Error::from)
}

/// Like [`pipe`], with a read end for the event loop.
pub fn pipe_with_async_reader() -> io::Result<(tokio::net::unix::pipe::Receiver, OwnedFd)> {
    let (reader, writer) = pipe()?;
    set_nonblocking(&reader)?;
    Ok((tokio::net::unix::pipe::Receiver::from_owned_fd(reader)?, writer))
}

/// Makes a pipe's end or a socket non-blocking, for every process that has it.
pub fn set_nonblocking(descriptor: &OwnedFd) -> io::Result<()> {
    nix::fcntl::fcntl(descriptor, nix::fcntl::FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(())
}

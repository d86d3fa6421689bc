//! Creates pipes and listeners as plain descriptors.

use nix::fcntl::OFlag;
use nix::libc;
use std::io;
use std::net::{Ipv4Addr, TcpListener};
use std::os::fd::{AsRawFd, OwnedFd};

/// Listens on an address and port. The kernel queues up to 4,096 connections, or as many as net.core.somaxconn allows,
/// so that a server can be replaced, or pause for seconds, without refusing one.
pub fn bind_at(host: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    use nix::sys::socket::{
        AddressFamily, Backlog, SockFlag, SockType, SockaddrIn, bind, listen, setsockopt, socket, sockopt,
    };

    let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
    let descriptor = socket(AddressFamily::Inet, SockType::Stream, flags, None)?;
    setsockopt(&descriptor, sockopt::ReuseAddr, &true)?;
    let address = std::net::SocketAddrV4::new(host, port);
    bind(descriptor.as_raw_fd(), &SockaddrIn::from(address))?;
    listen(&descriptor, Backlog::new(4096).unwrap_or(Backlog::MAXCONN))?;
    Ok(TcpListener::from(descriptor))
}

/// Makes the kernel keep each connection to itself until the client has sent something, for about `seconds`. A client
/// that is slow to send its first request meanwhile gets the next server if the present one is replaced.
pub fn defer_accept(listener: &TcpListener, seconds: u32) -> io::Result<()> {
    let value = std::ptr::from_ref(&seconds).cast();
    // SAFETY: `value` points to a u32, which lives as long as the call, and the length is its size.
    let result = unsafe {
        libc::setsockopt(
            listener.as_raw_fd(),
            libc::IPPROTO_TCP,
            libc::TCP_DEFER_ACCEPT,
            value,
            size_of::<u32>() as u32,
        )
    };
    nix::errno::Errno::result(result)?;
    Ok(())
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

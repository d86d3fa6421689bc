//! Creates pipes and listeners as plain descriptors.

use crate::sys::is_portable;
use nix::fcntl::OFlag;
use socket2::{Domain, Socket, Type};
use std::io;
use std::net::{Ipv4Addr, SocketAddrV4, TcpListener, TcpStream};
#[cfg(target_os = "linux")]
use std::os::fd::AsRawFd;
use std::os::fd::OwnedFd;
use std::time::Duration;

/// Time limit of a connection to this machine.
const CONNECT_LIMIT: Duration = Duration::from_millis(200);

/// Listens on an address and port. The kernel queues up to 4,096 connections, or as many as net.core.somaxconn allows,
/// so that a server can be replaced, or pause for seconds, without refusing one.
pub fn bind_at(host: Ipv4Addr, port: u16) -> io::Result<TcpListener> {
    // macOS binds one address of a port that another process serves on all addresses.
    if is_portable() && port != 0 && host.is_loopback() && is_served(host, port) {
        return Err(io::ErrorKind::AddrInUse.into());
    }
    let listener = Socket::new(Domain::IPV4, Type::STREAM, None)?;
    listener.set_nonblocking(true)?;
    listener.set_reuse_address(true)?;
    listener.bind(&SocketAddrV4::new(host, port).into())?;
    listener.listen(4096)?;
    Ok(listener.into())
}

fn is_served(host: Ipv4Addr, port: u16) -> bool {
    TcpStream::connect_timeout(&(host, port).into(), CONNECT_LIMIT).is_ok()
}

/// Makes the kernel keep each connection to itself until the client has sent something, for about `seconds`. A client
/// that is slow to send its first request meanwhile gets the next server if the present one is replaced. Only on Linux.
pub fn defer_accept(listener: &TcpListener, seconds: u32) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    {
        use nix::libc;
        let value = std::ptr::from_ref(&seconds).cast();
        let length = size_of::<u32>() as u32;
        // SAFETY: `value` points to a u32, which lives as long as the call, and the length is its size.
        let result =
            unsafe { libc::setsockopt(listener.as_raw_fd(), libc::IPPROTO_TCP, libc::TCP_DEFER_ACCEPT, value, length) };
        nix::errno::Errno::result(result)?;
    }
    let _ = (listener, seconds);
    Ok(())
}

/// Creates a pipe: `(read end, write end)`, both closed at exec.
pub fn pipe() -> io::Result<(OwnedFd, OwnedFd)> {
    std::io::pipe().map(|(reader, writer)| (reader.into(), writer.into()))
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

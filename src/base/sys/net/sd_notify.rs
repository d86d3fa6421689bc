//! sd_notify(3) datagrams, sending and receiving. The socket is in a private folder. On Linux, the kernel names the sender;
//! in the portable half, the datagram does.

use super::unix_socket::through_folder;
use crate::sys::is_portable;
use socket2::{Domain, SockAddr, Socket, Type};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Maximum size of a datagram in bytes. Longer ones are truncated; ours are far shorter.
const MAX_DATAGRAM: usize = 16 * 1024;

/// Bytes that may wait for the receiver in the portable half; the default of macOS is 4 KiB.
const RECEIVED: usize = 8 * MAX_DATAGRAM;

/// The receiving end.
pub struct NotifySocket {
    descriptor: AsyncFd<Socket>,
    path: PathBuf,
    inode: u64,
}

/// A datagram: its `KEY=value` lines and the sender's pid.
#[derive(Debug)]
pub struct Notification {
    pub pid: i32,
    pub text: String,
}

impl NotifySocket {
    /// Listens at `path`, replacing what is there. Must be called inside a runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        crate::sys::fs::files::remove_any(path)?;
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        socket.set_nonblocking(true)?;
        if is_portable() {
            socket.set_recv_buffer_size(RECEIVED)?;
        }
        through_folder(path, |short| socket.bind(&SockAddr::unix(short)?))?;
        #[cfg(target_os = "linux")]
        socket.set_passcred(!is_portable())?;
        // SAFETY: a Socket keeps its descriptor open until it is dropped, and the AsyncFd owns it.
        let descriptor = unsafe { AsyncFd::register(socket) }?;
        let inode = crate::sys::fs::files::inode(path).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { descriptor, path: path.to_owned(), inode })
    }

    /// Recreates the socket if it was removed or replaced. Senders resolve the path each time, so they need no notice.
    pub fn ensure(&mut self) {
        if crate::sys::fs::files::inode(&self.path) == Some(self.inode) {
            return;
        }
        if let Ok(reopened) = Self::bind(&self.path) {
            *self = reopened;
        }
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn address(&self) -> &Path {
        &self.path
    }

    /// Waits for the next datagram.
    pub async fn receive(&self) -> io::Result<Notification> {
        loop {
            let mut ready = self.descriptor.readable().await?;
            match ready.try_io(|descriptor| receive_one(descriptor.get_ref())) {
                Ok(Ok(Some(notification))) => return Ok(notification),
                Ok(Ok(None)) | Err(_) => {}
                Ok(Err(error)) => return Err(error),
            }
        }
    }

    /// Returns a pending datagram without waiting.
    pub fn try_receive(&self) -> Option<Notification> {
        loop {
            match receive_one(self.descriptor.get_ref()) {
                Ok(Some(notification)) => return Some(notification),
                Ok(None) => {}
                Err(_) => return None,
            }
        }
    }
}

/// The line by which a sender names itself where the kernel does not.
const SENDER: &str = "LEOFLOW_PID=";

/// Receives a datagram; `None` for an invalid one: too much control data, or no sender.
fn receive_one(socket: &Socket) -> io::Result<Option<Notification>> {
    #[cfg(target_os = "linux")]
    if !is_portable() {
        return receive_with_credentials(socket);
    }
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut receiver = socket;
    let length = receiver.read(&mut buffer)?;
    let text = String::from_utf8_lossy(&buffer[..length]).into_owned();
    let sender = text.lines().find_map(|line| line.strip_prefix(SENDER)?.parse().ok());
    Ok(sender.map(|pid| Notification { pid, text }))
}

#[cfg(target_os = "linux")]
fn receive_with_credentials(socket: &Socket) -> io::Result<Option<Notification>> {
    use nix::sys::socket::{ControlMessageOwned, MsgFlags, UnixAddr, UnixCredentials, recvmsg};
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut space = nix::cmsg_space!(UnixCredentials);
    let mut slices = [io::IoSliceMut::new(&mut buffer)];
    let flags = MsgFlags::MSG_CMSG_CLOEXEC;
    let message = recvmsg::<UnixAddr>(std::os::fd::AsRawFd::as_raw_fd(socket), &mut slices, Some(&mut space), flags)?;
    let length = message.bytes;
    let sender = message.cmsgs().ok().and_then(|mut controls| {
        controls.find_map(|control| match control {
            ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
            _ => None,
        })
    });
    Ok(sender.map(|pid| Notification { pid, text: String::from_utf8_lossy(&buffer[..length]).into_owned() }))
}

/// The sending end. It keeps its descriptor, so that a process can report that it has run out of descriptors.
#[derive(Debug)]
pub struct NotifySender {
    socket: Socket,
    address: String,
}

impl NotifySender {
    /// `address` is a `NOTIFY_SOCKET` value.
    pub fn new(address: String) -> io::Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::DGRAM, None)?;
        // A full queue must not block the sender.
        socket.set_nonblocking(true)?;
        if is_portable() {
            // The default of macOS is 2 KiB.
            socket.set_send_buffer_size(MAX_DATAGRAM)?;
        }
        Ok(Self { socket, address })
    }

    /// Sends a datagram. Never blocks, even without a reader.
    pub fn send(&self, text: &str) -> io::Result<()> {
        let text = match is_portable() {
            true => format!("{text}\n{SENDER}{}", std::process::id()),
            false => text.to_owned(),
        };
        let send_to = |path: &Path| self.socket.send_to(text.as_bytes(), &SockAddr::unix(path)?).map(drop);
        match self.address.strip_prefix('@') {
            // An abstract address of Linux.
            Some(name) => send_to(Path::new(&format!("\0{name}"))),
            None => through_folder(Path::new(&self.address), send_to),
        }
    }
}

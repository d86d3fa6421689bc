//! sd_notify(3) datagrams, sending and receiving. The socket is in a private folder; the kernel, not the datagram,
//! names the sender.

use super::unix_socket::through_folder;
use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg, sendto,
    setsockopt, socket, sockopt,
};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use tokio::io::unix::AsyncFd;

/// Maximum size of a datagram in bytes. Longer ones are truncated; ours are far shorter.
const MAX_DATAGRAM: usize = 16 * 1024;

/// The receiving end.
pub struct NotifySocket {
    descriptor: AsyncFd<OwnedFd>,
    path: PathBuf,
    inode: u64,
}

/// A datagram: its `KEY=value` lines and the sender's pid as reported by the kernel.
#[derive(Debug)]
pub struct Notification {
    pub pid: i32,
    pub text: String,
}

impl NotifySocket {
    /// Listens at `path`, replacing what is there. Must be called inside a runtime.
    pub fn bind(path: &Path) -> io::Result<Self> {
        crate::sys::fs::files::remove_any(path)?;
        let flags = SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK;
        let descriptor = socket(AddressFamily::Unix, SockType::Datagram, flags, None)?;
        through_folder(path, |short| Ok(bind(descriptor.as_raw_fd(), &UnixAddr::new(short)?)?))?;
        setsockopt(&descriptor, sockopt::PassCred, &true)?;
        // SAFETY: an OwnedFd keeps its descriptor open until it is dropped, and the AsyncFd owns it.
        let descriptor = unsafe { AsyncFd::register(descriptor) }?;
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

/// Receives a datagram; `None` for an invalid one: too much control data, or no sender.
fn receive_one(descriptor: &OwnedFd) -> io::Result<Option<Notification>> {
    let mut buffer = vec![0; MAX_DATAGRAM];
    let mut space = cmsg_space!(UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<UnixAddr>(descriptor.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
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
    descriptor: OwnedFd,
    address: String,
}

impl NotifySender {
    /// `address` is a `NOTIFY_SOCKET` value.
    pub fn new(address: String) -> io::Result<Self> {
        let descriptor = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
        Ok(Self { descriptor, address })
    }

    /// Sends a datagram. Never blocks, even without a reader.
    pub fn send(&self, text: &str) -> io::Result<()> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let send_to = |target: UnixAddr| {
            sendto(self.descriptor.as_raw_fd(), text.as_bytes(), &target, flags)?;
            Ok(())
        };
        match self.address.strip_prefix('@') {
            Some(name) => send_to(UnixAddr::new_abstract(name.as_bytes())?),
            None => through_folder(Path::new(&self.address), |short| send_to(UnixAddr::new(short)?)),
        }
    }
}

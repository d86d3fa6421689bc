//! sd_notify(3) datagrams, both ends. Ours is an abstract socket, so that a long home path cannot
//! break it; who sent a datagram is told by the kernel, not by the datagram.

use nix::cmsg_space;
use nix::sys::socket::{
    AddressFamily, ControlMessageOwned, MsgFlags, SockFlag, SockType, UnixAddr, UnixCredentials, bind, recvmsg, sendto,
    setsockopt, socket, sockopt,
};
use std::io::{self, IoSliceMut};
use std::os::fd::{AsRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// Longer datagrams are cut; ours are far shorter.
const LIMIT: usize = 16 * 1024;

/// The receiving end.
pub struct NotifySocket {
    descriptor: AsyncFd<OwnedFd>,
    name: String,
}

/// One datagram: its `KEY=value` lines and the pid that the kernel vouches for.
#[derive(Debug)]
pub struct Notification {
    pub pid: i32,
    pub text: String,
}

impl NotifySocket {
    /// Must be called inside a runtime.
    pub fn bind() -> io::Result<Self> {
        let descriptor =
            socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC | SockFlag::SOCK_NONBLOCK, None)?;
        let name = format!("leoflow/{}/{}", std::process::id(), super::random::hex(&super::random::bytes::<8>()));
        bind(descriptor.as_raw_fd(), &UnixAddr::new_abstract(name.as_bytes())?)?;
        setsockopt(&descriptor, sockopt::PassCred, &true)?;
        // SAFETY: an OwnedFd keeps its descriptor open until it is dropped, and the AsyncFd owns it.
        let descriptor = unsafe { AsyncFd::register(descriptor) }?;
        Ok(Self { descriptor, name })
    }

    /// The value for `NOTIFY_SOCKET`.
    pub fn address(&self) -> String {
        format!("@{}", self.name)
    }

    /// The next datagram.
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

    /// A datagram that is already there.
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

fn receive_one(descriptor: &OwnedFd) -> io::Result<Option<Notification>> {
    let mut buffer = vec![0; LIMIT];
    let mut space = cmsg_space!(UnixCredentials);
    let mut slices = [IoSliceMut::new(&mut buffer)];
    let message =
        recvmsg::<UnixAddr>(descriptor.as_raw_fd(), &mut slices, Some(&mut space), MsgFlags::MSG_CMSG_CLOEXEC)?;
    let length = message.bytes;
    let sender = message.cmsgs()?.find_map(|control| match control {
        ControlMessageOwned::ScmCredentials(credentials) => Some(credentials.pid()),
        _ => None,
    });
    Ok(sender.map(|pid| Notification { pid, text: String::from_utf8_lossy(&buffer[..length]).into_owned() }))
}

/// Sends one datagram to the socket that `address` (a `NOTIFY_SOCKET` value) names. Never blocks:
/// a reader that is not there or not reading is no reason to wait.
pub fn send(address: &str, text: &str) -> io::Result<()> {
    let target = match address.strip_prefix('@') {
        Some(name) => UnixAddr::new_abstract(name.as_bytes())?,
        None => UnixAddr::new(address)?,
    };
    let descriptor = socket(AddressFamily::Unix, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    sendto(descriptor.as_raw_fd(), text.as_bytes(), &target, MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL)?;
    Ok(())
}

//! Unix sockets at paths of any length. The kernel accepts 107 bytes; a longer path is used through a descriptor of its
//! folder.

use nix::errno::Errno;
use nix::fcntl::{OFlag, open};
use nix::sys::socket::{self, AddressFamily, SockFlag, SockType, UnixAddr, socket};
use nix::sys::stat::Mode;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Maximum length of a socket's path in bytes: `sizeof(sun_path)` without the closing NUL, unix(7).
pub const PATH_LIMIT: usize = 107;

/// Listens at `path` with mode 0600, replacing an existing socket. The caller ensures that no other process listens
/// there, for example by the home's lock.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    crate::sys::fs::files::remove_any(path)?;
    let listener = through_folder(path, |short| UnixListener::bind(short))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

/// Time limit of a connection. Each connection that a hung process does not accept stays in its queue, and once the
/// queue is full, connect(2) waits without a limit.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// Connects to the socket at `path`. `TimedOut` means that the listening process accepts no connections.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    connect_within(path, CONNECT_LIMIT)
}

/// True for the error of [`connect`] if no process listens at the path.
pub fn is_not_listening(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused)
}

fn connect_within(path: &Path, limit: Duration) -> io::Result<UnixStream> {
    let socket = socket(AddressFamily::Unix, SockType::Stream, SockFlag::SOCK_CLOEXEC, None)?;
    let stream = UnixStream::from(socket);
    // The time limit of writes is that of connect(2) too.
    stream.set_write_timeout(Some(limit))?;
    through_folder(path, |short| {
        let address = UnixAddr::new(short)?;
        loop {
            match socket::connect(stream.as_raw_fd(), &address) {
                Err(Errno::EINTR) => {}
                Err(Errno::EAGAIN) => {
                    let reason = "the listening process accepts no connections";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                result => return Ok(result?),
            }
        }
    })?;
    stream.set_write_timeout(None)?;
    Ok(stream)
}

/// Calls `operation` with a path that is short enough for the kernel.
pub(crate) fn through_folder<T>(path: &Path, operation: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= PATH_LIMIT {
        return operation(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder: OwnedFd = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    operation(&short)
}

/// The user id at the other end, as the kernel knows it.
pub fn peer_uid(stream: impl AsFd) -> io::Result<u32> {
    let credentials = socket::getsockopt(&stream, socket::sockopt::PeerCredentials)?;
    Ok(credentials.uid())
}

/// The process at the other end, as the kernel knows it.
pub fn peer_pid(stream: impl AsFd) -> io::Result<i32> {
    let credentials = socket::getsockopt(&stream, socket::sockopt::PeerCredentials)?;
    Ok(credentials.pid())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sockets_work_at_paths_of_any_length() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120)).join("y".repeat(90));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("control.sock");
        let _listener = listen(&path).unwrap();
        let stream = connect(&path).unwrap();
        assert_eq!(peer_uid(&stream).unwrap(), crate::sys::user::effective_uid());
        assert_eq!(crate::sys::fs::files::mode(&path).unwrap(), 0o600);
        listen(&path).unwrap();
    }

    #[test]
    fn a_connection_to_a_full_queue_fails() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("control.sock");
        let listener = listen(&path).unwrap();
        socket::listen(&listener, socket::Backlog::new(0).unwrap()).unwrap();
        let _in_queue = connect(&path).unwrap();
        let failed = connect_within(&path, Duration::from_millis(50)).unwrap_err();
        assert_eq!(failed.kind(), io::ErrorKind::TimedOut);
        drop(listener);
        assert_eq!(connect(&path).unwrap_err().kind(), io::ErrorKind::ConnectionRefused);
    }
}

//! Unix sockets at paths of any length. The kernel accepts about a hundred bytes; a longer path is used through a descriptor
//! of its folder, or a link to it.

use crate::sys::env_vars;
use nix::sys::socket;
use socket2::{Domain, SockAddr, Socket, Type};
use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::AsFd;
#[cfg(target_os = "linux")]
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
#[cfg(target_os = "linux")]
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

/// Maximum length of a socket's path in bytes: `sizeof(sun_path)` without the closing NUL, unix(7) and unix(4).
pub const PATH_LIMIT: usize = if cfg!(target_os = "linux") { 107 } else { 103 };

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
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    // The time limit of writes is that of connect(2) too.
    socket.set_write_timeout(Some(limit))?;
    through_folder(path, |short| {
        let address = SockAddr::unix(short)?;
        loop {
            match socket.connect(&address) {
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    let reason = "the listening process accepts no connections";
                    return Err(io::Error::new(io::ErrorKind::TimedOut, reason));
                }
                result => return result,
            }
        }
    })?;
    socket.set_write_timeout(None)?;
    Ok(UnixStream::from(std::os::fd::OwnedFd::from(socket)))
}

/// Calls `operation` with a path that is short enough for the kernel.
pub(crate) fn through_folder<T>(path: &Path, operation: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= PATH_LIMIT {
        return operation(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    #[cfg(target_os = "linux")]
    if !crate::sys::is_portable() {
        use nix::fcntl::{OFlag, open};
        let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let folder: OwnedFd = open(folder, flags, nix::sys::stat::Mode::empty())?;
        return operation(&PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name));
    }
    through_link(folder, name, operation)
}

/// Reaches a folder through a link in the folder of temporary files, which exists only during the call.
fn through_link<T>(folder: &Path, name: &OsStr, operation: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    let folder = std::path::absolute(folder)?;
    let link = loop {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let link = env_vars::temporary_folder().join(format!("leoflow-{}-{number}", std::process::id()));
        match std::os::unix::fs::symlink(&folder, &link) {
            // A killed process with the same pid has left it.
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            made => break made.map(|()| link)?,
        }
    };
    let result = operation(&link.join(name));
    // A leftover in a folder of temporary files, if this fails.
    let _ = fs::remove_file(&link);
    result
}

/// The user id at the other end, as the kernel knows it.
pub fn peer_uid(stream: impl AsFd) -> io::Result<u32> {
    #[cfg(target_os = "linux")]
    let uid = socket::getsockopt(&stream, socket::sockopt::PeerCredentials)?.uid();
    #[cfg(not(target_os = "linux"))]
    let uid = nix::unistd::getpeereid(&stream)?.0.as_raw();
    Ok(uid)
}

/// The process at the other end, as the kernel knows it.
pub fn peer_pid(stream: impl AsFd) -> io::Result<i32> {
    #[cfg(target_os = "linux")]
    let pid = socket::getsockopt(&stream, socket::sockopt::PeerCredentials)?.pid();
    #[cfg(not(target_os = "linux"))]
    let pid = socket::getsockopt(&stream, socket::sockopt::LocalPeerPid)?;
    Ok(pid)
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

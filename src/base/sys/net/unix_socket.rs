//! Unix sockets at paths of any length. The kernel accepts 107 bytes; a longer path is used through a descriptor of its
//! folder.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

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

/// Connects to the socket at `path`.
pub fn connect(path: &Path) -> io::Result<UnixStream> {
    through_folder(path, |short| UnixStream::connect(short))
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
    let credentials = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?;
    Ok(credentials.uid())
}

/// The process at the other end, as the kernel knows it.
pub fn peer_pid(stream: impl AsFd) -> io::Result<i32> {
    let credentials = nix::sys::socket::getsockopt(&stream, nix::sys::socket::sockopt::PeerCredentials)?;
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
}

//! Unix sockets at paths of any length. The kernel takes 107 bytes; a longer path is reached
//! through a descriptor of its folder.

use nix::fcntl::{OFlag, open};
use nix::sys::stat::Mode;
use std::fs::{self, Permissions};
use std::io;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};

/// `sizeof(sun_path)` less the closing NUL, unix(7).
pub const PATH_LIMIT: usize = 107;

/// Listens at `path`, mode 0600, replacing what is there: the caller holds the home's lock.
pub fn listen(path: &Path) -> io::Result<UnixListener> {
    super::files::remove_any(path)?;
    let listener = through_folder(path, |short| UnixListener::bind(short))?;
    fs::set_permissions(path, Permissions::from_mode(0o600))?;
    Ok(listener)
}

pub fn connect(path: &Path) -> io::Result<UnixStream> {
    through_folder(path, |short| UnixStream::connect(short))
}

/// Gives `act` a path that is short enough for the kernel.
pub(super) fn through_folder<T>(path: &Path, act: impl FnOnce(&Path) -> io::Result<T>) -> io::Result<T> {
    if path.as_os_str().as_bytes().len() <= PATH_LIMIT {
        return act(path);
    }
    let (Some(folder), Some(name)) = (path.parent(), path.file_name()) else {
        return Err(io::ErrorKind::InvalidInput.into());
    };
    let folder: OwnedFd = open(folder, OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC, Mode::empty())?;
    let short = PathBuf::from(format!("/proc/self/fd/{}", folder.as_raw_fd())).join(name);
    act(&short)
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
    fn a_path_of_any_length_can_be_listened_at_and_connected_to() {
        let folder = tempfile::tempdir().unwrap();
        let deep = folder.path().join("x".repeat(120)).join("y".repeat(90));
        fs::create_dir_all(&deep).unwrap();
        let path = deep.join("control.sock");
        let _listener = listen(&path).unwrap();
        let stream = connect(&path).unwrap();
        assert_eq!(peer_uid(&stream).unwrap(), crate::sys::user::effective_uid());
        assert_eq!(super::super::files::mode(&path).unwrap(), 0o600);
        listen(&path).unwrap();
    }
}

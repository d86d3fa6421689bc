//! `run/api.sock`: made here, served by the server, watched over by the supervisor.

use crate::home::Home;
use crate::sys::unix_socket;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::os::unix::net::UnixListener;
use std::path::Path;

pub struct ApiSocket {
    pub listener: UnixListener,
    inode: u64,
}

impl ApiSocket {
    pub fn open(home: &Home) -> io::Result<Self> {
        let listener = unix_socket::listen(&home.api_socket())?;
        listener.set_nonblocking(true)?;
        let inode = inode_of(&home.api_socket()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { listener, inode })
    }

    /// Opens it again when somebody has removed or replaced it. Whether it had to: a server that
    /// runs has the old listener and needs to be replaced.
    pub fn ensure(&mut self, home: &Home) -> bool {
        if inode_of(&home.api_socket()) == Some(self.inode) {
            return false;
        }
        let Ok(again) = Self::open(home) else { return false };
        *self = again;
        true
    }
}

pub fn inode_of(path: &Path) -> Option<u64> {
    std::fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

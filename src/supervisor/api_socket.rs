//! `run/api.sock`: made here, served by the server, watched over by the supervisor.

use crate::home::Home;
use crate::sys::{files, unix_socket};
use std::io;
use std::os::unix::net::UnixListener;

pub struct ApiSocket {
    pub listener: UnixListener,
    inode: u64,
}

impl ApiSocket {
    pub fn open(home: &Home) -> io::Result<Self> {
        let listener = unix_socket::listen(&home.api_socket())?;
        listener.set_nonblocking(true)?;
        let inode = files::inode(&home.api_socket()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { listener, inode })
    }

    /// The one that the program before us had opened.
    pub fn inherit(home: &Home, listener: UnixListener) -> io::Result<Self> {
        // One that was removed meanwhile is opened again at the next look.
        let inode = files::inode(&home.api_socket()).unwrap_or_default();
        Ok(Self { listener, inode })
    }

    /// Opens it again when somebody has removed or replaced it. Whether it had to: a server that
    /// runs has the old listener and needs to be replaced.
    pub fn ensure(&mut self, home: &Home) -> bool {
        if files::inode(&home.api_socket()) == Some(self.inode) {
            return false;
        }
        let Ok(again) = Self::open(home) else { return false };
        *self = again;
        true
    }
}

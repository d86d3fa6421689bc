//! `run/api.sock`: created and monitored by the supervisor, served by the server.

use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::net::unix_socket;
use std::io;
use std::os::unix::net::UnixListener;

/// The listener, and the inode of its file, which tells whether the file was replaced.
pub struct ApiSocket {
    pub listener: UnixListener,
    inode: u64,
}

impl ApiSocket {
    /// Creates the socket file; replaces an existing one.
    pub fn open(home: &Home) -> io::Result<Self> {
        let listener = unix_socket::listen(&home.api_socket())?;
        listener.set_nonblocking(true)?;
        let inode = files::inode(&home.api_socket()).ok_or(io::ErrorKind::NotFound)?;
        Ok(Self { listener, inode })
    }

    /// Takes over the listener of the previous supervisor.
    pub fn inherit(home: &Home, listener: UnixListener) -> io::Result<Self> {
        // If the socket was removed meanwhile, the next check recreates it.
        let inode = files::inode(&home.api_socket()).unwrap_or_default();
        Ok(Self { listener, inode })
    }

    /// Recreates the socket if it was removed or replaced. Returns true if so: the running server has the old listener
    /// and must be restarted.
    pub fn ensure(&mut self, home: &Home) -> bool {
        if files::inode(&home.api_socket()) == Some(self.inode) {
            return false;
        }
        let Ok(reopened) = Self::open(home) else { return false };
        *self = reopened;
        true
    }
}

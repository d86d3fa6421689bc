//! Stands for the owners of TCP connections on a system that does not name them.

use std::net::SocketAddr;

/// Always `None`: the user is not known.
pub fn uid_of_client(_client: SocketAddr, _server: SocketAddr) -> Option<u32> {
    None
}

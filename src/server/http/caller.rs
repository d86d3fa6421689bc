//! The origin of a request.

use leoflow_base::sys::blocking;
use leoflow_base::sys::net::peer_owner;
use std::net::SocketAddr;
use std::sync::Arc;
use tokio::sync::OnceCell;

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over TCP.
    Network,
    /// Over `run/api.sock` or a private socket, from a process of this user or of root; the kernel reports the peer's
    /// uid.
    LocalAdmin,
}

/// The endpoints of a TCP connection.
#[derive(Debug, Clone)]
pub struct Peer {
    pub client: SocketAddr,
    /// The local endpoint.
    pub server: SocketAddr,
    uid: Arc<OnceCell<Option<u32>>>,
}

impl Peer {
    pub fn new(client: SocketAddr, server: SocketAddr) -> Self {
        Self { client, server, uid: Arc::default() }
    }

    pub fn is_on_this_machine(&self) -> bool {
        self.client.ip().is_loopback() || self.client.ip() == self.server.ip()
    }

    /// Returns the uid that owns the client's end of the connection; `None` for a client on another machine, or if the
    /// lookup fails. Looked up once per connection.
    pub async fn uid(&self) -> Option<u32> {
        let (client, server) = (self.client, self.server);
        if !self.is_on_this_machine() {
            return None;
        }
        let find = async || blocking::run(move || peer_owner::uid_of_client(client, server)).await.ok().flatten();
        *self.uid.get_or_init(find).await
    }
}

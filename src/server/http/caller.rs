//! The origin of a request.

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over TCP.
    Network,
    /// Over `run/api.sock` or a private socket, from a process of this user or of root; the kernel reports the peer's
    /// uid.
    LocalAdmin,
}

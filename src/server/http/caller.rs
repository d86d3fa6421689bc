//! The origin of a request.

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    /// Over TCP.
    Network,
    /// Over `run/api.sock`, from a process of this user; the kernel reports the peer's uid.
    LocalAdmin,
}

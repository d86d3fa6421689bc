//! Who asks.

/// Where a request came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Caller {
    Network,
    /// Over `run/api.sock`, by this very user, whom the kernel vouches for.
    LocalAdmin,
}

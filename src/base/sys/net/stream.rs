//! Keepalive of long-lived TCP connections.

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Idle seconds before the first keepalive probe.
const IDLE_SECONDS: u32 = 30;
/// Seconds between probes.
const INTERVAL_SECONDS: u32 = 10;
/// Number of unanswered probes after which the connection is closed.
const PROBE_COUNT: u32 = 3;

/// Makes the kernel close the connection when the other end disappears without closing it.
pub fn enable_keepalive(connection: &impl AsFd) -> io::Result<()> {
    setsockopt(connection, sockopt::KeepAlive, &true)?;
    #[cfg(target_os = "linux")]
    {
        setsockopt(connection, sockopt::TcpKeepIdle, &IDLE_SECONDS)?;
        // Applies while sent data is not acknowledged, when no keepalive probes are sent.
        setsockopt(connection, sockopt::TcpUserTimeout, &(1000 * (IDLE_SECONDS + INTERVAL_SECONDS * PROBE_COUNT)))?;
    }
    setsockopt(connection, sockopt::TcpKeepInterval, &INTERVAL_SECONDS)?;
    setsockopt(connection, sockopt::TcpKeepCount, &PROBE_COUNT)?;
    Ok(())
}

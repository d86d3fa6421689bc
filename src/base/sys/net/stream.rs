//! Keepalive of long-lived TCP connections.

use socket2::{SockRef, TcpKeepalive};
use std::io;
use std::os::fd::AsFd;
use std::time::Duration;

/// Idle time before the first keepalive probe.
const IDLE: Duration = Duration::from_secs(30);
/// Time between probes.
const INTERVAL: Duration = Duration::from_secs(10);
/// Number of unanswered probes after which the connection is closed.
const PROBE_COUNT: u32 = 3;

/// Makes the kernel close the connection when the other end disappears without closing it.
pub fn enable_keepalive(connection: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(connection);
    socket.set_tcp_keepalive(&TcpKeepalive::new().with_time(IDLE).with_interval(INTERVAL).with_retries(PROBE_COUNT))?;
    // Applies while sent data is not acknowledged, when no keepalive probes are sent.
    #[cfg(target_os = "linux")]
    socket.set_tcp_user_timeout(Some(IDLE + INTERVAL * PROBE_COUNT))?;
    Ok(())
}

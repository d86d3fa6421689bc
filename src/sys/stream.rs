//! TCP connections that are open for long.

use nix::sys::socket::{setsockopt, sockopt};
use std::io;
use std::os::fd::AsFd;

/// Seconds without a word before it is asked whether the other end is still there, and between such questions.
const IDLE: u32 = 30;
const BETWEEN: u32 = 10;
const QUESTIONS: u32 = 3;

/// Has the kernel end the connection when the other end is gone without having said so.
pub fn notice_when_gone(connection: &impl AsFd) -> io::Result<()> {
    setsockopt(connection, sockopt::KeepAlive, &true)?;
    #[cfg(target_os = "linux")]
    {
        setsockopt(connection, sockopt::TcpKeepIdle, &IDLE)?;
        // Also while something was sent that is not acknowledged.
        setsockopt(connection, sockopt::TcpUserTimeout, &(1000 * (IDLE + BETWEEN * QUESTIONS)))?;
    }
    setsockopt(connection, sockopt::TcpKeepInterval, &BETWEEN)?;
    setsockopt(connection, sockopt::TcpKeepCount, &QUESTIONS)?;
    Ok(())
}

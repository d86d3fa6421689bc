//! Finds the owners of TCP ports with lsof(8), which is part of macOS.

use crate::sys::process::{self, command};
use std::process::Command;
use std::time::Duration;

const LIMIT: Duration = Duration::from_secs(5);

/// Pid and arguments of a process that listens on `port`; several may share the socket. `None` when there is none, or
/// when it belongs to another user.
pub fn listening_process(port: u16) -> Option<(i32, Vec<String>)> {
    let mut lsof = Command::new("/usr/sbin/lsof");
    lsof.args(["-nP", "-sTCP:LISTEN", "-t", &format!("-iTCP:{port}")]);
    let output = command::output_within(&mut lsof, LIMIT).ok()?;
    let pid = String::from_utf8_lossy(&output.stdout).lines().next()?.trim().parse().ok()?;
    Some((pid, process::arguments(pid)?))
}

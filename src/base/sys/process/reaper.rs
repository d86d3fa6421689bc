//! Waits for children by pid. `std::process::Child` cannot be rebuilt after a re-exec and does not know adopted
//! grandchildren; the kernel's list includes both.

use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::fmt;

/// The exit status of a process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Exit {
    Code(i32),
    /// Killed by the signal with this number.
    Signal(i32),
}

impl Exit {
    /// True for exit code 0.
    pub fn success(self) -> bool {
        self == Self::Code(0)
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Signal(number) => match nix::sys::signal::Signal::try_from(*number) {
                Ok(signal @ nix::sys::signal::Signal::SIGXFSZ) => {
                    write!(f, "{signal} (the limit on file sizes, ulimit -f)")
                }
                Ok(signal @ nix::sys::signal::Signal::SIGXCPU) => {
                    write!(f, "{signal} (the limit on processor time, ulimit -t)")
                }
                Ok(signal) => write!(f, "{signal}"),
                Err(_) => write!(f, "signal {number}"),
            },
        }
    }
}

impl From<std::process::ExitStatus> for Exit {
    fn from(status: std::process::ExitStatus) -> Self {
        use std::os::unix::process::ExitStatusExt;
        match (status.code(), status.signal()) {
            (Some(code), _) => Self::Code(code),
            (None, Some(signal)) => Self::Signal(signal),
            // Stopped and continued processes are not waited for here.
            (None, None) => Self::Code(-1),
        }
    }
}

/// The exit status of a child; `None` while it runs. Returned only once.
pub fn ended_child(pid: i32) -> Option<Exit> {
    exit_of(waitpid(Pid::from_raw(pid), Some(WaitPidFlag::WNOHANG)).ok()?).map(|(_, exit)| exit)
}

/// The process that has ended, and its exit status; `None` for a status that is no end.
fn exit_of(status: WaitStatus) -> Option<(i32, Exit)> {
    match status {
        WaitStatus::Exited(pid, code) => Some((pid.as_raw(), Exit::Code(code))),
        WaitStatus::Signaled(pid, signal, _) => Some((pid.as_raw(), Exit::Signal(signal as i32))),
        _ => None,
    }
}

/// All children, including adopted ones, that have exited since the last call. Reaps *all* children, so nothing else in
/// the process may wait for any.
pub fn ended_children() -> Vec<(i32, Exit)> {
    let mut ended = Vec::new();
    loop {
        match waitpid(Pid::from_raw(-1), Some(WaitPidFlag::WNOHANG)) {
            Ok(WaitStatus::StillAlive) => return ended,
            Ok(status) => ended.extend(exit_of(status)),
            Err(nix::Error::EINTR) => {}
            // There is no child.
            Err(_) => return ended,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn signals_of_limits_name_the_limit() {
        assert_eq!(Exit::Signal(24).to_string(), "SIGXCPU (the limit on processor time, ulimit -t)");
        assert_eq!(Exit::Signal(25).to_string(), "SIGXFSZ (the limit on file sizes, ulimit -f)");
        assert_eq!(Exit::Signal(9).to_string(), "SIGKILL");
        let killed = std::process::Command::new("sh").args(["-c", "kill -XFSZ $$"]).status().unwrap();
        assert_eq!(Exit::from(killed), Exit::Signal(25));
    }
}

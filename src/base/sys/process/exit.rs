//! Waits for the exit of processes, also of those that are not our children.

use super::ProcessId;
use crate::sys::is_portable;
use std::io;
use std::time::Duration;

/// Pauses between checks where the system does not report the exit; each doubles the one before.
const FIRST_PAUSE: Duration = Duration::from_millis(1);
const LONGEST_PAUSE: Duration = Duration::from_millis(50);
/// Pause between checks that the parent runs.
const PARENT_CHECK_INTERVAL: Duration = Duration::from_millis(500);

/// Completes when the process has exited, also as a zombie. Must be called inside a runtime.
pub async fn wait_gone(process: &ProcessId) {
    // The process is compared after the descriptor was opened, because that cannot refer to a later process with the same
    // pid.
    if let Ok(exit) = Exit::of(process.pid)
        && process.is_alive()
        && exit.wait().await.is_ok()
    {
        return;
    }
    poll_until(|| !process.is_alive()).await;
}

/// Completes when a child that was not waited for has exited.
pub async fn wait_child(pid: i32) {
    let reported = async { Exit::of(pid)?.wait().await };
    if reported.await.is_err() {
        poll_until(|| super::is_zombie(pid) || !super::is_pid_alive(pid)).await;
    }
}

/// Completes when the process that has started this one has exited, where the kernel sends no signal for it; elsewhere
/// never.
pub async fn wait_parent_gone() {
    if !is_portable() {
        return std::future::pending().await;
    }
    let parent = std::os::unix::process::parent_id();
    // An orphan is a child of process 1.
    while parent != 1 && std::os::unix::process::parent_id() == parent {
        tokio::time::sleep(PARENT_CHECK_INTERVAL).await;
    }
}

async fn poll_until(is_done: impl Fn() -> bool) {
    let mut pause = FIRST_PAUSE;
    while !is_done() {
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}

/// A descriptor of a process that becomes readable when it exits, pidfd_open(2).
#[cfg(target_os = "linux")]
struct Exit(std::os::fd::OwnedFd);

#[cfg(target_os = "linux")]
impl Exit {
    /// Fails on kernels before 5.3, where a sandbox forbids the call, and when there is no descriptor left.
    fn of(pid: i32) -> io::Result<Self> {
        use std::os::fd::{FromRawFd, OwnedFd};
        if is_portable() {
            return Err(io::ErrorKind::Unsupported.into());
        }
        // SAFETY: a system call on numbers; it returns a new descriptor of ours.
        let raw = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
        let raw = i32::try_from(raw).unwrap_or(-1);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    async fn wait(self) -> io::Result<()> {
        // SAFETY: an `OwnedFd` gives the same descriptor for as long as it lives.
        let ready = unsafe { tokio::io::unix::AsyncFd::register_with_interest(self.0, tokio::io::Interest::READABLE) }?;
        let _ = ready.readable().await?;
        Ok(())
    }
}

/// Elsewhere the table of processes is read again and again.
#[cfg(not(target_os = "linux"))]
struct Exit;

#[cfg(not(target_os = "linux"))]
impl Exit {
    fn of(_pid: i32) -> io::Result<Self> {
        debug_assert!(is_portable());
        Err(io::ErrorKind::Unsupported.into())
    }

    async fn wait(self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn completes_at_the_exit_of_exactly_this_process() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let process = ProcessId::of(child.id() as i32).unwrap();
        runtime.block_on(async {
            let is_gone = async || tokio::time::timeout(Duration::from_millis(50), wait_gone(&process)).await.is_ok();
            assert!(!is_gone().await);
            child.kill().unwrap();
            wait_child(process.pid).await;
            wait_gone(&process).await;
        });
        child.wait().unwrap();
        let me = ProcessId::current().unwrap();
        runtime.block_on(wait_gone(&ProcessId { start_ticks: me.start_ticks + 1, ..me }));
    }

    #[tokio::test]
    async fn polls_where_the_exit_is_not_reported() {
        let mut child = std::process::Command::new("sleep").arg("0.1").spawn().unwrap();
        let pid = child.id() as i32;
        poll_until(|| super::super::is_zombie(pid)).await;
        assert!(child.wait().unwrap().success());
    }
}

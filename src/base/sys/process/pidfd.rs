//! Process descriptors that become readable when the process exits, pidfd_open(2). Also for processes that are not our
//! children.

use super::ProcessId;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, FromRawFd, OwnedFd};
use tokio::io::unix::AsyncFd;

/// A descriptor of one specific process, which can be waited for.
#[derive(Debug)]
pub struct PidFd(OwnedFd);

impl PidFd {
    /// Opens a descriptor; `Ok(None)` when that process has exited. An error on kernels before 5.3, and when there is
    /// no descriptor left.
    pub fn open(process: &ProcessId) -> io::Result<Option<Self>> {
        let opened = Self::of_pid(process.pid);
        match opened {
            // The process is compared after the opening, because the open descriptor cannot refer to a later process
            // with the same pid.
            Ok(_) if !process.is_alive() => Ok(None),
            Ok(fd) => Ok(Some(fd)),
            Err(error) if error.raw_os_error() == Some(nix::libc::ESRCH) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Opens a descriptor of a child that was not waited for, so its pid is not reused.
    pub fn of_pid(pid: i32) -> io::Result<Self> {
        // SAFETY: a system call on numbers; it returns a new descriptor of ours.
        let raw = unsafe { nix::libc::syscall(nix::libc::SYS_pidfd_open, pid, 0) };
        let raw = i32::try_from(raw).unwrap_or(-1);
        if raw < 0 {
            return Err(io::Error::last_os_error());
        }
        // SAFETY: just opened, and nothing else owns it.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(raw) }))
    }

    /// Completes when the process has exited, also as a zombie. Must be called inside a runtime.
    pub async fn ended(self) -> io::Result<()> {
        // SAFETY: an `OwnedFd` gives the same descriptor for as long as it lives.
        let ready = unsafe { AsyncFd::register_with_interest(self.0, tokio::io::Interest::READABLE) }?;
        let _ = ready.readable().await?;
        Ok(())
    }
}

impl AsFd for PidFd {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
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
        let fd = PidFd::open(&process).unwrap().unwrap();
        runtime.block_on(async {
            child.kill().unwrap();
            fd.ended().await.unwrap();
        });
        child.wait().unwrap();
        assert!(PidFd::open(&process).unwrap().is_none());
        let me = ProcessId::current().unwrap();
        assert!(PidFd::open(&ProcessId { start_ticks: me.start_ticks + 1, ..me }).unwrap().is_none());
    }
}

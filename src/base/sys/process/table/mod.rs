//! The table of processes as the system shows it: `/proc` on Linux, libproc on macOS.

#[cfg(any(target_os = "macos", test))]
mod procargs;
#[cfg_attr(target_os = "linux", path = "linux.rs")]
#[cfg_attr(target_os = "macos", path = "macos.rs")]
mod system;

pub use system::{
    all_pids, arguments, boot_id, children, environment, has_begun_to_exit, program, resident_bytes, working_folder,
};

/// What a process does.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    Alive,
    /// Stopped by SIGSTOP, a terminal or a debugger.
    Stopped,
    /// It has exited and was not waited for yet.
    Zombie,
}

/// A process in the table.
pub struct Entry {
    pub state: State,
    pub parent: i32,
    /// 0 when the system does not say, as macOS for a zombie.
    pub session: i32,
    /// User and kernel time in clock ticks, sysconf(3); on Linux with that of reaped children.
    pub processor_ticks: u64,
    /// When it was started: on Linux in clock ticks since the boot, on macOS in microseconds since 1970.
    pub start: u64,
}

impl Entry {
    /// The entry of a process; `None` if it does not exist or may not be read.
    pub fn of(pid: i32) -> Option<Self> {
        system::entry(pid)
    }

    pub fn is_zombie(&self) -> bool {
        self.state == State::Zombie
    }
}

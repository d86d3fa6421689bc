//! Processes. A pid alone does not identify a process, because it is reused; a pid with the start time and the boot id
//! does.

pub mod command;
pub mod descriptors;
pub mod exit;
pub mod free_memory;
pub mod limits;
pub mod memory;
mod parent_death;
pub mod process_memory;
pub mod processor;
pub mod reaper;
pub mod replace;
pub mod spawn;
mod spawn_image;
pub mod stdio;
mod table;
mod text_busy;
pub mod user_namespace;

use super::{blocking, is_portable};
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::io;
use std::path::Path;
use std::time::{Duration, Instant};
pub(super) use table::all_pids;
use table::{Entry, State, boot_id};
pub use table::{arguments, has_begun_to_exit, program as program_of, resident_bytes};

/// The signals that Leoflow sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Signal {
    Interrupt,
    Quit,
    Terminate,
    Kill,
    Continue,
}

impl Signal {
    pub(super) fn to_nix(self) -> nix::sys::signal::Signal {
        use nix::sys::signal::Signal as Nix;
        match self {
            Self::Interrupt => Nix::SIGINT,
            Self::Quit => Nix::SIGQUIT,
            Self::Terminate => Nix::SIGTERM,
            Self::Kill => Nix::SIGKILL,
            Self::Continue => Nix::SIGCONT,
        }
    }
}

/// Identifies one process, even after its pid is reused.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct ProcessId {
    pub pid: i32,
    /// When it was started, in the system's unit; see [`table::Entry::start`].
    pub start_ticks: u64,
    pub boot_id: String,
}

impl ProcessId {
    /// The process that currently has `pid`; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let start_ticks = Entry::of(pid)?.start;
        Some(Self { pid, start_ticks, boot_id: boot_id().to_owned() })
    }

    /// This process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id() as i32)
    }

    /// True while this process exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        Entry::of(self.pid)
            .is_some_and(|entry| entry.start == self.start_ticks && !entry.is_zombie() && self.boot_id == boot_id())
    }

    /// Signals this process; does nothing when it has exited.
    pub fn signal(&self, signal: Signal) {
        if self.is_alive() {
            signal_process(self.pid, signal);
        }
    }

    /// Waits until the process has exited; `false` when it is still alive after `limit`.
    pub fn wait_gone(&self, limit: Duration) -> bool {
        blocking::poll(limit, Duration::from_millis(20), || (!self.is_alive()).then_some(())).is_some()
    }
}

/// The processor time used by a process, in clock ticks; `None` when it does not exist or cannot be read.
pub fn processor_ticks(pid: i32) -> Option<u64> {
    Entry::of(pid).map(|entry| entry.processor_ticks)
}

/// True when a process that is not a zombie has `pid`.
pub fn is_pid_alive(pid: i32) -> bool {
    Entry::of(pid).is_some_and(|entry| !entry.is_zombie())
}

/// All processes that we may inspect whose working directory is `folder`.
pub fn working_in(folder: &Path) -> Vec<ProcessId> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    all_pids()
        .filter(|pid| table::working_folder(*pid).is_some_and(|current| current == folder))
        .filter_map(ProcessId::of)
        .filter(ProcessId::is_alive)
        .collect()
}

/// The children of this process, without zombies.
pub fn children() -> Vec<i32> {
    children_and_zombies().into_iter().filter(|pid| !is_zombie(*pid)).collect()
}

/// Children in other sessions than ours, including zombies. Leoflow's own programs stay in its session, and a
/// process that has left the session cannot return.
pub fn children_in_other_sessions() -> Vec<i32> {
    children_and_zombies().into_iter().filter(|pid| is_child_in_other_session(*pid)).collect()
}

/// The children of this process, including adopted ones and zombies. Reads the kernel's own list where it has one: a
/// scan of all processes takes so long that a child which forks and exits again and again is never found alive.
pub fn children_and_zombies() -> Vec<i32> {
    let own_pid = std::process::id() as i32;
    table::children(own_pid).unwrap_or_else(|| {
        all_pids().filter(|pid| Entry::of(*pid).is_some_and(|entry| entry.parent == own_pid)).collect()
    })
}

fn is_child_in_other_session(pid: i32) -> bool {
    let session = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
    Entry::of(pid)
        .is_some_and(|entry| entry.parent == std::process::id() as i32 && ![0, session].contains(&entry.session))
}

/// Environment variable of a child that ends with the process of this pid, where the kernel does not end it.
pub(crate) const ENDS_WITH: &str = "LEOFLOW_ENDS_WITH";

/// Kills the children that end with this process, which is about to exit; see [`command::dies_with_this_thread`].
pub fn kill_dependent_children() {
    let own = std::process::id().to_string();
    let candidates = if is_portable() { children() } else { Vec::new() };
    for pid in candidates.into_iter().filter(|pid| variable_of(*pid, ENDS_WITH).as_deref() == Some(&own)) {
        signal_process(pid, Signal::Kill);
    }
}

/// True when the process has exited and was not waited for yet.
pub fn is_zombie(pid: i32) -> bool {
    Entry::of(pid).is_some_and(|entry| entry.is_zombie())
}

/// The value of a variable in the environment that a process was started with, as far as we may inspect it.
pub fn variable_of(pid: i32, name: &str) -> Option<String> {
    let environment = table::environment(pid)?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// How many scans in a row must find no process before none is left: a scan can miss one that forks and exits.
pub const EMPTY_SCANS: usize = 3;

/// Kills all processes of this user in whose environment `name` has a value that `is_mark` accepts, as far as we may
/// inspect them, until none is left or the limit is reached.
pub fn kill_marked(name: &str, is_mark: impl Fn(&str) -> bool, limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut empty_scans = EMPTY_SCANS - 1;
    while empty_scans < EMPTY_SCANS && Instant::now() < deadline {
        let mut is_empty = true;
        for pid in all_pids() {
            // Each at once: a process that forks and exits is gone at the end of the scan.
            if variable_of(pid, name).is_some_and(|value| is_mark(&value)) && is_pid_alive(pid) {
                signal_process(pid, Signal::Kill);
                is_empty = false;
            }
        }
        empty_scans = if is_empty { empty_scans + 1 } else { 0 };
        if !is_empty {
            std::thread::sleep(Duration::from_millis(1));
        }
    }
}

/// All processes in a process group, and those in whose environment `name` has this value, as far as we may inspect them.
pub fn marked_or_in_group(name: &str, value: &str, group: i32) -> Vec<i32> {
    let is_marked = |pid: i32| variable_of(pid, name).is_some_and(|found| found == value);
    all_pids().filter(|pid| (group_of(*pid) == Some(group) || is_marked(*pid)) && is_pid_alive(*pid)).collect()
}

/// Sets the name of this process that `ps` and `top` show. The kernel names a process after the file that was executed,
/// which is `exe` for one that was started by /proc/self/exe.
pub fn set_own_name(name: &str) {
    // A longer name is cut to 15 bytes; one with a NUL has no effect.
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
    let _ = name;
}

/// Environment variables by name.
pub type Environment = HashMap<String, String>;

/// The environment that a process was started with. `None` when it may not be read, or the process has exited.
pub fn environment_of(pid: i32) -> Option<Environment> {
    let bytes = table::environment(pid).filter(|bytes| !bytes.is_empty())?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let entries = bytes.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((text(&entry[..at])?, text(&entry[at + 1..])?))
    });
    Some(entries.collect())
}

/// True when the process is stopped by SIGSTOP, a terminal or a debugger.
pub fn is_stopped(pid: i32) -> bool {
    Entry::of(pid).is_some_and(|entry| entry.state == State::Stopped)
}

/// The process group of a process; `None` when it does not exist.
pub fn group_of(pid: i32) -> Option<i32> {
    nix::unistd::getpgid(Some(Pid::from_raw(pid))).ok().map(Pid::as_raw)
}

/// Makes a child the leader of a process group. The child does it too; only the first of the two has an effect.
pub fn lead_group(child: i32) {
    let _ = nix::unistd::setpgid(Pid::from_raw(child), Pid::from_raw(child));
}

/// Signals one process; ignores one that has exited.
pub fn signal_process(pid: i32, signal: Signal) {
    let _ = nix::sys::signal::kill(Pid::from_raw(pid), signal.to_nix());
}

/// Signals a whole process group; ignores one that no longer exists.
pub fn signal_group(leader: i32, signal: Signal) {
    let _ = nix::sys::signal::killpg(Pid::from_raw(leader), signal.to_nix());
}

/// Kills this process with SIGKILL: no destructors, no handlers.
#[cfg(any(debug_assertions, feature = "checkpoints"))]
pub(crate) fn kill_self() -> ! {
    let _ = nix::sys::signal::kill(Pid::this(), nix::sys::signal::Signal::SIGKILL);
    std::process::abort()
}

/// Makes orphaned descendants children of this process instead of init, so that double-forked processes can be waited
/// for and stopped. The portable half has no such call, see [`marked_or_in_group`].
pub fn become_subreaper() -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if !super::is_portable() {
        nix::sys::prctl::set_child_subreaper(true)?;
    }
    Ok(())
}

/// True when SIGHUP is ignored, as under `nohup`, unless this process has set a handler.
pub fn hangup_is_ignored() -> bool {
    let mut action = std::mem::MaybeUninit::<nix::libc::sigaction>::zeroed();
    // SAFETY: without a new action, sigaction(2) only fills the structure with the present one.
    unsafe {
        nix::libc::sigaction(nix::libc::SIGHUP, std::ptr::null(), action.as_mut_ptr()) == 0
            && action.assume_init().sa_sigaction == nix::libc::SIG_IGN
    }
}

/// Runs `work` with SIGINT and SIGQUIT ignored in this process; programs started by it have the default handlers.
pub fn ignoring_interrupts<T>(work: impl FnOnce() -> T) -> T {
    use nix::sys::signal::{SigHandler, Signal as Nix, signal};
    let interrupt_signals = [Nix::SIGINT, Nix::SIGQUIT];
    // A handler that does nothing, not SIG_IGN: an ignored signal stays ignored across exec.
    extern "C" fn do_nothing(_: nix::libc::c_int) {}
    // SAFETY: the handler does nothing, which any context allows.
    let previous = interrupt_signals.map(|number| unsafe { signal(number, SigHandler::Handler(do_nothing)) });
    let outcome = work();
    for (number, previous) in interrupt_signals.iter().zip(previous) {
        if let Ok(handler) = previous {
            // SAFETY: restores the previous handler.
            let _ = unsafe { signal(*number, handler) };
        }
    }
    outcome
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_is_identified_by_pid_start_time_and_boot() {
        let me = ProcessId::current().unwrap();
        assert!(me.is_alive());
        let other_life = ProcessId { start_ticks: me.start_ticks + 1, ..me.clone() };
        assert!(!other_life.is_alive());
        let other_boot = ProcessId { boot_id: "x".into(), ..me };
        assert!(!other_boot.is_alive());
    }

    #[test]
    fn finds_processes_by_their_working_directory() {
        let folder = tempfile::tempdir().unwrap();
        let mut child = std::process::Command::new("sleep").arg("60").current_dir(folder.path()).spawn().unwrap();
        let processes = working_in(folder.path());
        assert_eq!(processes.iter().map(|p| p.pid).collect::<Vec<_>>(), [child.id() as i32]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(working_in(folder.path()).is_empty());
    }
}

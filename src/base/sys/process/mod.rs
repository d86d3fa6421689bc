//! Processes in `/proc`. A pid alone does not identify a process, because it is reused; a pid with the start time and
//! the boot id does.

pub mod command;
pub mod descriptors;
pub mod free_memory;
pub mod limits;
pub mod memory;
pub mod pidfd;
pub mod process_memory;
pub mod processor;
pub mod reaper;
pub mod replace;
pub mod spawn;
mod spawn_image;
pub mod stdio;
mod text_busy;
pub mod user_namespace;

use super::blocking;
use nix::unistd::Pid;
use serde::{Deserialize, Serialize};
use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::OnceLock;
use std::time::{Duration, Instant};

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
    /// Clock ticks between boot and the process's start, field 22 of `/proc/PID/stat`.
    pub start_ticks: u64,
    pub boot_id: String,
}

impl ProcessId {
    /// The process that currently has `pid`; `None` when there is none.
    pub fn of(pid: i32) -> Option<Self> {
        let stat = Stat::read(pid)?;
        Some(Self { pid, start_ticks: stat.start_ticks, boot_id: boot_id().to_owned() })
    }

    /// This process.
    pub fn current() -> Option<Self> {
        Self::of(std::process::id() as i32)
    }

    /// True while this process exists and is not a zombie.
    pub fn is_alive(&self) -> bool {
        Stat::read(self.pid)
            .is_some_and(|stat| stat.start_ticks == self.start_ticks && stat.state != 'Z' && self.boot_id == boot_id())
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

/// A part of `/proc/PID/stat`.
pub(super) struct Stat {
    state: char,
    parent: i32,
    pub(super) session: i32,
    /// Flags of the kernel, `PF_…` in its linux/sched.h: field 9.
    flags: u64,
    /// User and kernel time, including reaped children: fields 14 to 17.
    pub(super) processor_ticks: u64,
    start_ticks: u64,
}

impl Stat {
    /// Parses the fields numbered in proc_pid_stat(5). The name in field 2 may contain spaces and parentheses, so
    /// counting starts after the last parenthesis.
    pub(super) fn read(pid: i32) -> Option<Self> {
        let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
        let mut fields = text[text.rfind(')')? + 1..].split_ascii_whitespace();
        let state = fields.next()?.chars().next()?;
        let parent = fields.next()?.parse().ok()?;
        let session = fields.nth(1)?.parse().ok()?;
        let flags = fields.nth(2)?.parse().ok()?;
        let processor: Vec<u64> = fields.by_ref().skip(4).take(4).filter_map(|field| field.parse().ok()).collect();
        let start_ticks = fields.nth(4)?.parse().ok()?;
        Some(Self { state, parent, session, flags, processor_ticks: processor.iter().sum(), start_ticks })
    }
}

/// The kernel's id of the current boot, which is read once.
fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    BOOT_ID.get_or_init(read)
}

/// The path of a process's program as shown by the kernel.
pub fn program_of(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/exe")).ok()
}

/// The arguments of a process, from the name of its program on; only the name where it has none, such as a thread of the
/// kernel. `None` when the process does not exist.
pub fn arguments(pid: i32) -> Option<Vec<String>> {
    let raw = fs::read(format!("/proc/{pid}/cmdline")).ok()?;
    // A process that writes a title over its arguments leaves zeros after it.
    let end = raw.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    match &raw[..end] {
        [] => fs::read_to_string(format!("/proc/{pid}/comm")).ok().map(|name| vec![name.trim().to_owned()]),
        raw => Some(raw.split(|byte| *byte == 0).map(|word| String::from_utf8_lossy(word).into_owned()).collect()),
    }
}

/// The processor time used by a process, in clock ticks; `None` when it does not exist or cannot be read.
pub fn processor_ticks(pid: i32) -> Option<u64> {
    Stat::read(pid).map(|stat| stat.processor_ticks)
}

/// True when a process that is not a zombie has `pid`.
pub fn is_pid_alive(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.state != 'Z')
}

/// All processes that we may inspect whose working directory is `folder`.
pub fn working_in(folder: &Path) -> Vec<ProcessId> {
    let Ok(folder) = folder.canonicalize() else { return Vec::new() };
    all_pids()
        .filter(|pid| fs::read_link(format!("/proc/{pid}/cwd")).is_ok_and(|cwd| cwd == folder))
        .filter_map(ProcessId::of)
        .filter(ProcessId::is_alive)
        .collect()
}

/// The children of this process, without zombies.
pub fn children() -> Vec<i32> {
    children_and_zombies().into_iter().filter(|pid| !is_zombie(*pid)).collect()
}

/// The children of all threads of a process, including zombies; `None` where the kernel does not list them
/// (`CONFIG_PROC_CHILDREN`), and when there is no such process.
pub(super) fn listed_children(pid: i32) -> Option<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).peekable();
    lists.peek()?;
    let parse = |list: String| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    Some(lists.flat_map(parse).collect())
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
    listed_children(own_pid).unwrap_or_else(|| {
        all_pids().filter(|pid| Stat::read(*pid).is_some_and(|stat| stat.parent == own_pid)).collect()
    })
}

fn is_child_in_other_session(pid: i32) -> bool {
    let session = nix::unistd::getsid(None).map_or(0, Pid::as_raw);
    Stat::read(pid).is_some_and(|stat| stat.parent == std::process::id() as i32 && stat.session != session)
}

/// True when the process has exited and was not waited for yet.
pub fn is_zombie(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| stat.state == 'Z')
}

/// True when the process is exiting, a zombie or gone. Such a process no longer shows its environment, and a process that
/// it has started becomes a child of ours only once it is a zombie, which on a busy machine may be much later.
pub fn has_begun_to_exit(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    Stat::read(pid).is_none_or(|stat| stat.flags & PF_EXITING != 0)
}

/// The value of a variable in the environment that a process was started with, as far as we may inspect it.
pub fn variable_of(pid: i32, name: &str) -> Option<String> {
    let environment = fs::read(format!("/proc/{pid}/environ")).ok()?;
    let mut entries = environment.split(|byte| *byte == 0);
    let value = entries.find_map(|entry| entry.strip_prefix(name.as_bytes())?.strip_prefix(b"="))?;
    String::from_utf8(value.to_vec()).ok()
}

/// How many scans in a row must find no process before none is left: a scan can miss one that forks and exits.
const EMPTY_SCANS: usize = 3;

/// Kills all processes of this user in whose environment `name` has one of the values, as far as we may inspect them,
/// until none is left or the limit is reached.
pub fn kill_marked(name: &str, values: &[String], limit: Duration) {
    let deadline = Instant::now() + limit;
    let mut empty_scans = EMPTY_SCANS - 1;
    while empty_scans < EMPTY_SCANS && Instant::now() < deadline {
        let mut is_empty = true;
        for pid in all_pids() {
            // Each at once: a process that forks and exits is gone at the end of the scan.
            if variable_of(pid, name).is_some_and(|value| values.contains(&value)) && is_pid_alive(pid) {
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

/// Sets the name of this process that `ps` and `top` show. The kernel names a process after the file that was executed,
/// which is `exe` for one that was started by /proc/self/exe.
pub fn set_own_name(name: &str) {
    // A longer name is cut to 15 bytes; one with a NUL has no effect.
    #[cfg(target_os = "linux")]
    if let Ok(name) = std::ffi::CString::new(name) {
        let _ = nix::sys::prctl::set_name(&name);
    }
}

/// Environment variables by name.
pub type Environment = HashMap<String, String>;

/// The environment that a process was started with. `None` when it may not be read, or the process has exited.
pub fn environment_of(pid: i32) -> Option<Environment> {
    let bytes = fs::read(format!("/proc/{pid}/environ")).ok().filter(|bytes| !bytes.is_empty())?;
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).ok();
    let entries = bytes.split(|byte| *byte == 0).filter_map(|entry| {
        let at = entry.iter().position(|byte| *byte == b'=')?;
        Some((text(&entry[..at])?, text(&entry[at + 1..])?))
    });
    Some(entries.collect())
}

/// The pids of all processes.
pub(super) fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// True when the process is stopped by SIGSTOP, a terminal or a debugger.
pub fn is_stopped(pid: i32) -> bool {
    Stat::read(pid).is_some_and(|stat| matches!(stat.state, 'T' | 't'))
}

/// The resident set size of a process in bytes, with shared pages counted fully.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages * page as u64)
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
/// for and stopped.
pub fn become_subreaper() -> io::Result<()> {
    nix::sys::prctl::set_child_subreaper(true).map_err(io::Error::from)
}

/// True when SIGHUP was ignored at the start, as under `nohup`.
pub fn hangup_is_ignored() -> bool {
    let text = fs::read_to_string("/proc/self/status").unwrap_or_default();
    text.lines()
        .find_map(|line| line.strip_prefix("SigIgn:"))
        .and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .is_some_and(|mask| mask & 1 != 0)
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
    fn arguments_end_before_the_zeros_that_a_title_leaves() {
        use std::io::Read;
        use std::process::{Command, Stdio};
        let mut command = Command::new("sh");
        command.args(["-c", "echo; read x", "a name", "", ""]).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        // The kernel sets the arguments a moment after the start; the shell has them once it writes.
        child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
        assert_eq!(arguments(child.id() as i32).unwrap(), ["sh", "-c", "echo; read x", "a name"]);
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(arguments(child.id() as i32), None);
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

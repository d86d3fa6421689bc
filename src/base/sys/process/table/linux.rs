//! `/proc`, proc(5).

use super::{Entry, State};
use std::fs;
use std::path::PathBuf;
use std::sync::OnceLock;

/// Parses the fields of `/proc/PID/stat`, which are numbered in proc_pid_stat(5). The name in field 2 may contain spaces
/// and parentheses, so counting starts after the last parenthesis.
struct Stat {
    state: char,
    parent: i32,
    session: i32,
    /// Flags of the kernel, `PF_…` in its linux/sched.h: field 9.
    flags: u64,
    /// User and kernel time, including reaped children: fields 14 to 17.
    processor_ticks: u64,
    /// Field 22.
    start_ticks: u64,
}

impl Stat {
    fn read(pid: i32) -> Option<Self> {
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

pub(super) fn entry(pid: i32) -> Option<Entry> {
    let Stat { state, parent, session, processor_ticks, start_ticks: start, .. } = Stat::read(pid)?;
    let state = match state {
        'Z' => State::Zombie,
        'T' | 't' => State::Stopped,
        _ => State::Alive,
    };
    Some(Entry { state, parent, session, processor_ticks, start })
}

/// True when the process is exiting, a zombie or gone. Such a process no longer shows its environment, and a process that
/// it has started becomes a child of ours only once it is a zombie, which on a busy machine may be much later.
pub fn has_begun_to_exit(pid: i32) -> bool {
    const PF_EXITING: u64 = 0x4;
    Stat::read(pid).is_none_or(|stat| stat.flags & PF_EXITING != 0)
}

/// The kernel's id of the current boot, which is read once.
pub fn boot_id() -> &'static str {
    static BOOT_ID: OnceLock<String> = OnceLock::new();
    let read = || fs::read_to_string("/proc/sys/kernel/random/boot_id").unwrap_or_default().trim().to_owned();
    BOOT_ID.get_or_init(read)
}

/// The path of a process's program as shown by the kernel.
pub fn program(pid: i32) -> Option<PathBuf> {
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

/// The working directory of a process, as far as we may inspect it.
pub fn working_folder(pid: i32) -> Option<PathBuf> {
    fs::read_link(format!("/proc/{pid}/cwd")).ok()
}

/// The environment that a process was started with, as `NAME=value` with a NUL after each. `None` when it may not be
/// read, or the process has exited.
pub fn environment(pid: i32) -> Option<Vec<u8>> {
    fs::read(format!("/proc/{pid}/environ")).ok()
}

/// The children of all threads of a process, including zombies; `None` where the kernel does not list them
/// (`CONFIG_PROC_CHILDREN`), and when there is no such process.
pub fn children(pid: i32) -> Option<Vec<i32>> {
    let threads = fs::read_dir(format!("/proc/{pid}/task")).into_iter().flatten().flatten();
    let mut lists = threads.filter_map(|thread| fs::read_to_string(thread.path().join("children")).ok()).peekable();
    lists.peek()?;
    let parse = |list: String| list.split_ascii_whitespace().filter_map(|pid| pid.parse().ok()).collect::<Vec<i32>>();
    Some(lists.flat_map(parse).collect())
}

/// The pids of all processes.
pub fn all_pids() -> impl Iterator<Item = i32> {
    fs::read_dir("/proc").into_iter().flatten().flatten().filter_map(|entry| entry.file_name().to_str()?.parse().ok())
}

/// The resident set size of a process in bytes, with shared pages counted fully.
pub fn resident_bytes(pid: i32) -> Option<u64> {
    let text = fs::read_to_string(format!("/proc/{pid}/statm")).ok()?;
    let pages: u64 = text.split(' ').nth(1)?.parse().ok()?;
    let page = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE).ok().flatten()?;
    Some(pages * page as u64)
}

#[cfg(test)]
mod tests {
    use super::*;

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
}

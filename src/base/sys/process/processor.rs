//! The number of processors and the processor time of processes.

use super::all_pids;
use super::table::Entry;
use std::fs;
use std::time::Duration;

/// The number of processors that this process may use, by its affinity and its cgroup's quota.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// The number of threads of the machine that run or could run now, from /proc/loadavg of proc(5); zero if unknown.
pub fn runnable_threads() -> usize {
    let text = fs::read_to_string("/proc/loadavg").unwrap_or_default();
    let runnable = text.split_ascii_whitespace().nth(3).and_then(|field| field.split_once('/')?.0.parse().ok());
    runnable.unwrap_or(0)
}

/// Processor time of a process and its reaped children; zero if it does not exist.
pub fn used(pid: i32) -> Duration {
    Entry::of(pid).map_or(Duration::ZERO, |entry| ticks_to_duration(entry.processor_ticks))
}

/// Processor time of all processes of a session. Reads the state of every process on the machine.
pub fn used_by_session(leader: i32) -> Duration {
    let entries = all_pids().filter_map(Entry::of).filter(|entry| entry.session == leader);
    ticks_to_duration(entries.map(|entry| entry.processor_ticks).sum())
}

/// How long the main thread of a process was runnable without a processor; zero if the kernel does not report it.
/// The second field of /proc/PID/schedstat in nanoseconds, see Documentation/scheduler/sched-stats.rst.
pub fn queued(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

/// Converts clock ticks.
fn ticks_to_duration(count: u64) -> Duration {
    let ticks_per_second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(count as f64 / ticks_per_second.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_running_thread_is_runnable() {
        assert!(runnable_threads() >= 1);
    }

    #[test]
    fn counts_the_time_of_a_session_and_its_reaped_children() {
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        // The busy child has exited and was reaped; then its parent waits to be killed.
        let mut child = std::process::Command::new("setsid")
            .args(["sh", "-c", &format!("sh -c '{burn}'; echo done; exec sleep 60")])
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let mut line = [0; 5];
        std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut line).unwrap();
        let leader = child.id() as i32;
        assert!(used(leader) > Duration::ZERO);
        assert!(used_by_session(leader) >= used(leader));
        child.kill().unwrap();
        child.wait().unwrap();
        assert_eq!(used_by_session(leader), Duration::ZERO);
        assert_eq!(queued(i32::MAX), Duration::ZERO);
    }
}

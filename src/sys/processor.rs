//! Processors: how many there are, and how much of their time processes have had.

use super::process::{Stat, all_pids};
use std::fs;
use std::time::Duration;

/// Processors that this process may use: by its affinity and by the quota of its cgroup.
pub fn count() -> usize {
    std::thread::available_parallelism().map_or(1, usize::from)
}

/// Processor time of a process and of its children that have ended and were waited for.
pub fn used(pid: i32) -> Duration {
    Stat::read(pid).map_or(Duration::ZERO, |stat| ticks(stat.processor_ticks))
}

/// The same of all processes of a session. Reads about every process of the machine.
pub fn used_by_session(leader: i32) -> Duration {
    let of_session = all_pids().filter_map(Stat::read).filter(|stat| stat.session == leader);
    ticks(of_session.map(|stat| stat.processor_ticks).sum())
}

/// How long the main thread of a process was ready to run and had no processor; zero where the kernel does not say.
/// The second field of /proc/PID/schedstat in nanoseconds, see Documentation/scheduler/sched-stats.rst.
pub fn queued(pid: i32) -> Duration {
    let text = fs::read_to_string(format!("/proc/{pid}/schedstat")).unwrap_or_default();
    let nanoseconds = text.split_ascii_whitespace().nth(1).and_then(|field| field.parse().ok());
    Duration::from_nanos(nanoseconds.unwrap_or(0))
}

fn ticks(count: u64) -> Duration {
    let second = nix::unistd::sysconf(nix::unistd::SysconfVar::CLK_TCK).ok().flatten().unwrap_or(100);
    Duration::from_secs_f64(count as f64 / second.max(1) as f64)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counts_what_a_session_and_its_ended_children_used() {
        let burn = "i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done";
        // The one that burns has ended and was waited for; then its parent waits to be ended.
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

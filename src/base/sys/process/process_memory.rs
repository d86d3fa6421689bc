//! The memory of a process: as `/proc/PID/smaps_rollup` shows it, proc_pid_smaps(5), or its resident set elsewhere.

use super::{resident_bytes, table};
use std::fs;

/// Proportional set size (PSS) of a process in bytes: its own pages, and its share of those that it shares with others.
/// `None` when there is no such process, or its memory may not be read. On macOS, which does not report it, the resident
/// set size, which counts shared pages fully.
pub(crate) fn proportional_bytes(pid: i32) -> Option<u64> {
    if cfg!(not(target_os = "linux")) {
        return resident_bytes(pid);
    }
    parse(&fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok()?)
}

/// The sum of the PSS of a process and all its descendants, in bytes. `None` when the process itself cannot be read.
pub(crate) fn proportional_bytes_of_tree(root: i32) -> Option<u64> {
    let mut total = proportional_bytes(root)?;
    let mut parents = vec![root];
    while let Some(parent) = parents.pop() {
        for child in table::children(parent).unwrap_or_default() {
            total += proportional_bytes(child).unwrap_or(0);
            parents.push(child);
        }
    }
    Some(total)
}

fn parse(rollup: &str) -> Option<u64> {
    let kilobytes = rollup.lines().find_map(|line| line.strip_prefix("Pss:"))?;
    let kilobytes: u64 = kilobytes.trim().strip_suffix(" kB")?.parse().ok()?;
    Some(kilobytes * 1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_the_line_of_the_proportional_size() {
        let rollup = "55e0-7ffd ---p 00000000 00:00 0  [rollup]\nRss:  2048 kB\nPss:   884 kB\nPss_Dirty:  85 kB\n";
        assert_eq!(parse(rollup), Some(884 * 1024));
        assert_eq!(parse("Rss: 1 kB\n"), None);
    }

    #[test]
    #[cfg(target_os = "linux")]
    fn measures_this_process_and_its_children() {
        let own = std::process::id() as i32;
        let mut child = std::process::Command::new("sleep").arg("60").spawn().unwrap();
        let (tree, root) = (proportional_bytes_of_tree(own).unwrap(), proportional_bytes(own).unwrap());
        child.kill().unwrap();
        child.wait().unwrap();
        assert!(root > 0 && tree > 0, "{tree} {root}");
        assert_eq!(proportional_bytes(i32::MAX), None);
    }
}

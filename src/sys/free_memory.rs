//! Memory that new processes may use: of the machine, and of every cgroup that this process is in.

use std::fs;
use std::path::Path;

/// Where a cgroup says what.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: cached files, which the kernel gives up before it refuses memory.
    cache: &'static str,
}

/// Documentation/admin-guide/cgroup-v2.rst
const V2: Names = Names { limit: "memory.max", used: "memory.current", cache: "inactive_file" };
/// Documentation/admin-guide/cgroup-v1/memory.rst
const V1: Names = Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };

/// Bytes; `None` where the system does not say.
pub fn bytes() -> Option<u64> {
    below(Path::new("/"))
}

/// `root` is `/`, but in tests.
fn below(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let of_machine = field(&read("proc/meminfo"), "MemAvailable:").map(|kilobytes| kilobytes * 1024);
    let own = read("proc/self/cgroup");
    let of_cgroups = own.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            of_cgroup(&root.join("sys/fs/cgroup"), path, &V2)
        } else if controllers.split(',').any(|name| name == "memory") {
            of_cgroup(&root.join("sys/fs/cgroup/memory"), path, &V1)
        } else {
            None
        }
    });
    of_machine.into_iter().chain(of_cgroups).min()
}

/// The least that a cgroup or one above it has left. In a container without a namespace of its own the path is the
/// host's; then only the top is there, which is the container's.
fn of_cgroup(mount: &Path, path: &str, names: &Names) -> Option<u64> {
    let folder = mount.join(path);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(mount));
    let left = folders.filter_map(|folder| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (number(names.limit)?, number(names.used)?);
        let cache = field(&fs::read_to_string(folder.join("memory.stat")).unwrap_or_default(), names.cache);
        Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
    });
    left.min()
}

/// The number after a word at the beginning of a line.
fn field(text: &str, name: &str) -> Option<u64> {
    text.lines().find_map(|line| {
        let mut words = line.split_ascii_whitespace();
        if words.next()? == name { words.next()?.parse().ok() } else { None }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn machine(files: &[(&str, &str)]) -> Option<u64> {
        let root = tempfile::tempdir().unwrap();
        for (path, text) in files {
            let path = root.path().join(path);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, text).unwrap();
        }
        below(root.path())
    }

    #[test]
    fn the_tightest_of_machine_and_cgroups_counts() {
        let meminfo = ("proc/meminfo", "MemTotal: 4096000 kB\nMemFree: 10 kB\nMemAvailable:  1048576 kB\n");
        assert_eq!(machine(&[]), None);
        assert_eq!(machine(&[meminfo]), Some(1024 * MIB));
        let v2 = [
            meminfo,
            ("proc/self/cgroup", "0::/user.slice/leoflow.service\n"),
            ("sys/fs/cgroup/user.slice/leoflow.service/memory.max", "max\n"),
            ("sys/fs/cgroup/user.slice/leoflow.service/memory.current", "1000\n"),
            ("sys/fs/cgroup/user.slice/memory.max", "536870912\n"),
            ("sys/fs/cgroup/user.slice/memory.current", "335544320\n"),
            ("sys/fs/cgroup/user.slice/memory.stat", "anon 1\ninactive_file 104857600\n"),
        ];
        assert_eq!(machine(&v2), Some((512 - 320 + 100) * MIB));
        let v1 = [
            meminfo,
            ("proc/self/cgroup", "5:cpu,cpuacct:/docker/x\n4:memory:/docker/x\n"),
            ("sys/fs/cgroup/memory/memory.limit_in_bytes", "209715200\n"),
            ("sys/fs/cgroup/memory/memory.usage_in_bytes", "104857600\n"),
        ];
        assert_eq!(machine(&v1), Some(100 * MIB));
        assert!(bytes().is_some_and(|bytes| bytes > 0));
    }
}

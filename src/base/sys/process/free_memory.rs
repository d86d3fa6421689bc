//! The memory available to new processes, limited by the machine and by every cgroup of this process.

use std::fs;
use std::path::Path;

/// The names of a cgroup's files and fields.
struct Names {
    limit: &'static str,
    used: &'static str,
    /// In `memory.stat`: the file cache, which the kernel frees before it refuses memory.
    cache: &'static str,
}

/// Source: the kernel's Documentation/admin-guide/cgroup-v2.rst
const V2: Names = Names { limit: "memory.max", used: "memory.current", cache: "inactive_file" };
/// Source: the kernel's Documentation/admin-guide/cgroup-v1/memory.rst
const V1: Names = Names { limit: "memory.limit_in_bytes", used: "memory.usage_in_bytes", cache: "total_inactive_file" };

/// The available memory in bytes; `None` when the system does not report it.
pub fn bytes() -> Option<u64> {
    bytes_by_files_in(Path::new("/"))
}

/// Reads the system's files below `root`, which differs from `/` only in tests.
fn bytes_by_files_in(root: &Path) -> Option<u64> {
    let read = |path: &str| fs::read_to_string(root.join(path)).unwrap_or_default();
    let machine_bytes = field(&read("proc/meminfo"), "MemAvailable:").map(|kilobytes| kilobytes * 1024);
    let own_cgroups = read("proc/self/cgroup");
    let cgroup_bytes = own_cgroups.lines().filter_map(|line| {
        let mut parts = line.splitn(3, ':');
        let (_, controllers, path) = (parts.next()?, parts.next()?, parts.next()?);
        let path = path.trim_start_matches('/');
        if controllers.is_empty() {
            cgroup_free_bytes(&root.join("sys/fs/cgroup"), path, &V2)
        } else if controllers.split(',').any(|name| name == "memory") {
            cgroup_free_bytes(&root.join("sys/fs/cgroup/memory"), path, &V1)
        } else {
            None
        }
    });
    machine_bytes.into_iter().chain(cgroup_bytes).min()
}

/// The minimum free memory of a cgroup and its ancestors. In a container without its own cgroup namespace the path is
/// the host's; then only the top folder exists, which is the container's cgroup.
fn cgroup_free_bytes(mount: &Path, path: &str, names: &Names) -> Option<u64> {
    let folder = mount.join(path);
    let folders = folder.ancestors().take_while(|folder| folder.starts_with(mount));
    let free = folders.filter_map(|folder| {
        let number = |name: &str| fs::read_to_string(folder.join(name)).ok()?.trim().parse::<u64>().ok();
        let (limit, used) = (number(names.limit)?, number(names.used)?);
        let cache = field(&fs::read_to_string(folder.join("memory.stat")).unwrap_or_default(), names.cache);
        Some(limit.saturating_sub(used.saturating_sub(cache.unwrap_or(0))))
    });
    free.min()
}

/// The number that follows `name` in the line that begins with it.
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
        bytes_by_files_in(root.path())
    }

    #[test]
    fn the_smallest_limit_of_machine_and_cgroups_counts() {
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

//! File systems and their free space.

use nix::sys::statvfs::{FsFlags, Statvfs, statvfs};
use std::io;
use std::path::Path;

/// True when two paths, or their nearest existing parents, are on the same file system.
pub fn same_file_system(left: &Path, right: &Path) -> io::Result<bool> {
    use std::os::unix::fs::MetadataExt;
    let device = |path: &Path| {
        let nearest = path.ancestors().find(|path| path.exists()).unwrap_or(Path::new("/"));
        std::fs::metadata(nearest).map(|meta| meta.dev())
    };
    Ok(device(left)? == device(right)?)
}

/// Bytes that an unprivileged user may still write on the file system of `path`, or of its nearest
/// existing parent.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = file_system(path)?;
    Ok(stat.blocks_available() * stat.fragment_size())
}

fn file_system(path: &Path) -> io::Result<Statvfs> {
    let mut probe = path;
    loop {
        match statvfs(probe) {
            Ok(stat) => return Ok(stat),
            Err(nix::Error::ENOENT) => match probe.parent() {
                Some(parent) if !parent.as_os_str().is_empty() => probe = parent,
                Some(_) => probe = Path::new("."),
                None => return Err(nix::Error::ENOENT.into()),
            },
            Err(error) => return Err(error.into()),
        }
    }
}

/// What a file system lacks after a write failed for lack of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    Bytes,
    /// It has no free inodes, so no file of any size can be created.
    Files,
    /// The file system has free bytes, so a quota or another limit applies.
    OtherLimit {
        free: u64,
    },
}

/// With less free space than this, in bytes, a file system counts as full: PostgreSQL creates WAL segments of this
/// size.
const FULL: u64 = 16 * 1024 * 1024;

/// Finds out what the file system of `path` lacks.
pub fn shortage(path: &Path) -> io::Result<Shortage> {
    let stat = file_system(path)?;
    let free = stat.blocks_available() * stat.fragment_size();
    // Without a limit of files, as in btrfs, both numbers are 0.
    Ok(if stat.files() > 0 && stat.files_available() == 0 {
        Shortage::Files
    } else if free < FULL {
        Shortage::Bytes
    } else {
        Shortage::OtherLimit { free }
    })
}

/// True if the file system of `path` is mounted so that its programs cannot be run.
pub fn forbids_programs(path: &Path) -> bool {
    file_system(path).is_ok_and(|stat| stat.flags().contains(FsFlags::ST_NOEXEC))
}

/// True where programs can use POSIX shared memory, which Linux keeps in /dev/shm: containers have 64 MB of it, other
/// programs fill it, and some sandboxes forbid it.
pub fn has_shared_memory() -> bool {
    !cfg!(target_os = "linux") || has_space_for_shared_memory(Path::new("/dev/shm"))
}

/// Reserves one MiB, and releases it.
fn has_space_for_shared_memory(folder: &Path) -> bool {
    use nix::fcntl::{FallocateFlags, OFlag, fallocate};
    use std::os::unix::fs::OpenOptionsExt;
    let file = std::fs::OpenOptions::new()
        .read(true)
        .write(true)
        .mode(0o600)
        .custom_flags(OFlag::O_TMPFILE.bits())
        .open(folder);
    file.is_ok_and(|file| fallocate(file, FallocateFlags::empty(), 0, 1024 * 1024).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_what_a_file_system_lacks() {
        let folder = tempfile::tempdir().unwrap();
        assert!(matches!(shortage(&folder.path().join("a/b")).unwrap(), Shortage::OtherLimit { .. }));
        // Files of /proc take no space, and none can be added.
        assert_eq!(shortage(Path::new("/proc/self")).unwrap(), Shortage::Bytes);
        assert!(free_bytes(Path::new("missing")).unwrap() > 0);
    }

    #[test]
    fn a_mount_without_programs_is_known() {
        let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
        for line in mounts.lines() {
            let fields: Vec<&str> = line.split(' ').collect();
            // Other mounts may hide this one.
            if fields[1] == "/proc" || fields[1] == "/sys" {
                let is_noexec = fields[3].split(',').any(|option| option == "noexec");
                assert_eq!(forbids_programs(Path::new(fields[1])), is_noexec, "{line}");
            }
        }
    }

    #[test]
    fn shared_memory_needs_a_folder_that_can_be_written() {
        assert!(has_space_for_shared_memory(tempfile::tempdir_in("/dev/shm").unwrap().path()));
        assert!(!has_space_for_shared_memory(Path::new("/proc/self")));
        assert!(!has_space_for_shared_memory(Path::new("/missing")));
    }
}

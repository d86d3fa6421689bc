//! File systems and their free space.

use nix::sys::statvfs::{Statvfs, statvfs};
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

/// Free space below which users are warned, in bytes.
pub const LOW_SPACE: u64 = 1024 * 1024 * 1024;

/// Bytes that an unprivileged user may still write on the file system of `path`, or of its nearest
/// existing parent.
pub fn free_bytes(path: &Path) -> io::Result<u64> {
    let stat = file_system(path)?;
    Ok(bytes_of(stat.blocks_available(), &stat))
}

/// The size of blocks, whose number has another type on each system.
fn bytes_of(blocks: impl Into<u64>, stat: &Statvfs) -> u64 {
    blocks.into() * stat.fragment_size()
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

/// Removes the content of a file that was flushed from the system's memory, so that the next reader gets it from the disk.
/// Does nothing where the system has no such call.
pub fn forget_cached(path: &Path) -> io::Result<()> {
    let file = std::fs::File::open(path)?;
    #[cfg(target_os = "linux")]
    {
        use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
        match posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED) {
            // Not every file system takes the advice.
            Ok(()) | Err(nix::Error::EINVAL | nix::Error::ENOSYS | nix::Error::EOPNOTSUPP) => {}
            Err(error) => return Err(error.into()),
        }
    }
    drop(file);
    Ok(())
}

/// What a file system lacks after a write failed for lack of space.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shortage {
    Bytes,
    /// It has no free inodes, so no file of any size can be created.
    Files,
    /// The file system has free bytes: a quota or another limit applies, or files of the failed operation are removed.
    OtherLimit {
        free: u64,
    },
    /// Bytes or files; the file system is not known.
    Unknown,
}

impl Shortage {
    /// What is short, and what the user can do about it. `place` is the mount point, if it is known.
    pub fn remedy(self, place: Option<&str>) -> String {
        let on = place.map_or_else(String::new, |place| format!(" on {place}"));
        match self {
            Self::Files => format!(
                "no more files can be created{on} (`df -i` shows its inodes): remove files that you do not need"
            ),
            Self::OtherLimit { free } => format!(
                "{} are free{on} now, which was not enough, or no more files could be created (`df -i`), or a quota \
                 applies: free some space",
                human_size(free)
            ),
            Self::Unknown => "the disk is full, or no more files can be created (`df -i`): free some space".to_owned(),
            Self::Bytes => format!("the disk is full{on}: free some space"),
        }
    }
}

/// Formats a size for people, in decimal units: `1.1 MB`, `36 kB`. Up to 10 GB in MB, because messages compare the
/// needed space with the free space.
pub fn human_size(bytes: u64) -> String {
    let (unit, name) = match bytes {
        0..1_000 => return format!("{bytes} B"),
        1_000..1_000_000 => (1_000, "kB"),
        1_000_000..10_000_000_000 => (1_000_000, "MB"),
        _ => (1_000_000_000, "GB"),
    };
    match bytes / unit {
        whole @ 0..10 => format!("{whole}.{} {name}", bytes % unit * 10 / unit),
        whole => format!("{whole} {name}"),
    }
}

/// With less free space than this, in bytes, a file system counts as full: PostgreSQL creates WAL segments of this
/// size.
const FULL: u64 = 16 * 1024 * 1024;
/// With fewer free inodes than this, a file system takes no more files: a failed program may have closed some.
const FEW_FILES: nix::libc::fsfilcnt_t = 16;

/// Finds out what the file system of `path` lacks.
pub fn shortage(path: &Path) -> io::Result<Shortage> {
    let stat = file_system(path)?;
    let free = bytes_of(stat.blocks_available(), &stat);
    // Without a limit of files, as in btrfs, both numbers are 0.
    Ok(if stat.files() > 0 && stat.files_available() < FEW_FILES {
        Shortage::Files
    } else if free < FULL {
        Shortage::Bytes
    } else {
        Shortage::OtherLimit { free }
    })
}

/// True if the file system of `path` is mounted so that its programs cannot be run.
pub fn forbids_programs(path: &Path) -> bool {
    #[cfg(target_os = "linux")]
    let forbids = file_system(path).is_ok_and(|stat| stat.flags().contains(nix::sys::statvfs::FsFlags::ST_NOEXEC));
    #[cfg(not(target_os = "linux"))]
    let forbids =
        nix::sys::statfs::statfs(path).is_ok_and(|stat| stat.flags().contains(nix::mount::MntFlags::MNT_NOEXEC));
    forbids
}

/// True where a call flushes a whole file system, syncfs(2).
pub fn has_syncfs() -> bool {
    cfg!(target_os = "linux") && !crate::sys::is_portable()
}

/// True where fsync(2) leaves data in the drive's cache, which loses it without power: the manual of macOS names
/// `F_FULLFSYNC` instead, which the standard library and `files` use.
pub fn flush_stops_at_drive() -> bool {
    cfg!(target_os = "macos")
}

/// True where programs can use POSIX shared memory, which Linux keeps in /dev/shm: containers have 64 MB of it, other
/// programs fill it, and some sandboxes forbid it.
pub fn has_shared_memory() -> bool {
    #[cfg(target_os = "linux")]
    let has_space = has_space_for_shared_memory(Path::new("/dev/shm"));
    #[cfg(not(target_os = "linux"))]
    let has_space = true;
    has_space
}

/// Reserves one MiB, and releases it.
#[cfg(target_os = "linux")]
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
    fn a_shortage_says_what_to_free() {
        let place = Some("/mnt/usb");
        assert_eq!(Shortage::Bytes.remedy(place), "the disk is full on /mnt/usb: free some space");
        assert!(Shortage::Files.remedy(place).starts_with("no more files can be created on /mnt/usb (`df -i`"));
        let quota = Shortage::OtherLimit { free: 5_000_000_000 }.remedy(place);
        assert!(
            quota.starts_with("5000 MB are free on /mnt/usb now, which was not enough, or no more files"),
            "{quota}"
        );
        assert!(Shortage::Unknown.remedy(None).contains("`df -i`"));
    }

    #[test]
    fn small_sizes_have_one_decimal() {
        let sizes = [0, 999, 1_060, 36_864, 1_060_000, 45_000_000, 5_000_000_000, 12_000_000_000];
        let expected = ["0 B", "999 B", "1.0 kB", "36 kB", "1.0 MB", "45 MB", "5000 MB", "12 GB"];
        assert_eq!(sizes.map(human_size), expected);
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

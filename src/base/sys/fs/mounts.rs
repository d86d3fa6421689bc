//! Lists mount points.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Lists the mount points at or below `path`, which must be absolute and without links.
/// Source on Linux: proc_pid_mountinfo(5), fifth field; spaces and backslashes are escaped as `\040` and the like.
pub fn at_or_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(all()?.into_iter().filter(|point| point.starts_with(path)).collect())
}

/// Lists the mount points below `path`, which must be absolute and without links.
pub fn below(path: &Path) -> io::Result<Vec<PathBuf>> {
    Ok(at_or_below(path)?.into_iter().filter(|point| point != path).collect())
}

/// True if `path`, which must be absolute and without links, is a mount point.
pub fn is_mount(path: &Path) -> io::Result<bool> {
    Ok(all()?.iter().any(|point| point == path))
}

/// The mount point of the file system that contains `path`, or its nearest existing parent.
pub fn containing(path: &Path) -> io::Result<PathBuf> {
    let path = path.ancestors().find_map(|path| path.canonicalize().ok()).unwrap_or_else(|| "/".into());
    let around = all()?.into_iter().filter(|point| path.starts_with(point));
    Ok(around.max_by_key(|point| point.as_os_str().len()).unwrap_or_else(|| "/".into()))
}

/// File systems of other machines, and of the host of a virtual machine: changes that are made there are not notified
/// here. Source: `linux/magic.h`, and statfs(2).
#[cfg(target_os = "linux")]
const SHARED: [i64; 8] = [
    0x6573_5546, // FUSE and virtiofs
    0x0102_1997, // 9P
    0x6969,      // NFS
    0xFF53_4D42, // CIFS
    0xFE53_4D42, // SMB2
    0x517B,      // SMB
    0x786F_4256, // VirtualBox
    0x5346_414F, // AFS
];

/// True if others may change files in a folder without a notification here.
pub fn is_shared(folder: &Path) -> bool {
    nix::sys::statfs::statfs(folder).is_ok_and(|stat| is_shared_file_system(&stat))
}

#[cfg(target_os = "linux")]
fn is_shared_file_system(stat: &nix::sys::statfs::Statfs) -> bool {
    SHARED.contains(&stat.filesystem_type().0)
}

#[cfg(not(target_os = "linux"))]
fn is_shared_file_system(stat: &nix::sys::statfs::Statfs) -> bool {
    !stat.flags().contains(nix::mount::MntFlags::MNT_LOCAL)
}

#[cfg(target_os = "linux")]
fn all() -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let points = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(|escaped| PathBuf::from(unescape(escaped))).collect())
}

/// Asks getfsstat(2).
#[cfg(not(target_os = "linux"))]
fn all() -> io::Result<Vec<PathBuf>> {
    use nix::libc;
    // SAFETY: without a buffer it returns the number of file systems.
    let count = unsafe { libc::getfsstat(std::ptr::null_mut(), 0, libc::MNT_NOWAIT) };
    // SAFETY: the structure is numbers and bytes.
    let mut found = vec![unsafe { std::mem::zeroed::<libc::statfs>() }; usize::try_from(count).unwrap_or(0)];
    let size = libc::c_int::try_from(size_of_val(found.as_slice())).unwrap_or(0);
    // SAFETY: the buffer has the given size.
    let count = unsafe { libc::getfsstat(found.as_mut_ptr(), size, libc::MNT_NOWAIT) };
    let count = usize::try_from(nix::errno::Errno::result(count)?).unwrap_or(0);
    let point = |stat: &libc::statfs| {
        let bytes = stat.f_mntonname.iter().map(|byte| *byte as u8).take_while(|byte| *byte != 0);
        PathBuf::from(OsString::from_vec(bytes.collect()))
    };
    Ok(found.iter().take(count).map(point).collect())
}

/// Decodes escapes such as `\040`.
#[cfg(target_os = "linux")]
fn unescape(escaped: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(escaped.len());
    let mut remaining = escaped;
    while let Some((first, tail)) = remaining.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                remaining = &tail[3..];
            }
            None => {
                bytes.push(*first);
                remaining = tail;
            }
        }
    }
    OsString::from_vec(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_mounts_and_reads_their_escapes() {
        assert!(at_or_below(Path::new("/")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(at_or_below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(!below(Path::new("/proc")).unwrap().contains(&PathBuf::from("/proc")));
        assert!(at_or_below(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
        assert_eq!(containing(Path::new("/proc/self/missing/x")).unwrap(), Path::new("/proc"));
        assert_eq!(unescape(b"/a\\040b\\134c"), "/a b\\c");
    }
}

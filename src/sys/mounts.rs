//! Where file systems are mounted.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

/// Mount points at `path` or below it. `path` must be absolute and without links.
/// Source: proc_pid_mountinfo(5), fifth field; blanks and backslashes come as `\040` and the like.
pub fn at_or_below(path: &Path) -> io::Result<Vec<PathBuf>> {
    let text = std::fs::read("/proc/self/mountinfo")?;
    let points = text.split(|byte| *byte == b'\n').filter_map(|line| line.split(|byte| *byte == b' ').nth(4));
    Ok(points.map(|raw| PathBuf::from(unescape(raw))).filter(|point| point.starts_with(path)).collect())
}

fn unescape(raw: &[u8]) -> OsString {
    let mut bytes = Vec::with_capacity(raw.len());
    let mut rest = raw;
    while let Some((first, tail)) = rest.split_first() {
        let octal = tail.get(..3).filter(|_| *first == b'\\').and_then(|digits| std::str::from_utf8(digits).ok());
        match octal.and_then(|digits| u8::from_str_radix(digits, 8).ok()) {
            Some(byte) => {
                bytes.push(byte);
                rest = &tail[3..];
            }
            None => {
                bytes.push(*first);
                rest = tail;
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
        assert!(at_or_below(tempfile::tempdir().unwrap().path()).unwrap().is_empty());
        assert_eq!(unescape(b"/a\\040b\\134c"), "/a b\\c");
    }
}

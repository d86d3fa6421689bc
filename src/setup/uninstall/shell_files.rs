//! Taking out of shell files the lines that an install put in. Each ends in our mark; nothing else
//! in the file is touched.

use crate::sys::files;
use std::io;
use std::path::Path;

/// What every line ends in that an install adds to a shell file.
pub const MARK: &str = "# added by leoflow";

/// Bytes; no shell file is longer.
pub const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

/// A file that is gone or has none of our lines is left as it is. A link stays a link: what it leads
/// to is changed.
pub fn remove_lines(path: &Path) -> io::Result<()> {
    let real = match path.canonicalize() {
        Ok(real) => real,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(bytes) = files::read_regular(&real, SIZE_LIMIT)? else { return Ok(()) };
    let is_ours = |line: &[u8]| line.trim_ascii_end().ends_with(MARK.as_bytes());
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if !lines.iter().any(|line| is_ours(line)) {
        return Ok(());
    }
    let kept: Vec<u8> = lines.into_iter().filter(|line| !is_ours(line)).flatten().copied().collect();
    files::write_atomic(&real, &kept, files::mode(&real)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn only_our_lines_go_and_a_link_stays_a_link() {
        let folder = tempfile::tempdir().unwrap();
        let (real, link) = (folder.path().join("dotfiles-profile"), folder.path().join(".profile"));
        let ours = format!("export PATH=\"$HOME/.leoflow/bin:$PATH\"  {MARK}\n");
        fs::write(&real, format!("one\n{ours}\u{fffd}two # added by me\nlast")).unwrap();
        std::os::unix::fs::symlink(&real, &link).unwrap();
        remove_lines(&link).unwrap();
        assert_eq!(fs::read_to_string(&real).unwrap(), "one\n\u{fffd}two # added by me\nlast");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        remove_lines(&folder.path().join("gone")).unwrap();
    }
}

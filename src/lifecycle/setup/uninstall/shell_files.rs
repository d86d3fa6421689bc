//! Removes the lines that Leoflow added to shell files. Each ends with the comment `MARK`; other lines stay.

use leoflow_base::sys::fs::files;
use std::io;
use std::path::Path;

/// Comment at the end of every line that Leoflow adds.
pub const MARK: &str = "# added by leoflow";

/// Size limit of a shell file, in bytes.
pub const SIZE_LIMIT: u64 = 16 * 1024 * 1024;

/// Removes our lines from a file, if it exists. Follows a symbolic link.
pub fn remove_lines(path: &Path) -> io::Result<()> {
    let target = match path.canonicalize() {
        Ok(target) => target,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(error),
    };
    let Some(bytes) = files::read_regular(&target, SIZE_LIMIT)? else { return Ok(()) };
    let is_ours = |line: &[u8]| line.trim_ascii_end().ends_with(MARK.as_bytes());
    let lines: Vec<&[u8]> = bytes.split_inclusive(|byte| *byte == b'\n').collect();
    if !lines.iter().any(|line| is_ours(line)) {
        return Ok(());
    }
    let remaining: Vec<u8> = lines.into_iter().filter(|line| !is_ours(line)).flatten().copied().collect();
    files::write_atomic(&target, &remaining, files::mode(&target)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn removes_only_our_lines_and_keeps_links() {
        let folder = tempfile::tempdir().unwrap();
        let (target, link) = (folder.path().join("dotfiles-profile"), folder.path().join(".profile"));
        let ours = format!("export PATH=\"$HOME/.leoflow/bin:$PATH\"  {MARK}\n");
        fs::write(&target, format!("one\n{ours}\u{fffd}two # added by me\nlast")).unwrap();
        std::os::unix::fs::symlink(&target, &link).unwrap();
        remove_lines(&link).unwrap();
        assert_eq!(fs::read_to_string(&target).unwrap(), "one\n\u{fffd}two # added by me\nlast");
        assert!(fs::symlink_metadata(&link).unwrap().is_symlink());
        remove_lines(&folder.path().join("gone")).unwrap();
    }
}

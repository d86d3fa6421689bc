//! Sets modes where the file system has them, and finds out who can read a file.

use std::fs::{self, File, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Bits that let the group and all other users read.
const OTHERS_READ: u32 = 0o044;

/// Sets the mode of a file that this process created. A file system without modes, or one whose files belong to another
/// user (CIFS shares, USB sticks mounted for everyone), refuses that: its files have the mode that the mount defines.
pub fn set_where_supported(file: &File, mode: u32) -> io::Result<()> {
    ignore_refusal(file.set_permissions(Permissions::from_mode(mode)))
}

/// Like [`set_where_supported`], by path; follows links.
pub fn set_path_where_supported(path: &Path, mode: u32) -> io::Result<()> {
    ignore_refusal(fs::set_permissions(path, Permissions::from_mode(mode)))
}

/// Clears the owner's bits of this process's umask, with which it could not use the files that it creates. The other
/// bits stay, for the files of the user's tasks. Called before other threads start.
pub fn keep_owner_access() {
    use nix::sys::stat::{Mode, umask};
    let previous = umask(Mode::S_IRWXG | Mode::S_IRWXO);
    umask(previous & (Mode::S_IRWXG | Mode::S_IRWXO));
}

fn ignore_refusal(result: io::Result<()>) -> io::Result<()> {
    match result {
        Err(error) if is_refusal(&error) => Ok(()),
        other => other,
    }
}

/// True for EPERM, the error for files of other users, and for the errors of file systems without modes.
fn is_refusal(error: &io::Error) -> bool {
    use nix::libc::{EINVAL, ENOSYS, ENOTSUP, EPERM};
    error.raw_os_error().is_some_and(|code| [EPERM, ENOTSUP, ENOSYS, EINVAL].contains(&code))
}

/// True if the mode gives the group or other users any permission. A file that cannot be inspected counts as private.
pub fn is_readable_by_others(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|meta| meta.permissions().mode() & OTHERS_READ != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `/proc` answers chmod with EPERM, as a CIFS share does whose files belong to another user.
    #[test]
    fn a_refused_chmod_is_no_error_and_other_failures_are() {
        let refusing = Path::new("/proc/self/comm");
        assert!(fs::set_permissions(refusing, Permissions::from_mode(0o600)).is_err());
        set_path_where_supported(refusing, 0o600).unwrap();
        set_where_supported(&File::open(refusing).unwrap(), 0o600).unwrap();
        assert!(is_readable_by_others(refusing));
        assert!(set_path_where_supported(Path::new("/proc/self/missing"), 0o600).is_err());
        let folder = tempfile::tempdir().unwrap();
        crate::sys::fs::files::create_dir_where_supported(&folder.path().join("a/new")).unwrap();
        assert!(!is_readable_by_others(&folder.path().join("a/new")));
    }

    #[test]
    fn only_the_read_bits_let_others_read() {
        let file = tempfile::NamedTempFile::new().unwrap();
        for (mode, is_readable) in [(0o600, false), (0o711, false), (0o622, false), (0o640, true), (0o604, true)] {
            fs::set_permissions(file.path(), Permissions::from_mode(mode)).unwrap();
            assert_eq!(is_readable_by_others(file.path()), is_readable, "{mode:o}");
        }
    }
}

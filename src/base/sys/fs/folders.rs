//! Folders that may be behind a link. What cannot be reached is not the same as what does not exist.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// A link whose target does not exist, for example because its disk is not mounted.
#[derive(Debug, thiserror::Error)]
#[error("{} is a link to {}, which does not exist", link.display(), target.display())]
pub struct DanglingLink {
    link: PathBuf,
    target: PathBuf,
}

/// Returns a [`DanglingLink`] if `path` or one of its parents is one, otherwise `error`. The system reports such a link
/// as "No such file", or as "File exists" to a program that creates a folder.
pub fn name_dangling_link(path: &Path, error: io::Error) -> io::Error {
    let is_missing = |path: &Path| fs::metadata(path).is_err_and(|error| error.kind() == io::ErrorKind::NotFound);
    let link = path.ancestors().find(|path| path.is_symlink() && is_missing(path));
    match link.and_then(|link| Some(DanglingLink { link: link.to_owned(), target: fs::read_link(link).ok()? })) {
        Some(dangling) => io::Error::other(dangling),
        None => error,
    }
}

/// Lists the paths in a folder; empty if it does not exist. A dangling link is an error.
pub fn entries(folder: &Path) -> io::Result<Vec<PathBuf>> {
    match fs::read_dir(folder).map_err(|error| name_dangling_link(folder, error)) {
        Ok(entries) => entries.map(|entry| entry.map(|entry| entry.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error),
    }
}

/// Creates a folder and its missing parents with the modes of the umask.
pub fn create_all(folder: &Path) -> io::Result<()> {
    fs::create_dir_all(folder).map_err(|error| name_dangling_link(folder, error))
}

/// Makes ext4 create the subfolders of a folder in different parts of the disk, like `chattr +T`; fails on other file
/// systems and on other systems than Linux. ext4 creates the files of a folder in its part of the disk, and examines
/// each inode there that was deleted in the last minutes whenever it creates one.
#[cfg(target_os = "linux")]
pub fn scatter_subfolders(folder: &Path) -> io::Result<()> {
    use nix::libc;
    use std::os::fd::AsRawFd;
    // EXT4_TOPDIR_FL of linux/fs/ext4/ext4.h, also known as FS_TOPDIR_FL.
    const TOP_OF_HIERARCHY: libc::c_int = 0x0002_0000;
    let folder = fs::File::open(folder)?;
    let mut flags: libc::c_int = 0;
    // SAFETY: both requests take a pointer to an int, which lives until the call returns; see ioctl_iflags(2).
    let result = unsafe {
        match libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_GETFLAGS, &mut flags) {
            0 => {
                flags |= TOP_OF_HIERARCHY;
                libc::ioctl(folder.as_raw_fd(), libc::FS_IOC_SETFLAGS, &flags)
            }
            failure => failure,
        }
    };
    if result == 0 { Ok(()) } else { Err(io::Error::last_os_error()) }
}

/// Other systems have no such setting.
#[cfg(not(target_os = "linux"))]
pub fn scatter_subfolders(_folder: &Path) -> io::Result<()> {
    Err(io::ErrorKind::Unsupported.into())
}

#[cfg(test)]
mod tests {
    use super::super::files;
    use super::*;

    #[test]
    fn a_dangling_link_is_not_an_empty_folder() {
        let root = tempfile::tempdir().unwrap();
        let (link, target) = (root.path().join("link"), root.path().join("unmounted/backups"));
        assert!(entries(&link).unwrap().is_empty());
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let text = format!("{} is a link to {}, which does not exist", link.display(), target.display());
        let below = link.join("below");
        for error in [
            entries(&link).unwrap_err(),
            entries(&below).unwrap_err(),
            create_all(&link).unwrap_err(),
            files::create_private_dir(&link).unwrap_err(),
            files::create_private_dir(&below).unwrap_err(),
            files::create_dir_where_supported(&link).unwrap_err(),
        ] {
            assert_eq!(error.to_string(), text);
        }
        assert!(!target.exists(), "nothing is created in its place");
        fs::create_dir_all(target.join("a")).unwrap();
        assert_eq!(entries(&link).unwrap(), [link.join("a")]);
        fs::write(root.path().join("file"), "").unwrap();
        assert!(entries(&root.path().join("file")).is_err());
    }
}

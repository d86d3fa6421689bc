//! Reads a tree that may change during the reading: every name is opened relative to its folder's descriptor and no
//! link is followed, so nothing outside the tree is ever reached.

use nix::dir::Dir;
use nix::fcntl::{OFlag, openat, readlinkat};
use nix::sys::stat::{FileStat, Mode, SFlag, fstatat};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Component, Path};

/// An open folder.
pub struct Folder(OwnedFd);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    File,
    Folder,
    Link,
    /// A FIFO, a socket or a device.
    Other,
}

/// An entry of a folder at the time it was read.
#[derive(Debug, Clone)]
pub struct Entry {
    pub name: OsString,
    pub kind: Kind,
    /// Size of a file in bytes.
    pub size: u64,
    /// Allocated disk space in bytes.
    pub allocated: u64,
    pub uid: u32,
    /// Seconds since 1970.
    pub modified: i64,
    /// True when only its owner has permissions.
    pub is_private: bool,
}

const FOLDER_FLAGS: OFlag = OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC);

impl Folder {
    /// Opens the root of a tree. Only here a link as the last component is followed.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self(nix::fcntl::open(path, FOLDER_FLAGS, Mode::empty())?))
    }

    /// Opens a folder below this one by a relative path of plain names. Fails with `ELOOP` or `ENOTDIR` if a component
    /// is a link.
    pub fn below(&self, relative: &Path) -> io::Result<Self> {
        let mut current = self.0.try_clone()?;
        for component in relative.components() {
            let Component::Normal(name) = component else { return Err(io::ErrorKind::InvalidInput.into()) };
            current = openat(&current, name, FOLDER_FLAGS | OFlag::O_NOFOLLOW, Mode::empty())?;
        }
        Ok(Self(current))
    }

    /// Lists the entries sorted by name, without those that disappear meanwhile.
    pub fn entries(&self) -> io::Result<Vec<Entry>> {
        // A separate descriptor, because duplicates share the read position.
        let mut dir = Dir::openat(&self.0, ".", FOLDER_FLAGS, Mode::empty())?;
        let mut entries = Vec::new();
        for entry in dir.iter() {
            let entry = entry?;
            let name = OsStr::from_bytes(entry.file_name().to_bytes());
            if name == "." || name == ".." {
                continue;
            }
            match self.stat(name) {
                Ok(entry) => entries.push(entry),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        entries.sort_by(|left, right| left.name.cmp(&right.name));
        Ok(entries)
    }

    fn stat(&self, name: &OsStr) -> io::Result<Entry> {
        let stat: FileStat = fstatat(&self.0, name, nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW)?;
        let kind = match SFlag::from_bits_truncate(stat.st_mode & SFlag::S_IFMT.bits()) {
            SFlag::S_IFREG => Kind::File,
            SFlag::S_IFDIR => Kind::Folder,
            SFlag::S_IFLNK => Kind::Link,
            _ => Kind::Other,
        };
        Ok(Entry {
            name: name.to_owned(),
            kind,
            size: u64::try_from(stat.st_size).unwrap_or(0),
            allocated: u64::try_from(stat.st_blocks).unwrap_or(0) * 512,
            uid: stat.st_uid,
            modified: stat.st_mtime,
            is_private: stat.st_mode & 0o077 == 0,
        })
    }

    /// Opens a regular file in this folder. Anything else, such as a FIFO, is an error; never blocks.
    pub fn open_file(&self, name: &OsStr) -> io::Result<File> {
        let flags = OFlag::O_RDONLY | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK | OFlag::O_CLOEXEC | OFlag::O_NOCTTY;
        let file = File::from(openat(self.0.as_fd(), name, flags, Mode::empty())?);
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
        }
        Ok(file)
    }

    /// The target text of a link in this folder.
    pub fn link_target(&self, name: &OsStr) -> io::Result<OsString> {
        Ok(readlinkat(self.0.as_fd(), name)?)
    }

    /// The folder's permission bits.
    pub fn mode(&self) -> io::Result<u32> {
        Ok(File::from(self.0.try_clone()?).metadata()?.mode() & 0o777)
    }

    /// True when an entry of any kind has this name.
    pub fn has(&self, name: &str) -> bool {
        self.stat(OsStr::new(name)).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::symlink;

    #[test]
    fn links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "x").unwrap();
        let tree = tempfile::tempdir().unwrap();
        fs::create_dir(tree.path().join("real")).unwrap();
        fs::write(tree.path().join("real/file"), "y").unwrap();
        symlink(outside.path(), tree.path().join("folder")).unwrap();
        symlink(outside.path().join("secret"), tree.path().join("file")).unwrap();
        let root = Folder::open(tree.path()).unwrap();
        assert!(root.below(Path::new("real")).unwrap().open_file(OsStr::new("file")).is_ok());
        assert!(root.below(Path::new("folder")).is_err());
        assert!(root.below(Path::new("real/..")).is_err());
        assert!(root.open_file(OsStr::new("file")).is_err());
        assert_eq!(root.link_target(OsStr::new("folder")).unwrap(), outside.path());
        let kinds: Vec<_> = root.entries().unwrap().into_iter().map(|entry| entry.kind).collect();
        assert_eq!(kinds, [Kind::Link, Kind::Link, Kind::Folder]);
    }

    #[test]
    fn opening_a_fifo_does_not_block() {
        let tree = tempfile::tempdir().unwrap();
        nix::unistd::mkfifo(&tree.path().join("fifo"), Mode::from_bits_truncate(0o600)).unwrap();
        let root = Folder::open(tree.path()).unwrap();
        assert_eq!(root.entries().unwrap()[0].kind, Kind::Other);
        assert!(root.open_file(OsStr::new("fifo")).is_err());
    }
}

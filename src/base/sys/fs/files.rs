//! Durable files: a file is complete or absent, and a reported rename has reached the disk.

use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `bytes` to a temporary file beside `path` (its neighbour), fsyncs it, renames it over `path` and fsyncs the
/// folder. Readers see the old or the new content, never a part, even after a power loss. The mode is exact, regardless
/// of the umask.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let neighbour = temporary_neighbour(path);
    let written = write_synced(&neighbour, bytes, mode).and_then(|()| rename_durably(&neighbour, path));
    if written.is_err() {
        // Removes our incomplete file. If that fails too, the first error is the one to report.
        let _ = fs::remove_file(&neighbour);
    }
    written
}

/// A name beside `path` that only this process uses: `.name.tmp-<pid>`.
pub fn temporary_neighbour(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

/// True for a name created by `temporary_neighbour`.
pub fn is_temporary_neighbour(name: &str) -> bool {
    let pid = name.starts_with('.').then(|| name.rsplit_once(".tmp-")).flatten();
    pid.is_some_and(|(_, pid)| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes the temporary neighbours of killed processes. No other process may be writing in the folder.
pub(crate) fn remove_temporary_neighbours(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary_neighbour(&entry.file_name().to_string_lossy()) {
            remove_any(&entry.path())?;
        }
    }
    Ok(())
}

/// Writes and fsyncs a file with exactly this mode.
fn write_synced(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(mode).open(path)?;
    file.set_permissions(Permissions::from_mode(mode))?;
    file.write_all(bytes)?;
    file.sync_all()
}

/// Renames and makes the rename durable. Both paths must be on one file system.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Renames without replacing: fails with `AlreadyExists` if the target exists.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // This file system does not support RENAME_NOREPLACE.
        Err(nix::Error::EINVAL | nix::Error::ENOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        Err(error) => Err(error.into()),
    }
}

/// Fsyncs the folder that contains `path`, which makes a new name there durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Flushes the file system of `path` in one call: cheaper than an fsync per file after unpacking thousands.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    nix::unistd::syncfs(File::open(path)?).map_err(io::Error::from)
}

/// Creates a folder atomically: `fill` builds it in a staging folder beside `target` and returns its path there. A
/// folder that another process created meanwhile is equivalent and stays. The staging folder is removed.
pub fn create_folder_atomic<E>(
    target: &Path,
    to_error: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<PathBuf, E>,
) -> Result<(), E> {
    let staging = temporary_neighbour(target);
    remove_any(&staging).and_then(|()| std::fs::create_dir(&staging)).map_err(&to_error)?;
    let result = fill(&staging).and_then(|tree| {
        sync_file_system(&tree).map_err(&to_error)?;
        match rename_durably(&tree, target) {
            Err(_) if target.is_dir() => Ok(()),
            other => other.map_err(&to_error),
        }
    });
    // A leftover only takes disk space.
    let _ = remove_any(&staging);
    result
}

/// Creates `path` and its missing parents, each with mode 0700 regardless of the umask; an existing folder keeps its
/// mode.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    create_private_dir_in(Path::new(""), path)
}

/// Like [`create_private_dir`], but fails if `root` is missing: a removed root is not recreated.
pub fn create_private_dir_in(root: &Path, path: &Path) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path == root {
        return Err(io::ErrorKind::NotFound.into());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        create_private_dir_in(root, parent)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => fs::set_permissions(path, Permissions::from_mode(0o700)),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(error),
    }
}

/// Removes a file or a whole folder; succeeds if it does not exist. Links are removed, not followed.
pub fn remove_any(path: &Path) -> io::Result<()> {
    let removed = match fs::symlink_metadata(path) {
        Ok(meta) if meta.is_dir() => fs::remove_dir_all(path),
        Ok(_) => fs::remove_file(path),
        Err(error) => Err(error),
    };
    match removed {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        other => other,
    }
}

/// True when `path` exists, without following links. A failed check is an error, not `false`.
pub fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives the owner all permissions on a folder and the folders below it; links are not followed.
pub fn make_folders_writable(path: &Path) -> io::Result<()> {
    if !fs::symlink_metadata(path)?.is_dir() {
        return Ok(());
    }
    let mode = mode(path)?;
    if mode & 0o700 != 0o700 {
        fs::set_permissions(path, Permissions::from_mode(mode | 0o700))?;
    }
    for entry in fs::read_dir(path)? {
        let entry = entry?;
        if entry.file_type()?.is_dir() {
            make_folders_writable(&entry.path())?;
        }
    }
    Ok(())
}

/// Reads a text file of at most `limit` bytes; `Ok(None)` when it does not exist. A folder, a larger file or one that
/// is not UTF-8 is an error.
pub fn read_text(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let Some(bytes) = read_regular(path, limit)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Reads a JSON file of at most `limit` bytes. A missing or damaged file gives the default; a failed read is an error,
/// because the file may be intact and a rewrite would lose its content.
pub fn read_json_or_default<T: DeserializeOwned + Default>(path: &Path, limit: u64) -> io::Result<T> {
    match read_text(path, limit) {
        Ok(text) => Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Reads a file of at most `limit` bytes; `Ok(None)` when it does not exist. Anything but a regular file is an error at
/// once: opening a pipe for reading would wait for a writer.
pub fn read_regular(path: &Path, limit: u64) -> io::Result<Option<Vec<u8>>> {
    let flags = nix::fcntl::OFlag::O_NONBLOCK | nix::fcntl::OFlag::O_NOCTTY;
    let file = match File::options().read(true).custom_flags(flags.bits()).open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    let kind = file.metadata()?.file_type();
    if kind.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    if !kind.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    file.take(limit + 1).read_to_end(&mut bytes)?;
    if bytes.len() as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::InvalidData, format!("larger than {limit} bytes")));
    }
    Ok(Some(bytes))
}

/// Creates an unnamed file in memory, which is removed with its last descriptor.
pub fn in_memory(name: &str) -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).map_err(io::Error::from)
}

/// The permission bits of `path`; follows links.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

/// The inode number of `path`, without following links; `None` when it does not exist.
pub fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

/// Replaces `link` atomically by a symbolic link to `target`.
pub fn replace_link(target: &Path, link: &Path) -> io::Result<()> {
    let neighbour = temporary_neighbour(link);
    remove_any(&neighbour)?;
    std::os::unix::fs::symlink(target, &neighbour)?;
    rename_durably(&neighbour, link)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_failed_write_leaves_the_old_file_and_no_neighbour() {
        let folder = tempfile::tempdir().unwrap();
        let blocked = folder.path().join("blocked");
        fs::create_dir(&blocked).unwrap();
        fs::write(blocked.join("inside"), "x").unwrap();
        assert!(write_atomic(&blocked, b"new", 0o600).is_err());
        let remaining: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(remaining.len(), 1, "only the blocking folder");
    }

    #[test]
    fn a_written_file_has_exactly_the_requested_mode() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        write_atomic(&path, b"a", 0o600).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o600);
        write_atomic(&path, b"b", 0o644).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o644);
        assert_eq!(fs::read(&path).unwrap(), b"b");
    }

    #[test]
    fn reading_refuses_anything_but_a_small_text_file() {
        let folder = tempfile::tempdir().unwrap();
        assert!(read_text(folder.path(), 10).is_err());
        let path = folder.path().join("f");
        assert!(read_text(&path, 10).unwrap().is_none());
        fs::write(&path, [0xff, 0xfe]).unwrap();
        assert!(read_text(&path, 10).is_err());
        fs::write(&path, "0123456789a").unwrap();
        assert!(read_text(&path, 10).is_err());
        assert_eq!(read_text(&path, 11).unwrap().unwrap().len(), 11);
    }
}

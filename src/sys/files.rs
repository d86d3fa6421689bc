//! Durable files: a file is whole or absent, and a rename that was reported has reached the disk.

use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

/// Writes `bytes` to a temporary neighbour, fsyncs it, renames it over `path` and fsyncs the
/// folder. Readers see the old content or the new, never a part, also after a power loss.
/// The mode is exact, whatever the umask.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let neighbour = temporary_neighbour(path);
    let written = write_synced(&neighbour, bytes, mode).and_then(|()| rename_durably(&neighbour, path));
    if written.is_err() {
        // The neighbour is ours and incomplete; the error that matters is already in hand.
        let _ = fs::remove_file(&neighbour);
    }
    written
}

/// A name beside `path` that this process alone uses: `.name.tmp-<pid>`.
pub fn temporary_neighbour(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.tmp-{}", std::process::id()))
}

/// Whether a name is one that `temporary_neighbour` gives.
pub fn is_temporary_neighbour(name: &str) -> bool {
    let pid = name.starts_with('.').then(|| name.rsplit_once(".tmp-")).flatten();
    pid.is_some_and(|(_, pid)| !pid.is_empty() && pid.bytes().all(|byte| byte.is_ascii_digit()))
}

/// Removes the temporary neighbours of processes that were killed. Only where no other process is
/// writing.
pub fn remove_temporary_neighbours(folder: &Path) -> io::Result<()> {
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        if is_temporary_neighbour(&entry.file_name().to_string_lossy()) {
            remove_any(&entry.path())?;
        }
    }
    Ok(())
}

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

/// Renames, but never over something: an error of kind `AlreadyExists` then.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    match renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE) {
        Ok(()) => Ok(()),
        // A file system that knows no such rename.
        Err(nix::Error::EINVAL | nix::Error::ENOSYS) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        Err(error) => Err(error.into()),
    }
}

/// Fsyncs the folder that holds `path`, which is what makes a new name there durable.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Flushes everything pending on the file system of `path` in one call: cheaper than an fsync a
/// file after thousands were unpacked.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    nix::unistd::syncfs(File::open(path)?).map_err(io::Error::from)
}

/// Puts a folder into its place, whole or not at all: `fill` makes it in a new folder beside it, and says where there.
/// What another process has put there meanwhile is the same. Nothing else is left.
pub fn make_whole<E>(
    target: &Path,
    told: impl Fn(io::Error) -> E,
    fill: impl FnOnce(&Path) -> Result<PathBuf, E>,
) -> Result<(), E> {
    let staging = temporary_neighbour(target);
    remove_any(&staging).and_then(|()| std::fs::create_dir(&staging)).map_err(&told)?;
    let result = fill(&staging).and_then(|tree| {
        sync_file_system(&tree).map_err(&told)?;
        match rename_durably(&tree, target) {
            Err(_) if target.is_dir() => Ok(()),
            other => other.map_err(&told),
        }
    });
    // What is left of it is nobody's.
    let _ = remove_any(&staging);
    result
}

/// Creates `path` and what is missing above it, each 0700 whatever the umask; an existing folder
/// keeps its mode.
pub fn create_private_dir(path: &Path) -> io::Result<()> {
    create_private_dir_in(Path::new(""), path)
}

/// The same, but that nothing is made in the place of `root`: what somebody has removed stays away.
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

/// Removes a file or a whole folder; nothing there is success. Links are removed, not followed.
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

/// Whether something is at `path`, links not followed. What cannot be found out is an error, and not "no".
pub fn is_there(path: &Path) -> io::Result<bool> {
    match fs::symlink_metadata(path) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
    }
}

/// Gives their owner all rights to a folder and the folders below it; links are not followed.
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

/// Reads a text file of at most `limit` bytes; `Ok(None)` when there is none.
/// A folder, a file over the limit or one that is not UTF-8 is an error.
pub fn read_text(path: &Path, limit: u64) -> io::Result<Option<String>> {
    let Some(bytes) = read_regular(path, limit)? else { return Ok(None) };
    String::from_utf8(bytes).map(Some).map_err(|_| io::Error::new(io::ErrorKind::InvalidData, "not UTF-8 text"))
}

/// Reads a JSON file of at most `limit` bytes. One that is absent or damaged gives the default; a failed read is an error,
/// because the file may be whole: a rewrite would lose what it holds.
pub fn read_json_or_default<T: DeserializeOwned + Default>(path: &Path, limit: u64) -> io::Result<T> {
    match read_text(path, limit) {
        Ok(text) => Ok(text.and_then(|text| serde_json::from_str(&text).ok()).unwrap_or_default()),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Ok(T::default()),
        Err(error) => Err(error),
    }
}

/// Reads a file of at most `limit` bytes; `Ok(None)` when there is none. Anything but a regular file is an error
/// at once: to open a pipe for reading would wait for a writer.
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

/// A file without a name, gone with its last descriptor.
pub fn in_memory(name: &str) -> io::Result<File> {
    use nix::sys::memfd::{MFdFlags, memfd_create};
    memfd_create(name, MFdFlags::MFD_CLOEXEC).map(File::from).map_err(io::Error::from)
}

/// Permission bits of `path`, links followed.
pub fn mode(path: &Path) -> io::Result<u32> {
    Ok(fs::metadata(path)?.permissions().mode() & 0o7777)
}

/// Which file is at `path`, links not followed; `None` when there is none.
pub fn inode(path: &Path) -> Option<u64> {
    fs::symlink_metadata(path).ok().map(|meta| meta.ino())
}

/// Replaces `link` by a symbolic link to `target`, with no moment at which there is none.
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
        let left: Vec<_> = fs::read_dir(folder.path()).unwrap().collect();
        assert_eq!(left.len(), 1, "only the folder that was in the way");
    }

    #[test]
    fn a_written_file_has_exactly_the_mode_asked_for() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("config.yaml");
        write_atomic(&path, b"a", 0o600).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o600);
        write_atomic(&path, b"b", 0o644).unwrap();
        assert_eq!(mode(&path).unwrap(), 0o644);
        assert_eq!(fs::read(&path).unwrap(), b"b");
    }

    #[test]
    fn reading_refuses_what_is_not_a_small_text_file() {
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

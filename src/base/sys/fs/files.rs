//! Durable files: a file is complete or absent, and a reported rename has reached the disk.

use super::folders::name_dangling_link;
use super::permissions;
use crate::sys::env_vars;
use crate::sys::is_portable;
use serde::de::DeserializeOwned;
use std::fs::{self, DirBuilder, File, OpenOptions, Permissions};
use std::io::{self, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// Writes `bytes` to a new temporary file beside `path` (its neighbour), fsyncs it, renames it over `path` and fsyncs
/// the folder. Readers see the old or the new content, never a part, even after a power loss; of two writers, one wins.
/// The mode is exact regardless of the umask, where the file system has modes.
pub fn write_atomic(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    let (file, neighbour) = create_neighbour(path, mode)?;
    let written = write_synced(file, bytes, mode).and_then(|()| rename_durably(&neighbour, path));
    if written.is_err() {
        // Removes our incomplete file. If that fails too, the first error is the one to report.
        let _ = fs::remove_file(&neighbour);
    }
    written
}

/// Number of names to try: other users of a shared folder can create files with our names.
const ATTEMPTS: u32 = 100;

/// Creates a temporary neighbour that did not exist. A link with that name is not followed.
pub fn create_neighbour(path: &Path, mode: u32) -> io::Result<(File, PathBuf)> {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    for _ in 0..ATTEMPTS {
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let neighbour = neighbour_named(path, &format!("{}.{number}", std::process::id()));
        match OpenOptions::new().write(true).create_new(true).mode(mode).open(&neighbour) {
            Ok(file) => return Ok((file, neighbour)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::ErrorKind::AlreadyExists.into())
}

/// The path beside a folder with the folder's name and `.extension`, such as `sales.env` for `sales`; `None` for a path
/// without a name.
pub fn beside(folder: &Path, extension: &str) -> Option<PathBuf> {
    let mut name = folder.file_name()?.to_owned();
    name.push(".");
    name.push(extension);
    Some(folder.with_file_name(name))
}

/// A name beside `path` that only this process uses: `.name.tmp-<pid>`.
pub fn temporary_neighbour(path: &Path) -> PathBuf {
    neighbour_named(path, &std::process::id().to_string())
}

fn neighbour_named(path: &Path, suffix: &str) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Keeps the whole name within 255 bytes, the limit of Linux and macOS.
    let length = name.floor_char_boundary(LONGEST_NAME);
    path.with_file_name(format!(".{}.tmp-{suffix}", &name[..length]))
}

/// Maximum number of bytes of a file's name that its neighbour's name contains.
const LONGEST_NAME: usize = 220;

/// True for a name of a temporary neighbour.
pub fn is_temporary_neighbour(name: &str) -> bool {
    neighbour_parts(name).is_some()
}

/// Parses a temporary neighbour's name into the file's name, of which a long one is cut off, and the process id.
pub fn neighbour_parts(name: &str) -> Option<(&str, i32)> {
    let (target, suffix) = name.strip_prefix('.')?.rsplit_once(".tmp-")?;
    let (pid, number) = suffix.split_once('.').unwrap_or((suffix, "0"));
    let is_number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    (is_number(pid) && is_number(number)).then(|| pid.parse().ok().map(|pid| (target, pid))).flatten()
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

/// Writes and fsyncs a new file with exactly this mode.
fn write_synced(mut file: File, bytes: &[u8], mode: u32) -> io::Result<()> {
    permissions::set_where_supported(&file, mode)?;
    file.write_all(bytes)?;
    sync(&file)
}

/// Renames and makes the rename durable. Both paths must be on one file system.
pub fn rename_durably(from: &Path, to: &Path) -> io::Result<()> {
    fs::rename(from, to)?;
    sync_parent(to)
}

/// Renames without replacing: fails with `AlreadyExists` if the target exists.
pub fn rename_to_new(from: &Path, to: &Path) -> io::Result<()> {
    match rename_exclusively(from, to) {
        // This file system cannot do it in one step.
        Err(nix::Error::EINVAL | nix::Error::ENOSYS | nix::Error::ENOTSUP) => match fs::symlink_metadata(to) {
            Ok(_) => Err(io::ErrorKind::AlreadyExists.into()),
            Err(_) => fs::rename(from, to),
        },
        result => Ok(result?),
    }
}

#[cfg(target_os = "linux")]
fn rename_exclusively(from: &Path, to: &Path) -> nix::Result<()> {
    use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
    if is_portable() {
        return Err(nix::Error::ENOSYS);
    }
    renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE)
}

#[cfg(not(target_os = "linux"))]
fn rename_exclusively(from: &Path, to: &Path) -> nix::Result<()> {
    use nix::NixPath;
    // SAFETY: both paths are C strings, which live as long as the call.
    let result = from.with_nix_path(|from| {
        to.with_nix_path(|to| unsafe { nix::libc::renamex_np(from.as_ptr(), to.as_ptr(), nix::libc::RENAME_EXCL) })
    })??;
    nix::errno::Errno::result(result).map(drop)
}

/// Fsyncs the folder that contains `path`, which makes a new name there durable. Some network file systems (CIFS, 9p)
/// and FUSE programs cannot fsync a folder, and some folders may be written but not read; there the name becomes
/// durable by itself a little later.
pub fn sync_parent(path: &Path) -> io::Result<()> {
    let parent = path.parent().map(|parent| if parent.as_os_str().is_empty() { Path::new(".") } else { parent });
    let Some(parent) = parent else { return Ok(()) };
    match File::open(parent).and_then(|folder| sync(&folder)) {
        Err(error) if has_no_folder_sync(&error) => Ok(()),
        other => other,
    }
}

fn has_no_folder_sync(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported | io::ErrorKind::PermissionDenied)
        || error.raw_os_error() == Some(nix::libc::EBADF)
}

/// Flushes a file or a folder with everything in it: on Linux by flushing its file system, which is cheaper than an fsync
/// per file after unpacking thousands.
pub fn sync_file_system(path: &Path) -> io::Result<()> {
    #[cfg(target_os = "linux")]
    if !is_portable() {
        return Ok(nix::unistd::syncfs(File::open(path)?)?);
    }
    sync_each(path, fs::metadata(path)?.file_type())?;
    // On macOS, only this call reaches the disk itself: it flushes the disk's cache.
    sync(&File::open(path)?)
}

/// Passes a file, or each file and folder in a folder, to the disk. Other processes may remove files meanwhile, and files
/// that this user may not read are not ours.
fn sync_each(path: &Path, kind: fs::FileType) -> io::Result<()> {
    if kind.is_dir() {
        for entry in fs::read_dir(path)? {
            let (path, kind) = entry.and_then(|entry| Ok((entry.path(), entry.file_type()?)))?;
            match sync_each(&path, kind) {
                Err(error) if matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::PermissionDenied) => {}
                result => result?,
            }
        }
    } else if !kind.is_file() {
        return Ok(());
    }
    match File::open(path).and_then(|file| Ok(nix::unistd::fsync(file)?)) {
        Err(error) if kind.is_dir() && has_no_folder_sync(&error) => Ok(()),
        result => result,
    }
}

/// Flushes a file to the disk itself. On macOS, network and foreign file systems (SMB, WebDAV, NTFS) can only do fsync(2).
pub fn sync(file: &File) -> io::Result<()> {
    match file.sync_all() {
        Err(error) if is_portable() && has_no_full_sync(&error) => Ok(nix::unistd::fsync(file)?),
        result => result,
    }
}

/// The errors of F_FULLFSYNC, fcntl(2), where a file system does not have it.
fn has_no_full_sync(error: &io::Error) -> bool {
    let errors = [nix::libc::ENOTSUP, nix::libc::EOPNOTSUPP, nix::libc::EINVAL, nix::libc::ENOTTY];
    error.raw_os_error().is_some_and(|number| errors.contains(&number))
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
    create_private_dir_by(root, path, |path| fs::set_permissions(path, Permissions::from_mode(0o700)))
}

/// Like [`create_private_dir`], on a file system without modes too.
pub fn create_dir_where_supported(path: &Path) -> io::Result<()> {
    create_private_dir_by(Path::new(""), path, |path| permissions::set_path_where_supported(path, 0o700))
}

/// Like [`create_private_dir_in`]; `set_mode` corrects the mode that the umask gave a new folder.
pub(super) fn create_private_dir_by(
    root: &Path,
    path: &Path,
    set_mode: impl Copy + Fn(&Path) -> io::Result<()>,
) -> io::Result<()> {
    if path.is_dir() {
        return Ok(());
    }
    if path == root {
        return Err(io::ErrorKind::NotFound.into());
    }
    if let Some(parent) = path.parent()
        && !parent.as_os_str().is_empty()
    {
        create_private_dir_by(root, parent, set_mode)?;
    }
    match DirBuilder::new().mode(0o700).create(path) {
        Ok(()) => set_mode(path),
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && path.is_dir() => Ok(()),
        Err(error) => Err(name_dangling_link(path, error)),
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

/// Reads a JSON file of at most `limit` bytes; `Ok(None)` when it does not exist. The error is `InvalidData` when the
/// file holds no JSON of this type.
pub fn read_json<T: DeserializeOwned>(path: &Path, limit: u64) -> io::Result<Option<T>> {
    let parsed = read_text(path, limit)?.map(|text| serde_json::from_str(&text)).transpose();
    parsed.map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))
}

/// Reads a JSON file of at most `limit` bytes. A missing or damaged file gives the default; a failed read is an error,
/// because the file may be intact and a rewrite would lose its content.
pub fn read_json_or_default<T: DeserializeOwned + Default>(path: &Path, limit: u64) -> io::Result<T> {
    match read_json(path, limit) {
        Ok(value) => Ok(value.unwrap_or_default()),
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

/// Creates an unnamed file in memory, or among the temporary files where the system has none in memory. It is removed with
/// its last descriptor.
pub fn in_memory(name: &str) -> io::Result<File> {
    #[cfg(target_os = "linux")]
    if !is_portable() {
        use nix::sys::memfd::{MFdFlags, memfd_create};
        return Ok(memfd_create(name, MFdFlags::MFD_CLOEXEC)?.into());
    }
    let (_, path) = create_neighbour(&env_vars::temporary_folder().join(name), 0o600)?;
    let file = OpenOptions::new().read(true).write(true).open(&path);
    fs::remove_file(path)?;
    file
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
    fn a_write_is_exclusive_and_follows_no_link() {
        let folder = tempfile::tempdir().unwrap();
        let (path, victim) = (folder.path().join("f"), folder.path().join("victim"));
        fs::write(&victim, "precious").unwrap();
        // Another user of a shared folder has created links with names that this process may use.
        for number in 0..3 {
            let next = neighbour_named(&path, &format!("{}.{number}", std::process::id()));
            std::os::unix::fs::symlink(&victim, next).unwrap();
        }
        std::os::unix::fs::symlink(&victim, temporary_neighbour(&path)).unwrap();
        std::thread::scope(|scope| {
            for text in ["aaaaaaaa", "bbbb"] {
                let path = &path;
                scope.spawn(move || (0..50).for_each(|_| write_atomic(path, text.as_bytes(), 0o600).unwrap()));
            }
        });
        assert!(["aaaaaaaa", "bbbb"].contains(&fs::read_to_string(&path).unwrap().as_str()));
        assert_eq!(fs::read_to_string(&victim).unwrap(), "precious");
    }

    #[test]
    fn neighbours_are_recognized_and_fit_the_name_limit() {
        let folder = tempfile::tempdir().unwrap();
        let long = folder.path().join("ü".repeat(127));
        write_atomic(&long, b"x", 0o600).unwrap();
        let (_, neighbour) = create_neighbour(&folder.path().join("a.tar.zst"), 0o600).unwrap();
        let pid = i32::try_from(std::process::id()).unwrap();
        let name = neighbour.file_name().unwrap().to_string_lossy().into_owned();
        assert_eq!(neighbour_parts(&name), Some(("a.tar.zst", pid)));
        assert_eq!(neighbour_parts(".f.tmp-12"), Some(("f", 12)));
        for other in ["f.tmp-12", ".f.tmp-", ".f.tmp-1a", ".f.tmp-1.", ".f.tmp-1.2.3"] {
            assert!(!is_temporary_neighbour(other), "{other}");
        }
    }

    /// Folders of `/proc` cannot be synced, like those of CIFS.
    #[test]
    fn a_folder_that_cannot_be_synced_is_no_error() {
        assert!(File::open("/proc/self").unwrap().sync_all().is_err());
        sync_parent(Path::new("/proc/self/comm")).unwrap();
        sync_parent(Path::new("Cargo.toml")).unwrap();
        assert!(sync_parent(Path::new("/missing/file")).is_err());
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

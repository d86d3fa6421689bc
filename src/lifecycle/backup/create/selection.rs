//! Decides which paths of the workspace and of the task logs a backup contains, and walks through them. It excludes
//! what other tools store elsewhere or can recreate. Restores use the same decision: a restore keeps the existing files
//! that a backup would omit.

use super::own_backups::OwnBackups;
use crate::backup::format::manifest::link_stays_inside;
use leoflow_base::home::{DELETED_TASK_LOGS, Home, LOST_AND_FOUND, RESTORE_IN_WORKSPACE};
use leoflow_base::sys::fs::beneath::{Entry, Folder, Kind};
use std::convert::Infallible;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
pub enum Selection {
    File,
    Folder,
    Link {
        target: String,
    },
    /// Omitted on purpose, see `is_excluded`.
    Excluded,
    /// Cannot be backed up, for this reason.
    Skipped(String),
}

/// Maximum number of nested folders; deeper trees are a mistake or an attack.
const DEPTH_LIMIT: usize = 100;
/// Reason for skipping folders and backups of Leoflow.
pub(crate) const BELONGS_TO_LEOFLOW: &str = "it belongs to Leoflow";

/// Classifies a path relative to the workspace; `entry` is its last component, in `folder`.
pub fn in_workspace(folder: &Folder, entry: &Entry, path: &Path, own: &OwnBackups) -> Selection {
    if let Some(reason) = unsupported_path_reason(path) {
        return Selection::Skipped(reason.to_owned());
    }
    if is_own_folder(entry, path) || own.has(folder, entry) {
        return Selection::Skipped(BELONGS_TO_LEOFLOW.to_owned());
    }
    if is_excluded(folder, entry) {
        return Selection::Excluded;
    }
    match entry.kind {
        Kind::File => file_selection(folder, entry),
        Kind::Folder => Selection::Folder,
        Kind::Link => link(folder, entry, path),
        Kind::Other => Selection::Skipped("it is a FIFO, a socket or a device".to_owned()),
    }
}

/// Classifies a path relative to the task logs.
pub(crate) fn in_task_logs(folder: &Folder, entry: &Entry, path: &Path) -> Selection {
    if let Some(reason) = unsupported_path_reason(path) {
        return Selection::Skipped(reason.to_owned());
    }
    if is_own_folder(entry, path) {
        return Selection::Skipped(BELONGS_TO_LEOFLOW.to_owned());
    }
    if path == Path::new(DELETED_TASK_LOGS) {
        return Selection::Excluded;
    }
    match entry.kind {
        Kind::File => file_selection(folder, entry),
        Kind::Folder => Selection::Folder,
        Kind::Link | Kind::Other => Selection::Skipped("it is not a regular file".to_owned()),
    }
}

/// True for a top-level folder that a restore creates.
fn is_own_folder(entry: &Entry, path: &Path) -> bool {
    path.components().count() == 1 && entry.name.to_string_lossy().starts_with(RESTORE_IN_WORKSPACE)
}

/// Includes a file only if it can be read.
fn file_selection(folder: &Folder, entry: &Entry) -> Selection {
    match folder.open_file(&entry.name) {
        Ok(_) => Selection::File,
        Err(error) => Selection::Skipped(format!("cannot read it: {error}")),
    }
}

/// Includes a link only if it stays inside the workspace.
fn link(folder: &Folder, entry: &Entry, path: &Path) -> Selection {
    match folder.link_target(&entry.name).map(OsString::into_string) {
        Ok(Ok(target)) if link_stays_inside(&path.to_string_lossy(), &target) => Selection::Link { target },
        Ok(Ok(target)) => Selection::Skipped(format!("it is a link out of the workspace, to {target}")),
        Ok(Err(_)) => Selection::Skipped("it is a link to a name that is not UTF-8 text".to_owned()),
        Err(error) => Selection::Skipped(format!("cannot read it: {error}")),
    }
}

/// Reason why a manifest cannot represent the path; `None` if it can.
fn unsupported_path_reason(path: &Path) -> Option<&'static str> {
    match path.to_str() {
        None => Some("its name is not UTF-8 text"),
        Some(text) if text.chars().any(char::is_control) => Some("its name contains a control character"),
        Some(text) if text.len() > 3900 => Some("its path is too long"),
        Some(_) if path.components().count() > DEPTH_LIMIT + 1 => Some("it is nested too deeply"),
        Some(_) => None,
    }
}

/// What [`walk`] finds.
pub enum Visit<'a> {
    Entry {
        folder: &'a Folder,
        entry: &'a Entry,
        /// Relative to the root.
        path: &'a Path,
        selection: Selection,
    },
    /// A folder that cannot be read; the empty path is the root.
    Unreadable { path: &'a Path, error: io::Error },
}

type Select<'a> = &'a dyn Fn(&Folder, &Entry, &Path) -> Selection;

/// Visits what is below `root`, folders before their content. Descends only into folders that `select` includes.
pub fn walk<E>(root: &Folder, select: Select<'_>, visit: &mut impl FnMut(Visit<'_>) -> Result<(), E>) -> Result<(), E> {
    walk_below(root, Path::new(""), select, visit)
}

fn walk_below<E>(
    root: &Folder,
    relative: &Path,
    select: Select<'_>,
    visit: &mut impl FnMut(Visit<'_>) -> Result<(), E>,
) -> Result<(), E> {
    let (folder, entries) = match root.below(relative).and_then(|folder| Ok((folder.entries()?, folder))) {
        Ok((entries, folder)) => (folder, entries),
        Err(error) => return visit(Visit::Unreadable { path: relative, error }),
    };
    for entry in &entries {
        let path = relative.join(&entry.name);
        let selection = select(&folder, entry, &path);
        let is_folder = selection == Selection::Folder;
        visit(Visit::Entry { folder: &folder, entry, path: &path, selection })?;
        if is_folder {
            walk_below(root, &path, select, visit)?;
        }
    }
    Ok(())
}

/// Lists the paths in a workspace that backups omit, each with everything below it.
pub(crate) fn omitted_in_workspace(root: &Folder, own: &OwnBackups) -> io::Result<Vec<PathBuf>> {
    find_omitted(root, &|folder, entry, path| in_workspace(folder, entry, path, own))
}

/// Lists the paths in the task logs that backups omit.
pub(crate) fn omitted_in_task_logs(root: &Folder) -> io::Result<Vec<PathBuf>> {
    find_omitted(root, &in_task_logs)
}

fn find_omitted(root: &Folder, select: Select<'_>) -> io::Result<Vec<PathBuf>> {
    let mut omitted = Vec::new();
    walk(root, select, &mut |found| {
        match found {
            // If an unreadable root counted as empty, a restore would keep none of its files.
            Visit::Unreadable { path, error } if path.as_os_str().is_empty() => return Err(error),
            // A backup could not read it either.
            Visit::Unreadable { path, .. }
            | Visit::Entry { path, selection: Selection::Excluded | Selection::Skipped(_), .. } => {
                omitted.push(path.to_owned());
            }
            Visit::Entry { .. } => {}
        }
        Ok(())
    })?;
    Ok(omitted)
}

/// Disk space of the workspace and of at most `task_logs_bytes` of task logs, in bytes. An unreadable folder counts as
/// empty, because a backup skips it.
pub(crate) fn files_size(home: &Home, workspace: Option<&Path>, task_logs_bytes: u64) -> u64 {
    let own = OwnBackups::of(home);
    let roots = [Some(home.root().to_owned()), home.root().canonicalize().ok()];
    let is_home = |path: &Path| roots.iter().flatten().any(|root| root == path);
    let workspace_bytes = workspace.map_or(0, |root| {
        size(root, &|folder, entry, path| match is_home(&root.join(path)) {
            true => Selection::Excluded,
            false => in_workspace(folder, entry, path, &own),
        })
    });
    workspace_bytes.saturating_add(size(&home.task_logs(), &in_task_logs).min(task_logs_bytes))
}

/// Disk space of the files below `root` that `select` includes, in bytes.
fn size(root: &Path, select: Select<'_>) -> u64 {
    let Ok(root) = Folder::open(root) else { return 0 };
    let mut total = 0_u64;
    let Ok(()) = walk(&root, select, &mut |found| -> Result<(), Infallible> {
        if let Visit::Entry { entry, selection: Selection::File, .. } = found {
            // Not the holes of a sparse file. A file system that compresses also allocates less.
            let is_sparse = entry.allocated < entry.size / 2;
            total = total.saturating_add(if is_sparse { entry.allocated } else { entry.size });
        }
        Ok(())
    });
    total
}

const VERSION_CONTROL: &[&str] = &[".git", ".hg", ".svn", ".bzr", ".jj", "_darcs", "CVS"];
const CACHES: &[&str] =
    &["__pycache__", "node_modules", ".tox", ".nox", ".mypy_cache", ".pytest_cache", ".ruff_cache", ".cache"];

/// True when an entry of `folder` is excluded with everything below it. A folder with `pyvenv.cfg` is a virtual
/// environment (PEP 405), one with `CACHEDIR.TAG` a cache (<https://bford.info/cachedir/>).
pub fn is_excluded(folder: &Folder, entry: &Entry) -> bool {
    let Some(name) = entry.name.to_str() else { return false };
    // `.git` is a file in a worktree or submodule.
    if name == ".git" && entry.kind == Kind::File || is_deleted_but_open(name) {
        return true;
    }
    if entry.kind != Kind::Folder {
        return false;
    }
    VERSION_CONTROL.contains(&name)
        || CACHES.contains(&name)
        || name == LOST_AND_FOUND
        || folder.below(Path::new(name)).is_ok_and(|inside| inside.has("pyvenv.cfg") || inside.has("CACHEDIR.TAG"))
}

/// True for the name that NFS or FUSE gives to a deleted file that a program still has open, such as this backup's
/// spool.
fn is_deleted_but_open(name: &str) -> bool {
    [".nfs", ".fuse_hidden"].iter().any(|start| {
        name.strip_prefix(start)
            .is_some_and(|rest| rest.len() >= 16 && rest.bytes().all(|byte| byte.is_ascii_hexdigit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::sys::fs::sparse;
    use std::fs;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    #[test]
    fn finds_everything_a_backup_omits() {
        let tree = tempfile::tempdir().unwrap();
        let root = tree.path();
        fs::create_dir_all(root.join("p/.git")).unwrap();
        fs::create_dir_all(root.join("p/plain")).unwrap();
        fs::write(root.join("p/dag.py"), "x").unwrap();
        symlink("dag.py", root.join("p/inside")).unwrap();
        symlink("/etc", root.join("p/outside")).unwrap();
        nix::unistd::mkfifo(&root.join("fifo"), nix::sys::stat::Mode::from_bits_truncate(0o600)).unwrap();
        fs::write(root.join("new\nline"), "x").unwrap();
        fs::write(root.join("leoflow-backup-20260101T000000Z.tar.zst"), "x").unwrap();
        let non_utf8 = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.csv"));
        fs::write(root.join(non_utf8), "x").unwrap();
        let folder = Folder::open(root).unwrap();
        let mut omitted = omitted_in_workspace(&folder, &OwnBackups::default()).unwrap();
        omitted.sort();
        let mut expected: Vec<PathBuf> =
            ["fifo", "leoflow-backup-20260101T000000Z.tar.zst", "new\nline", "p/.git", "p/outside"]
                .map(PathBuf::from)
                .into();
        expected.push(non_utf8.to_owned());
        expected.sort();
        assert_eq!(omitted, expected);
    }

    #[test]
    fn removed_files_on_shares_are_excluded() {
        for name in [".nfs000000000012d68700000001", ".fuse_hidden0000000700000001"] {
            assert!(is_deleted_but_open(name), "{name}");
        }
        for name in [".nfs", ".nfs-server.yaml", ".fuse_hidden", "nfs000000000012d68700000001"] {
            assert!(!is_deleted_but_open(name), "{name}");
        }
    }

    #[test]
    fn counts_files_in_a_backup() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("home"))).unwrap();
        home.create().unwrap();
        let workspace = folder.path().join("w");
        fs::create_dir_all(workspace.join("a/.git")).unwrap();
        fs::write(workspace.join("a/dag.py"), [b'x'; 100]).unwrap();
        fs::write(workspace.join("a/.git/pack"), [b'x'; 1000]).unwrap();
        fs::create_dir_all(home.task_logs().join("dag/run")).unwrap();
        fs::write(home.task_logs().join("dag/run/1.log"), [b'x'; 50]).unwrap();
        assert_eq!(files_size(&home, Some(&workspace), u64::MAX), 150);
        assert_eq!(files_size(&home, Some(&workspace), 20), 120);
        assert_eq!(files_size(&home, Some(&folder.path().join("none")), 0), 0);
        let sparse = fs::File::create(workspace.join("a/sparse")).unwrap();
        sparse.set_len(64 * 1024 * 1024).unwrap();
        match sparse::is_sparse(&sparse.metadata().unwrap()) {
            true => assert!(files_size(&home, Some(&workspace), 20) < 1_000_000),
            false => eprintln!("skipped: no holes here"),
        }
    }
}

//! Decides which paths of the workspace and of the task logs a backup contains. Restores use the same decision: a
//! restore keeps the existing files that a backup would omit.

use super::excluded::{OWN_FOLDER, is_excluded};
use super::own_backups::OwnBackups;
use crate::backup::format::manifest::link_stays_inside;
use leoflow_base::home::DELETED_TASK_LOGS;
use leoflow_base::sys::fs::beneath::{Entry, Folder, Kind};
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
    /// Omitted on purpose, see `excluded`.
    Excluded,
    /// Cannot be backed up, for this reason.
    Skipped(String),
}

/// Maximum number of nested folders; deeper trees are a mistake or an attack.
const DEPTH_LIMIT: usize = 100;
/// Reason for skipping folders and backups of Leoflow.
pub const BELONGS_TO_LEOFLOW: &str = "it belongs to Leoflow";

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
pub fn in_task_logs(folder: &Folder, entry: &Entry, path: &Path) -> Selection {
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
    path.components().count() == 1 && entry.name.to_string_lossy().starts_with(OWN_FOLDER)
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

/// Lists the paths in a workspace that backups omit, each with everything below it.
pub fn omitted_in_workspace(root: &Folder, own: &OwnBackups) -> io::Result<Vec<PathBuf>> {
    find_omitted(root, &|folder, entry, path| in_workspace(folder, entry, path, own))
}

/// Lists the paths in the task logs that backups omit.
pub fn omitted_in_task_logs(root: &Folder) -> io::Result<Vec<PathBuf>> {
    find_omitted(root, &in_task_logs)
}

type Select<'a> = &'a dyn Fn(&Folder, &Entry, &Path) -> Selection;

fn find_omitted(root: &Folder, select: Select<'_>) -> io::Result<Vec<PathBuf>> {
    let mut omitted = Vec::new();
    // An unreadable root is an error: if it counted as empty, a restore would keep none of its files.
    find_omitted_below(root, Path::new(""), root.entries()?, select, &mut omitted);
    Ok(omitted)
}

fn find_omitted_below(
    root: &Folder,
    relative: &Path,
    entries: Vec<Entry>,
    select: Select<'_>,
    omitted: &mut Vec<PathBuf>,
) {
    let Ok(folder) = root.below(relative) else {
        omitted.push(relative.to_owned());
        return;
    };
    for entry in entries {
        let path = relative.join(&entry.name);
        match select(&folder, &entry, &path) {
            Selection::File | Selection::Link { .. } => {}
            Selection::Excluded | Selection::Skipped(_) => omitted.push(path),
            // A backup could not read it either.
            Selection::Folder => match root.below(&path).and_then(|inside| inside.entries()) {
                Ok(entries) => find_omitted_below(root, &path, entries, select, omitted),
                Err(_) => omitted.push(path),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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
}

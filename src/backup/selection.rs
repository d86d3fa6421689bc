//! What a backup does with each name in a workspace and in the task logs. A backup and a restore ask the same functions:
//! what a backup does not take, a restore does not take away.

use super::left_out::{OWN_FOLDER, is_left_out};
use super::manifest::link_stays_inside;
use super::own_backups::OwnBackups;
use crate::sys::beneath::{Entry, Folder, Kind};
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
    /// Other tools keep it, or make it again.
    LeftOut,
    /// With the reason.
    Skipped(String),
}

/// Deeper trees are a mistake, or a trap.
const DEPTH_LIMIT: usize = 100;
pub const OWN: &str = "it is Leoflow's own";

/// `path` is relative to the workspace; `entry` is its last part, in `folder`.
pub fn in_workspace(folder: &Folder, entry: &Entry, path: &Path, own: &OwnBackups) -> Selection {
    if let Some(reason) = unfit(path) {
        return Selection::Skipped(reason.to_owned());
    }
    if is_own_folder(entry, path) || own.has(folder, entry) {
        return Selection::Skipped(OWN.to_owned());
    }
    if is_left_out(folder, entry) {
        return Selection::LeftOut;
    }
    match entry.kind {
        Kind::File => readable(folder, entry),
        Kind::Folder => Selection::Folder,
        Kind::Link => link(folder, entry, path),
        Kind::Other => Selection::Skipped("it is a FIFO, a socket or a device".to_owned()),
    }
}

/// `path` is relative to the task logs.
pub fn in_task_logs(folder: &Folder, entry: &Entry, path: &Path) -> Selection {
    if let Some(reason) = unfit(path) {
        return Selection::Skipped(reason.to_owned());
    }
    if is_own_folder(entry, path) {
        return Selection::Skipped(OWN.to_owned());
    }
    match entry.kind {
        Kind::File => readable(folder, entry),
        Kind::Folder => Selection::Folder,
        Kind::Link | Kind::Other => Selection::Skipped("it is not a regular file".to_owned()),
    }
}

fn is_own_folder(entry: &Entry, path: &Path) -> bool {
    path.components().count() == 1 && entry.name.to_string_lossy().starts_with(OWN_FOLDER)
}

fn readable(folder: &Folder, entry: &Entry) -> Selection {
    match folder.open_file(&entry.name) {
        Ok(_) => Selection::File,
        Err(error) => Selection::Skipped(format!("it cannot be read: {error}")),
    }
}

fn link(folder: &Folder, entry: &Entry, path: &Path) -> Selection {
    match folder.link_target(&entry.name).map(OsString::into_string) {
        Ok(Ok(target)) if link_stays_inside(&path.to_string_lossy(), &target) => Selection::Link { target },
        Ok(Ok(target)) => Selection::Skipped(format!("it is a link that leads out of the workspace, to {target}")),
        Ok(Err(_)) => Selection::Skipped("it is a link to a name that is not UTF-8 text".to_owned()),
        Err(error) => Selection::Skipped(format!("it cannot be read: {error}")),
    }
}

/// What a manifest cannot hold.
fn unfit(path: &Path) -> Option<&'static str> {
    match path.to_str() {
        None => Some("its name is not UTF-8 text"),
        Some(text) if text.chars().any(char::is_control) => Some("its name holds a control character"),
        Some(text) if text.len() > 3900 => Some("its path is too long"),
        Some(_) if path.components().count() > DEPTH_LIMIT + 1 => Some("it is too deep in folders"),
        Some(_) => None,
    }
}

/// Paths in a workspace that no backup holds, each with all below it.
pub fn unheld_in_workspace(root: &Folder, own: &OwnBackups) -> io::Result<Vec<PathBuf>> {
    find(root, &|folder, entry, path| in_workspace(folder, entry, path, own))
}

/// The same in the task logs.
pub fn unheld_in_task_logs(root: &Folder) -> io::Result<Vec<PathBuf>> {
    find(root, &in_task_logs)
}

type Select<'a> = &'a dyn Fn(&Folder, &Entry, &Path) -> Selection;

fn find(root: &Folder, select: Select<'_>) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    // A root that cannot be read is an error: as an empty one it would lose everything.
    find_below(root, Path::new(""), root.entries()?, select, &mut found);
    Ok(found)
}

fn find_below(root: &Folder, below: &Path, entries: Vec<Entry>, select: Select<'_>, found: &mut Vec<PathBuf>) {
    let Ok(folder) = root.below(below) else {
        found.push(below.to_owned());
        return;
    };
    for entry in entries {
        let path = below.join(&entry.name);
        match select(&folder, &entry, &path) {
            Selection::File | Selection::Link { .. } => {}
            Selection::LeftOut | Selection::Skipped(_) => found.push(path),
            // No backup could read it either.
            Selection::Folder => match root.below(&path).and_then(|inside| inside.entries()) {
                Ok(entries) => find_below(root, &path, entries, select, found),
                Err(_) => found.push(path),
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
    fn finds_all_that_a_backup_does_not_take() {
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
        let odd = Path::new(std::ffi::OsStr::from_bytes(b"caf\xe9.csv"));
        fs::write(root.join(odd), "x").unwrap();
        let folder = Folder::open(root).unwrap();
        let mut found = unheld_in_workspace(&folder, &OwnBackups::default()).unwrap();
        found.sort();
        let mut expected: Vec<PathBuf> =
            ["fifo", "leoflow-backup-20260101T000000Z.tar.zst", "new\nline", "p/.git", "p/outside"]
                .map(PathBuf::from)
                .into();
        expected.push(odd.to_owned());
        expected.sort();
        assert_eq!(found, expected);
    }
}

//! What stays in its place though a backup comes into force: what that backup does not have by its own account. It is
//! written down with the restore, because undoing it has no manifest to ask.

use super::manifest::{Manifest, TASK_LOGS, WORKSPACE};
use super::selection::{self, Selection};
use crate::sys::beneath::Folder;
use crate::sys::files;
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::io;
use std::path::{Component, Path};

/// Paths relative to the folder; the empty one is the folder itself, all that the backup lacks in it.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Stays {
    pub workspace: BTreeSet<String>,
    pub task_logs: BTreeSet<String>,
}

/// As many paths as a manifest names.
const LIMIT: u64 = 256 * 1024 * 1024;

impl Stays {
    /// `workspace` and `task_logs` are the folders in force, real; `input` is the backup.
    pub fn of(manifest: &Manifest, input: &Path, workspace: Option<&Path>, task_logs: &Path) -> io::Result<Self> {
        let named = manifest.skipped.iter().map(|one| &one.path).chain(&manifest.left_out);
        let of_place = |top: &str| -> BTreeSet<String> {
            named.clone().filter_map(|path| below(top, path)).filter(|path| is_plain(path)).map(str::to_owned).collect()
        };
        let mut stays = Self { workspace: of_place(WORKSPACE), task_logs: of_place(TASK_LOGS) };
        // A backup that is restored from is not in itself.
        let input = input.canonicalize().ok();
        let inside = input.as_deref().zip(workspace).and_then(|(input, root)| input.strip_prefix(root).ok());
        stays.workspace.extend(inside.and_then(Path::to_str).map(str::to_owned));
        if stays.task_logs.remove("") {
            stays.task_logs.extend(older_logs(manifest, task_logs)?);
        }
        Ok(stays)
    }

    pub fn write(&self, place: &Path) -> io::Result<()> {
        files::write_atomic(place, &serde_json::to_vec(self)?, 0o600)
    }

    /// None are written down by a release before this one.
    pub fn read(place: &Path) -> io::Result<Self> {
        Ok(files::read_text(place, LIMIT)?.map(|text| serde_json::from_str(&text)).transpose()?.unwrap_or_default())
    }
}

fn below<'a>(top: &str, path: &'a str) -> Option<&'a str> {
    let rest = path.strip_prefix(top)?;
    if rest.is_empty() { Some(rest) } else { rest.strip_prefix('/') }
}

/// A manifest may say anything.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Logs that were there when the backup was made, and were over its limit.
fn older_logs(manifest: &Manifest, root: &Path) -> io::Result<Vec<String>> {
    let held: HashSet<&str> = manifest.entries.iter().filter_map(|entry| below(TASK_LOGS, &entry.path)).collect();
    let made = manifest.created_at.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_second);
    let mut found = Vec::new();
    let folder = match Folder::open(root) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        Err(error) => return Err(error),
    };
    let mut folders = vec![Path::new("").to_owned()];
    while let Some(below) = folders.pop() {
        // One that cannot be read stays as a whole.
        let Ok((entries, inside)) = folder.below(&below).and_then(|inside| Ok((inside.entries()?, inside))) else {
            continue;
        };
        for entry in entries {
            let path = below.join(&entry.name);
            match (selection::in_task_logs(&inside, &entry, &path), path.to_str()) {
                (Selection::Folder, _) => folders.push(path),
                (Selection::File, Some(text)) if entry.modified <= made && !held.contains(text) => {
                    found.push(text.to_owned());
                }
                _ => {}
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::super::manifest::Skipped;
    use super::super::manifest::tests::manifest;
    use super::*;

    fn skipped(path: &str) -> Skipped {
        Skipped { path: path.to_owned(), reason: String::new() }
    }

    #[test]
    fn what_the_backup_lacks_and_the_backup_itself_stay() {
        let root = tempfile::tempdir().unwrap();
        let workspace = root.path().canonicalize().unwrap();
        let input = workspace.join("mine.age");
        std::fs::write(&input, "x").unwrap();
        let mut manifest = manifest(vec![]);
        manifest.skipped =
            ["workspace/data/db.sqlite", "workspace/../../etc", "workspaces/x", "database/v"].map(skipped).into();
        manifest.left_out = vec!["workspace/p/.git".to_owned()];
        let stays = Stays::of(&manifest, &input, Some(&workspace), &workspace.join("none")).unwrap();
        assert_eq!(stays.workspace.into_iter().collect::<Vec<_>>(), ["data/db.sqlite", "mine.age", "p/.git"]);
    }

    #[test]
    fn logs_over_the_limit_stay_and_later_ones_do_not() {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = manifest(vec![]);
        manifest.created_at = "2026-01-01T00:00:00Z".to_owned();
        manifest.skipped = vec![skipped("task-logs")];
        std::fs::create_dir(root.path().join("hello")).unwrap();
        for (name, year) in [("hello/old.log", 1_700_000_000), ("hello/new.log", 1_900_000_000)] {
            let file = std::fs::File::create(root.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(year)).unwrap();
        }
        let stays = Stays::of(&manifest, Path::new("/none"), None, root.path()).unwrap();
        assert_eq!(stays.task_logs.into_iter().collect::<Vec<_>>(), ["hello/old.log"]);
    }
}

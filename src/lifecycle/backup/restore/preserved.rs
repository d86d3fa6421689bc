//! Paths that an exchange keeps because the backup's manifest lists them as missing. They are stored in the restore
//! directory, because an undo has no manifest.

use crate::backup::create::selection::{self, Selection, Visit};
use crate::backup::format::manifest::{Manifest, TASK_LOGS, WORKSPACE};
use jiff::Timestamp;
use leoflow_base::sys::fs::beneath::Folder;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::convert::Infallible;
use std::io;
use std::path::{Component, Path};

/// The preserved paths, relative to the workspace and the task logs. An empty path stands for all entries of the folder
/// that the backup lacks.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct PreservedPaths {
    pub workspace: BTreeSet<String>,
    pub task_logs: BTreeSet<String>,
}

/// Size limit of the file, in bytes; enough for the largest manifest.
const LIMIT: u64 = 256 * 1024 * 1024;

impl PreservedPaths {
    /// Derives the paths from the manifest. `workspace` and `task_logs` are canonical paths of the current folders;
    /// `input` is the path of the backup itself, which is preserved too. Fails if the task logs cannot be read.
    pub fn of(manifest: &Manifest, input: &Path, workspace: Option<&Path>, task_logs: &Path) -> io::Result<Self> {
        let missing_paths = manifest.skipped.iter().map(|skipped| &skipped.path).chain(&manifest.left_out);
        let paths_in = |top: &str| -> BTreeSet<String> {
            missing_paths
                .clone()
                .filter_map(|path| relative_to(top, path))
                .filter(|path| is_plain(path))
                .map(str::to_owned)
                .collect()
        };
        let mut preserved = Self { workspace: paths_in(WORKSPACE), task_logs: paths_in(TASK_LOGS) };
        // The backup being restored does not contain itself.
        let input = input.canonicalize().ok();
        let input_in_workspace =
            input.as_deref().zip(workspace).and_then(|(input, root)| input.strip_prefix(root).ok());
        preserved.workspace.extend(input_in_workspace.and_then(Path::to_str).map(str::to_owned));
        if preserved.task_logs.remove("") {
            preserved.task_logs.extend(older_logs(manifest, task_logs)?);
        }
        Ok(preserved)
    }

    pub fn write(&self, path: &Path) -> io::Result<()> {
        files::write_atomic(path, &serde_json::to_vec(self)?, 0o600)
    }

    /// Reads the file; empty if it does not exist, because earlier releases did not write it.
    pub fn read(path: &Path) -> io::Result<Self> {
        Ok(files::read_json(path, LIMIT)?.unwrap_or_default())
    }
}

/// `path` relative to the folder `top`; empty for `top` itself, `None` if it is outside.
fn relative_to<'a>(top: &str, path: &'a str) -> Option<&'a str> {
    let suffix = path.strip_prefix(top)?;
    if suffix.is_empty() { Some(suffix) } else { suffix.strip_prefix('/') }
}

/// True if the path has only plain names. Manifests are untrusted: one may contain `..`.
fn is_plain(path: &str) -> bool {
    Path::new(path).components().all(|part| matches!(part, Component::Normal(_)))
}

/// Lists logs that existed when the backup was created but exceeded its size limit.
fn older_logs(manifest: &Manifest, root: &Path) -> io::Result<Vec<String>> {
    let backup_paths: HashSet<&str> =
        manifest.entries.iter().filter_map(|entry| relative_to(TASK_LOGS, &entry.path)).collect();
    let created = manifest.created_at.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_second);
    let mut logs = Vec::new();
    let folder = match Folder::open(root) {
        Ok(folder) => folder,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(logs),
        Err(error) => return Err(error),
    };
    // An unreadable folder is carried over as a whole.
    let Ok(()) = selection::walk(&folder, &selection::in_task_logs, &mut |found| -> Result<(), Infallible> {
        if let Visit::Entry { entry, path, selection: Selection::File, .. } = found
            && let Some(path) = path.to_str()
            && entry.modified <= created
            && !backup_paths.contains(path)
        {
            logs.push(path.to_owned());
        }
        Ok(())
    });
    Ok(logs)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::format::manifest::Skipped;
    use crate::backup::format::manifest::tests::manifest;

    fn skipped(path: &str) -> Skipped {
        Skipped { path: path.to_owned(), reason: String::new() }
    }

    #[test]
    fn missing_paths_and_the_backup_itself_stay() {
        let root = tempfile::tempdir().unwrap();
        let workspace = root.path().canonicalize().unwrap();
        let input = workspace.join("mine.age");
        std::fs::write(&input, "x").unwrap();
        let mut manifest = manifest(vec![]);
        manifest.skipped =
            ["workspace/data/db.sqlite", "workspace/../../etc", "workspaces/x", "database/v"].map(skipped).into();
        manifest.left_out = vec!["workspace/p/.git".to_owned()];
        let preserved = PreservedPaths::of(&manifest, &input, Some(&workspace), &workspace.join("none")).unwrap();
        assert_eq!(preserved.workspace.into_iter().collect::<Vec<_>>(), ["data/db.sqlite", "mine.age", "p/.git"]);
    }

    #[test]
    fn logs_over_the_limit_stay() {
        let root = tempfile::tempdir().unwrap();
        let mut manifest = manifest(vec![]);
        manifest.created_at = "2026-01-01T00:00:00Z".to_owned();
        manifest.skipped = vec![skipped("task-logs")];
        std::fs::create_dir(root.path().join("hello")).unwrap();
        for (name, year) in [("hello/old.log", 1_700_000_000), ("hello/new.log", 1_900_000_000)] {
            let file = std::fs::File::create(root.path().join(name)).unwrap();
            file.set_modified(std::time::UNIX_EPOCH + std::time::Duration::from_secs(year)).unwrap();
        }
        let preserved = PreservedPaths::of(&manifest, Path::new("/none"), None, root.path()).unwrap();
        assert_eq!(preserved.task_logs.into_iter().collect::<Vec<_>>(), ["hello/old.log"]);
    }
}

//! Finds files in a workspace that a restore would replace although the backup does not contain their current content.

use super::preserved::PreservedPaths;
use crate::backup::create::own_backups::OwnBackups;
use crate::backup::create::selection::{self, Selection, Visit};
use crate::backup::format::manifest::{Manifest, WORKSPACE};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::beneath::{Entry, Folder};
use std::collections::HashSet;
use std::convert::Infallible;
use std::path::Path;

/// Lists such files by their paths relative to the workspace. Skips unreadable folders, because a restore keeps them.
/// `input` is the path of the backup.
pub fn newer_files(home: &Home, manifest: &Manifest, input: &Path, workspace: &Path) -> Vec<String> {
    let Ok(workspace) = workspace.canonicalize() else { return Vec::new() };
    let Ok(preserved) = PreservedPaths::of(manifest, input, Some(&workspace), &home.task_logs()) else {
        return Vec::new();
    };
    let Ok(root) = Folder::open(&workspace) else { return Vec::new() };
    let (own, prefix) = (OwnBackups::of(home), format!("{WORKSPACE}/"));
    let backup_paths: HashSet<&str> =
        manifest.entries.iter().filter_map(|entry| entry.path.strip_prefix(&prefix)).collect();
    // Seconds since 1970.
    let created = manifest.created_at.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_second);
    let select = |folder: &Folder, entry: &Entry, path: &Path| match path.to_str() {
        Some(text) if !preserved.workspace.contains(text) => selection::in_workspace(folder, entry, path, &own),
        _ => Selection::Excluded,
    };
    let mut paths = Vec::new();
    let Ok(()) = selection::walk(&root, &select, &mut |found| -> Result<(), Infallible> {
        if let Visit::Entry { entry, path, selection, .. } = found
            && let Some(path) = path.to_str()
        {
            let is_in_backup = backup_paths.contains(path);
            let is_newer = match selection {
                Selection::File => !is_in_backup || entry.modified > created,
                Selection::Link { .. } => !is_in_backup,
                _ => false,
            };
            paths.extend(is_newer.then(|| path.to_owned()));
        }
        Ok(())
    });
    paths
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backup::format::manifest::tests::manifest;
    use crate::backup::format::manifest::{Content, Entry, Skipped};
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn finds_files_created_or_changed_since_the_backup() {
        let tree = tempfile::tempdir().unwrap();
        let workspace = tree.path().join("workspace");
        fs::create_dir_all(workspace.join("p/.git")).unwrap();
        let write = |path: &str, year: u64| {
            let file = fs::File::create(workspace.join(path)).unwrap();
            file.set_modified(UNIX_EPOCH + Duration::from_secs((year - 1970) * 31_557_600)).unwrap();
        };
        for (path, year) in [
            ("p/same.py", 2020),
            ("p/changed.py", 2026),
            ("p/new.py", 2026),
            ("p/copied.py", 2020),
            ("p/.git/config", 2026),
            ("p/unread.csv", 2026),
        ] {
            write(path, year);
        }
        let entry =
            |path: &str| Entry { path: format!("workspace/{path}"), content: Content::Directory { private: false } };
        let mut manifest = manifest(["p", "p/same.py", "p/changed.py"].map(entry).into());
        manifest.created_at = "2024-01-01T00:00:00Z".to_owned();
        manifest.skipped = vec![Skipped { path: "workspace/p/unread.csv".into(), reason: String::new() }];
        let home = leoflow_base::home::resolve(Some(&tree.path().join("home"))).unwrap();
        let paths = newer_files(&home, &manifest, Path::new("/none"), &workspace);
        assert_eq!(paths, ["p/changed.py", "p/copied.py", "p/new.py"]);
    }
}

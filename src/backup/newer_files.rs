//! Files of a workspace that a restore replaces and its backup does not hold as they are now: made or changed since.

use super::manifest::{Manifest, WORKSPACE};
use super::own_backups::OwnBackups;
use super::selection::{self, Selection};
use super::stays::Stays;
use crate::home::Home;
use crate::sys::beneath::Folder;
use jiff::Timestamp;
use std::collections::HashSet;
use std::path::{Path, PathBuf};

/// Paths relative to the workspace, in order. A workspace or a folder that cannot be read has none: a restore leaves that
/// in its place. `input` is the backup.
pub fn newer_files(home: &Home, manifest: &Manifest, input: &Path, workspace: &Path) -> Vec<String> {
    let Ok(workspace) = workspace.canonicalize() else { return Vec::new() };
    let Ok(stays) = Stays::of(manifest, input, Some(&workspace), &home.task_logs()) else { return Vec::new() };
    let Ok(root) = Folder::open(&workspace) else { return Vec::new() };
    let prefix = format!("{WORKSPACE}/");
    let search = Search {
        root: &root,
        own: OwnBackups::of(home),
        stays: &stays,
        held: manifest.entries.iter().filter_map(|entry| entry.path.strip_prefix(&prefix)).collect(),
        made: manifest.created_at.parse::<Timestamp>().map_or(i64::MAX, Timestamp::as_second),
    };
    let mut found = Vec::new();
    search.add(Path::new(""), &mut found);
    found
}

struct Search<'a> {
    root: &'a Folder,
    own: OwnBackups,
    stays: &'a Stays,
    /// Paths that the backup has.
    held: HashSet<&'a str>,
    /// When the backup was made, seconds since 1970.
    made: i64,
}

impl Search<'_> {
    fn add(&self, below: &Path, found: &mut Vec<String>) {
        let Ok((folder, entries)) =
            self.root.below(below).and_then(|folder| folder.entries().map(|entries| (folder, entries)))
        else {
            return;
        };
        for entry in entries {
            let path: PathBuf = below.join(&entry.name);
            let Some(text) = path.to_str().filter(|text| !self.stays.workspace.contains(*text)) else { continue };
            let is_held = self.held.contains(text);
            match selection::in_workspace(&folder, &entry, &path, &self.own) {
                Selection::Folder => self.add(&path, found),
                Selection::File if !is_held || entry.modified > self.made => found.push(text.to_owned()),
                Selection::Link { .. } if !is_held => found.push(text.to_owned()),
                _ => {}
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::manifest::tests::manifest;
    use super::super::manifest::{Content, Entry, Skipped};
    use super::*;
    use std::fs;
    use std::time::{Duration, UNIX_EPOCH};

    #[test]
    fn finds_what_was_made_or_changed_since_the_backup() {
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
        let home = crate::home::resolve(Some(&tree.path().join("home"))).unwrap();
        let found = newer_files(&home, &manifest, Path::new("/none"), &workspace);
        assert_eq!(found, ["p/changed.py", "p/copied.py", "p/new.py"]);
    }
}

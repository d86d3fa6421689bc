//! Computes the size of the files in a backup without reading them.

use super::own_backups::OwnBackups;
use super::selection::{self, Selection};
use leoflow_base::home::Home;
use leoflow_base::sys::fs::beneath::{Entry, Folder};
use std::path::{Path, PathBuf};

/// Disk space of the workspace and of at most `task_logs_bytes` of task logs, in bytes. An unreadable folder counts as empty,
/// because a backup skips it.
pub(crate) fn files_size(home: &Home, workspace: Option<&Path>, task_logs_bytes: u64) -> u64 {
    let own = OwnBackups::of(home);
    let roots = [Some(home.root().to_owned()), home.root().canonicalize().ok()];
    let is_home = |path: &Path| roots.iter().flatten().any(|root| root == path);
    let workspace_bytes = workspace.map_or(0, |root| {
        size(root, &|folder, entry, path| match is_home(&root.join(path)) {
            true => Selection::Excluded,
            false => selection::in_workspace(folder, entry, path, &own),
        })
    });
    let log_bytes = size(&home.task_logs(), &|folder, entry, path| selection::in_task_logs(folder, entry, path));
    workspace_bytes.saturating_add(log_bytes.min(task_logs_bytes))
}

/// Disk space of the files below `root` that `select` includes, in bytes.
fn size(root: &Path, select: &dyn Fn(&Folder, &Entry, &Path) -> Selection) -> u64 {
    let Ok(root) = Folder::open(root) else { return 0 };
    let (mut total, mut folders) = (0_u64, vec![PathBuf::new()]);
    while let Some(relative) = folders.pop() {
        let Ok(folder) = root.below(&relative) else { continue };
        let Ok(entries) = folder.entries() else { continue };
        for entry in entries {
            let path = relative.join(&entry.name);
            match select(&folder, &entry, &path) {
                Selection::Folder => folders.push(path),
                // Not the holes of a sparse file. A file system that compresses also allocates less.
                Selection::File => {
                    let is_sparse = entry.allocated < entry.size / 2;
                    total = total.saturating_add(if is_sparse { entry.allocated } else { entry.size });
                }
                Selection::Link { .. } | Selection::Excluded | Selection::Skipped(_) => {}
            }
        }
    }
    total
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::sys::fs::sparse;
    use std::fs;

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

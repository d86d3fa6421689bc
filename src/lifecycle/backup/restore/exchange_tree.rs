//! Exchanges the entries of one folder, the workspace or the task logs. The folder itself stays, so that a mount on it,
//! links to it and working directories of processes remain valid.

use super::exchange_error::{ExchangeError, io_error};
use crate::backup::create::own_backups::OwnBackups;
use leoflow_base::home::RESTORE_IN_WORKSPACE;
use leoflow_base::sys::fs::{files, folders};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The kind of folder.
#[derive(Clone, Copy)]
pub enum Tree<'a> {
    Workspace(&'a OwnBackups),
    /// The task logs; only the owner may read them.
    TaskLogs,
}

/// The exchange of one folder. Each step detects its own progress from the disk, so that it can be repeated.
pub struct TreeExchange<'a> {
    pub tree: Tree<'a>,
    /// Canonical path of the folder; `None` if the exchange does not change it.
    pub root: Option<&'a Path>,
    /// Folder with the subfolders `in`, for the new content, and `out`, for the replaced content.
    pub staging_dir: &'a Path,
    /// File with the names of the entries that `move_in` moves into the folder.
    pub names: PathBuf,
    /// File with the plan of `carry_over`.
    pub carried: PathBuf,
    /// Folder for entries whose path is occupied.
    pub conflicts: PathBuf,
    /// Paths that the backup does not contain, see `PreservedPaths`.
    pub preserved: &'a BTreeSet<String>,
    /// True for a folder that cannot be moved; directly in `root`, it stays.
    pub is_fixed: fn(&Path) -> bool,
}

/// Records in the file `list` the names of the incoming entries, before anything moves.
pub fn write_names(incoming: &Path, list: &Path) -> Result<(), ExchangeError> {
    let text = serde_json::to_vec(&names(incoming)?).map_err(|error| ExchangeError::Plan(error.to_string()))?;
    files::write_atomic(list, &text, 0o600).map_err(|source| io_error("write", list, source))
}

fn read_names(list: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let text = files::read_text(list, LIST_LIMIT).map_err(|source| io_error("read", list, source))?;
    serde_json::from_str(&text.unwrap_or_else(|| "[]".to_owned()))
        .map_err(|error| ExchangeError::Plan(error.to_string()))
}

/// Size limit of a list of names, in bytes; enough for the largest backup.
pub(super) const LIST_LIMIT: u64 = 256 * 1024 * 1024;

/// Prefix of folders for entries whose path an exchange found occupied. They belong to the user.
pub const CONFLICTS: &str = ".leoflow-conflicts-";

/// True for folders that restores create; an exchange does not move them.
fn is_own(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(RESTORE_IN_WORKSPACE) || name.starts_with(CONFLICTS)
}

/// Names in a folder; empty if it does not exist.
pub(super) fn names(folder: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let paths = folders::entries(folder).map_err(|source| io_error("read", folder, source))?;
    Ok(paths.iter().filter_map(|path| path.file_name()).map(OsStr::to_owned).collect())
}

/// True if anything exists at the path, even a dangling link.
pub(super) fn is_there(path: &Path) -> Result<bool, ExchangeError> {
    files::is_there(path).map_err(|source| io_error("read", path, source))
}

pub(super) fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

impl TreeExchange<'_> {
    fn incoming(&self) -> PathBuf {
        self.staging_dir.join("in")
    }

    pub(super) fn out(&self) -> PathBuf {
        self.staging_dir.join("out")
    }

    fn create_folder(&self, folder: &Path) -> Result<(), ExchangeError> {
        let result = match self.tree {
            Tree::Workspace(_) => folders::create_all(folder),
            Tree::TaskLogs => files::create_private_dir(folder),
        };
        result.map_err(|source| io_error("create", folder, source))
    }

    /// Moves the current entries to `out`.
    pub fn move_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        self.create_folder(root)?;
        self.create_folder(&self.out())?;
        for name in names(root)?.iter().filter(|name| !is_own(name) && !(self.is_fixed)(&root.join(name))) {
            self.move_entry(&root.join(name), &self.out().join(name))?;
        }
        Ok(())
    }

    /// Moves the new entries from `in` into the folder.
    pub fn move_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.incoming())? {
            self.move_entry(&self.incoming().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Undoes `move_in`. Moves only recorded names: an entry that appeared meanwhile belongs to the user.
    pub fn undo_move_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        let incoming = self.incoming();
        self.create_folder(&incoming)?;
        for name in read_names(&self.names)? {
            let (from, to) = (root.join(&name), incoming.join(&name));
            if !is_there(&to)? && is_there(&from)? && !(self.is_fixed)(&from) {
                self.move_entry(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Undoes `move_out`.
    pub fn undo_move_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.out())? {
            self.move_entry(&self.out().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Moves an entry without overwriting: an entry that appeared in the folder while an exchange was interrupted moves
    /// to the conflicts folder.
    pub(super) fn move_entry(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        let failed = |source| io_error("move", from, source);
        match files::rename_to_new(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed),
        }
        let is_in_root = self.root.is_some_and(|root| to.parent() == Some(root));
        let newcomer = if is_in_root && !(self.is_fixed)(to) { to } else { from };
        files::create_dir_where_supported(&self.conflicts).map_err(failed)?;
        let name = newcomer.file_name().unwrap_or_default();
        let free = (0..).map(|number: u32| match number {
            0 => self.conflicts.join(name),
            number => self.conflicts.join(format!("{}.{number}", name.to_string_lossy())),
        });
        for target in free {
            match files::rename_to_new(newcomer, &target) {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                other => {
                    other.map_err(failed)?;
                    break;
                }
            }
        }
        if newcomer == to { files::rename_to_new(from, to).map_err(failed) } else { Ok(()) }
    }

    /// Renames `out` to `in`, so that the next exchange restores the replaced content, and removes the plan of
    /// `carry_over`.
    pub fn retain_replaced(&self) -> Result<(), ExchangeError> {
        let (incoming, out) = (self.incoming(), self.out());
        if is_there(&out)? {
            if let Err(error) = fs::remove_dir(&incoming)
                && error.kind() != io::ErrorKind::NotFound
            {
                // `in` should be empty now. Keep unexpected entries in `rest`.
                let unexpected = self.staging_dir.join("rest");
                files::remove_any(&unexpected)
                    .and_then(|()| fs::rename(&incoming, &unexpected))
                    .map_err(|source| io_error("move", &incoming, source))?;
            }
            fs::rename(&out, &incoming).map_err(|source| io_error("move", &out, source))?;
        }
        files::remove_any(&self.carried).map_err(|source| io_error("remove", &self.carried, source))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;
    use std::os::unix::fs::symlink;

    struct Folders {
        root: tempfile::TempDir,
        own: OwnBackups,
        preserved: BTreeSet<String>,
    }

    impl Folders {
        fn new() -> Self {
            let folders =
                Self { root: tempfile::tempdir().unwrap(), own: OwnBackups::default(), preserved: BTreeSet::new() };
            for name in ["workspace", "beside/in"] {
                fs::create_dir_all(folders.path(name)).unwrap();
            }
            folders
        }

        fn path(&self, name: &str) -> PathBuf {
            self.root.path().join(name)
        }

        fn write(&self, name: impl AsRef<Path>) {
            let path = self.root.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, path.as_os_str().as_bytes()).unwrap();
        }

        /// Lists all files and links in the workspace.
        fn workspace(&self) -> Vec<PathBuf> {
            let (root, mut found, mut folders) = (self.path("workspace"), Vec::new(), vec![self.path("workspace")]);
            while let Some(folder) = folders.pop() {
                for entry in fs::read_dir(folder).unwrap().flatten() {
                    match entry.file_type().unwrap().is_dir() {
                        true => folders.push(entry.path()),
                        false => found.push(entry.path().strip_prefix(&root).unwrap().to_owned()),
                    }
                }
            }
            found.sort();
            found
        }

        fn exchange(&self, steps: impl FnOnce(&TreeExchange<'_>) -> Result<(), ExchangeError>) {
            let (root, staging_dir) = (self.path("workspace"), self.path("beside"));
            let exchange = TreeExchange {
                tree: Tree::Workspace(&self.own),
                root: Some(&root),
                staging_dir: &staging_dir,
                names: self.path("names.json"),
                carried: self.path("carried.json"),
                conflicts: root.join(".leoflow-conflicts-1"),
                preserved: &self.preserved,
                is_fixed: |path| path.ends_with("lost+found"),
            };
            steps(&exchange).unwrap();
        }

        fn forward(&self) {
            write_names(&self.path("beside/in"), &self.path("names.json")).unwrap();
            self.exchange(|tree| tree.move_out().and_then(|()| tree.move_in()).and_then(|()| tree.carry_over()));
        }
    }

    fn paths(names: &[&str]) -> Vec<PathBuf> {
        names.iter().map(PathBuf::from).collect()
    }

    #[test]
    fn keeps_omitted_files_through_exchange_and_undo() {
        let mut folders = Folders::new();
        folders.preserved = ["data/db.sqlite".to_owned()].into();
        for name in ["dag.py", "later.py", "data/db.sqlite", "new/.git/HEAD", "leoflow-backup-1.tar.zst"] {
            folders.write(Path::new("workspace").join(name));
        }
        let non_utf8 = Path::new(OsStr::from_bytes(b"data/caf\xe9.csv"));
        folders.write(Path::new("workspace").join(non_utf8));
        symlink("/etc", folders.path("workspace/outside")).unwrap();
        let before = folders.workspace();
        folders.write("beside/in/dag.py");
        folders.forward();
        let mut expected = paths(&["dag.py", "data/db.sqlite", "leoflow-backup-1.tar.zst", "new/.git/HEAD", "outside"]);
        expected.push(non_utf8.to_owned());
        expected.sort();
        assert_eq!(folders.workspace(), expected);
        // Undoes each step, as after a failure.
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.undo_move_in()).and_then(|()| tree.undo_move_out()));
        assert_eq!(folders.workspace(), before);
        assert!(!folders.path("workspace/.leoflow-conflicts-1").exists());
        // Completes an exchange; a second one restores the replaced content.
        folders.forward();
        folders.exchange(|tree| tree.retain_replaced());
        assert_eq!(folders.workspace(), expected);
        folders.forward();
        assert_eq!(folders.workspace(), before);
    }

    #[test]
    fn moves_entries_in_the_way_to_conflicts() {
        let folders = Folders::new();
        folders.write("workspace/cache/CACHEDIR.TAG");
        folders.write("workspace/data/.git/HEAD");
        folders.write("beside/in/cache/file");
        folders.write("beside/in/data");
        folders.forward();
        let expected =
            [".leoflow-conflicts-1/cache/CACHEDIR.TAG", ".leoflow-conflicts-1/data/.git/HEAD", "cache/file", "data"];
        assert_eq!(folders.workspace(), paths(&expected));
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.undo_move_in()).and_then(|()| tree.undo_move_out()));
        assert_eq!(folders.workspace(), paths(&["cache/CACHEDIR.TAG", "data/.git/HEAD"]));
    }

    #[test]
    fn a_folder_that_cannot_be_moved_stays() {
        let folders = Folders::new();
        folders.write("workspace/dag.py");
        folders.write("workspace/lost+found/1");
        folders.write("beside/in/new.py");
        // The backup is of a user who could read it.
        folders.write("beside/in/lost+found/2");
        let inode = || files::inode(&folders.path("workspace/lost+found"));
        let before = inode();
        folders.forward();
        let conflict = ".leoflow-conflicts-1/lost+found/2";
        assert_eq!(folders.workspace(), paths(&[conflict, "lost+found/1", "new.py"]));
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.undo_move_in()).and_then(|()| tree.undo_move_out()));
        assert_eq!(folders.workspace(), paths(&[conflict, "dag.py", "lost+found/1"]));
        assert_eq!(inode(), before);
    }

    #[test]
    fn resumes_an_interrupted_carry() {
        let folders = Folders::new();
        folders.write("workspace/a/.git/HEAD");
        folders.write("workspace/b/.git/HEAD");
        folders.forward();
        // The state after a kill between the two moves.
        fs::create_dir_all(folders.path("beside/out/b")).unwrap();
        fs::rename(folders.path("workspace/b/.git"), folders.path("beside/out/b/.git")).unwrap();
        folders.exchange(|tree| tree.carry_over());
        assert_eq!(folders.workspace(), paths(&["a/.git/HEAD", "b/.git/HEAD"]));
    }
}

//! The part of an exchange for one folder, the workspace or the task logs: its entries move but the folder stays, and
//! with it mounts, links to it, and working directories of processes.

use super::exchange_error::{ExchangeError, io_error};
use crate::backup::create::excluded::OWN_FOLDER;
use crate::backup::create::own_backups::OwnBackups;
use crate::backup::create::selection::{omitted_in_task_logs, omitted_in_workspace};
use leoflow_base::sys::fs::beneath::Folder;
use leoflow_base::sys::fs::files;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::{self, Permissions};
use std::io;
use std::os::unix::fs::PermissionsExt;
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
    /// Canonical path of the folder; `None` leaves it alone.
    pub root: Option<&'a Path>,
    /// Folder of the content that is not current: `in` holds what becomes current, `out` what is replaced.
    pub staging_dir: &'a Path,
    /// File with the names of the entries that `move_in` moves into the folder.
    pub names: PathBuf,
    /// File with the plan of `carry_over`.
    pub carried: PathBuf,
    /// Folder for entries that are in the way.
    pub conflicts: PathBuf,
    /// Paths that the backup reports as missing.
    pub preserved: &'a BTreeSet<String>,
}

/// Plan of `carry_over`, recorded before the first move. Names are bytes, since not all are UTF-8.
#[derive(Debug, Default, Serialize, Deserialize)]
struct CarryPlan {
    /// Folders to create, parents first.
    folders: Vec<OsString>,
    moves: Vec<Carry>,
}

/// One move of `carry_over`.
#[derive(Debug, Serialize, Deserialize)]
struct Carry {
    /// Relative to `out`.
    from: OsString,
    /// Relative to the current folder; differs from `from` if that path is taken.
    to: OsString,
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

/// Size limit of a list with as many names as a backup may have, in bytes.
const LIST_LIMIT: u64 = 256 * 1024 * 1024;

/// Prefix of folders for entries that were in the way of an exchange. They belong to the user.
pub const CONFLICTS: &str = ".leoflow-conflicts-";

/// True for folders that restores create; an exchange does not move them.
fn is_own(name: &OsStr) -> bool {
    let name = name.to_string_lossy();
    name.starts_with(OWN_FOLDER) || name.starts_with(CONFLICTS)
}

/// Names in a folder; empty if it does not exist.
fn names(folder: &Path) -> Result<Vec<OsString>, ExchangeError> {
    let failed = |source| io_error("read", folder, source);
    match fs::read_dir(folder) {
        Ok(entries) => {
            entries.map(|entry| entry.map(|entry| entry.file_name())).collect::<io::Result<_>>().map_err(failed)
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
}

/// True for anything at the path, even a dangling link.
fn is_there(path: &Path) -> Result<bool, ExchangeError> {
    files::is_there(path).map_err(|source| io_error("read", path, source))
}

fn is_folder(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.is_dir())
}

impl TreeExchange<'_> {
    fn incoming(&self) -> PathBuf {
        self.staging_dir.join("in")
    }

    fn out(&self) -> PathBuf {
        self.staging_dir.join("out")
    }

    fn create_folder(&self, folder: &Path) -> Result<(), ExchangeError> {
        let result = match self.tree {
            Tree::Workspace(_) => fs::create_dir_all(folder),
            Tree::TaskLogs => files::create_private_dir(folder),
        };
        result.map_err(|source| io_error("create", folder, source))
    }

    pub fn move_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        self.create_folder(root)?;
        self.create_folder(&self.out())?;
        for name in names(root)?.iter().filter(|name| !is_own(name)) {
            self.move_entry(&root.join(name), &self.out().join(name))?;
        }
        Ok(())
    }

    pub fn move_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.incoming())? {
            self.move_entry(&self.incoming().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Undoes `move_in`. Moves back only recorded names: anything that appeared meanwhile is the user's.
    pub fn move_back_in(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        let incoming = self.incoming();
        self.create_folder(&incoming)?;
        for name in read_names(&self.names)? {
            let (from, to) = (root.join(&name), incoming.join(&name));
            if !is_there(&to)? && is_there(&from)? {
                self.move_entry(&from, &to)?;
            }
        }
        Ok(())
    }

    /// Undoes `move_out`.
    pub fn move_back_out(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        for name in names(&self.out())? {
            self.move_entry(&self.out().join(&name), &root.join(&name))?;
        }
        Ok(())
    }

    /// Moves an entry without overwriting: an entry that appeared in the folder while an exchange was interrupted moves
    /// to the conflicts folder.
    fn move_entry(&self, from: &Path, to: &Path) -> Result<(), ExchangeError> {
        let failed = |source| io_error("move", from, source);
        match files::rename_to_new(from, to) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            other => return other.map_err(failed),
        }
        let newcomer = if self.root.is_some_and(|root| to.parent() == Some(root)) { to } else { from };
        files::create_private_dir(&self.conflicts).map_err(failed)?;
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

    /// Moves entries that no backup contains back to their place: `.git`, virtual environments, files that could not be
    /// copied. If the place is taken, they go to the conflicts folder.
    pub fn carry_over(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        let plan = self.carry_plan(root)?;
        for folder in &plan.folders {
            create_like(&self.out().join(folder), &root.join(folder))?;
        }
        for Carry { from, to } in &plan.moves {
            let (from, to) = (self.out().join(from), root.join(to));
            if !is_there(&from)? {
                continue;
            }
            if is_folder(&from) && is_folder(&to) {
                // An empty folder is replaced; removal fails if it has content by now.
                match fs::remove_dir(&to) {
                    Err(error) if error.kind() == io::ErrorKind::DirectoryNotEmpty => {}
                    other => other.map_err(|source| io_error("remove", &to, source))?,
                }
            }
            self.move_entry(&from, &to)?;
        }
        Ok(())
    }

    /// Undoes `carry_over`.
    pub fn carry_back(&self) -> Result<(), ExchangeError> {
        let Some(root) = self.root else { return Ok(()) };
        if !is_there(&self.carried)? {
            return Ok(());
        }
        let plan = self.carry_plan(root)?;
        for Carry { from, to } in &plan.moves {
            let (target, out) = (root.join(to), self.out().join(from));
            if !is_there(&out)? && is_there(&target)? {
                fs::rename(&target, &out).map_err(|source| io_error("move", &target, source))?;
            }
        }
        for folder in plan.folders.iter().rev() {
            let folder = root.join(folder);
            match fs::remove_dir(&folder) {
                Err(error) if !matches!(error.kind(), io::ErrorKind::NotFound | io::ErrorKind::DirectoryNotEmpty) => {
                    return Err(io_error("remove", &folder, error));
                }
                _ => {}
            }
        }
        files::remove_any(&self.carried).map_err(|source| io_error("remove", &self.carried, source))
    }

    /// Reads the recorded plan; computes and records it on the first call.
    fn carry_plan(&self, root: &Path) -> Result<CarryPlan, ExchangeError> {
        let failed = |source| io_error("read or write", &self.carried, source);
        let invalid = |error: serde_json::Error| ExchangeError::Plan(error.to_string());
        if let Some(text) = files::read_text(&self.carried, LIST_LIMIT).map_err(failed)? {
            return serde_json::from_str(&text).map_err(invalid);
        }
        let plan = self.build_carry_plan(root)?;
        files::write_atomic(&self.carried, &serde_json::to_vec(&plan).map_err(invalid)?, 0o600).map_err(failed)?;
        Ok(plan)
    }

    fn build_carry_plan(&self, root: &Path) -> Result<CarryPlan, ExchangeError> {
        let out = self.out();
        let failed = |source| io_error("read", &out, source);
        let outgoing = Folder::open(&out).map_err(failed)?;
        let omitted = match self.tree {
            Tree::Workspace(own) => omitted_in_workspace(&outgoing, own),
            Tree::TaskLogs => omitted_in_task_logs(&outgoing),
        };
        let mut paths: BTreeSet<PathBuf> = omitted.map_err(failed)?.into_iter().collect();
        for path in self.preserved {
            self.add_missing(root, &outgoing, Path::new(path), &mut paths)?;
        }
        let (mut plan, mut folders, mut parent) = (CarryPlan::default(), BTreeSet::new(), None::<PathBuf>);
        for path in paths {
            // Entries below another one move with it.
            if parent.as_ref().is_some_and(|parent| path.starts_with(parent)) {
                continue;
            }
            let (to, missing) = self.target_for(root, &path, &plan.moves)?;
            folders.extend(missing);
            plan.moves.push(Carry { from: path.clone().into(), to: to.into() });
            parent = Some(path);
        }
        plan.folders = folders.into_iter().map(PathBuf::into_os_string).collect();
        Ok(plan)
    }

    /// Adds to `carried` the entries at `path` that were moved out and that the new content lacks.
    fn add_missing(
        &self,
        root: &Path,
        outgoing: &Folder,
        path: &Path,
        carried: &mut BTreeSet<PathBuf>,
    ) -> Result<(), ExchangeError> {
        if carried.contains(path) {
            // Carried over as a whole.
            return Ok(());
        }
        let (from, to) = (self.out().join(path), root.join(path));
        // Links are not followed.
        if outgoing.below(path.parent().unwrap_or(Path::new(""))).is_err() || !is_there(&from)? {
            return Ok(());
        }
        if missing_folders(root, path)?.is_none() || !is_there(&to)? {
            carried.insert(path.to_owned());
        } else if is_folder(&from) && is_folder(&to) {
            match names(&from) {
                Ok(names) => {
                    for name in names {
                        self.add_missing(root, outgoing, &path.join(name), carried)?;
                    }
                }
                Err(ExchangeError::Io { source, .. }) if source.kind() == io::ErrorKind::PermissionDenied => {
                    carried.insert(path.to_owned());
                }
                Err(error) => return Err(error),
            }
        }
        Ok(())
    }

    /// Chooses where to carry the entry `path`: to the same path, or to a free one in the conflicts folder. Also
    /// returns the parent folders to create.
    fn target_for(
        &self,
        root: &Path,
        path: &Path,
        planned_moves: &[Carry],
    ) -> Result<(PathBuf, Vec<PathBuf>), ExchangeError> {
        let is_replaceable = is_folder(&self.out().join(path)) && is_empty_folder(&root.join(path))?;
        if let Some(missing) = missing_folders(root, path)?
            && (is_replaceable || !is_there(&root.join(path))?)
        {
            return Ok((path.to_owned(), missing));
        }
        let conflicts = PathBuf::from(self.conflicts.file_name().unwrap_or_default());
        for number in 0u32.. {
            let target = match number {
                0 => conflicts.join(path),
                number => conflicts.join(number.to_string()).join(path),
            };
            let is_taken =
                is_there(&root.join(&target))? || planned_moves.iter().any(|carry| carry.to == target.as_os_str());
            if let Some(missing) = missing_folders(root, &target)?
                && !is_taken
            {
                return Ok((target, missing));
            }
        }
        Err(io_error("find a free name in", &self.conflicts, io::ErrorKind::AlreadyExists.into()))
    }

    /// Renames `out` to `in`, so that the next exchange would restore the replaced content.
    pub fn settle(&self) -> Result<(), ExchangeError> {
        let (incoming, out) = (self.incoming(), self.out());
        if is_there(&out)? {
            if let Err(error) = fs::remove_dir(&incoming)
                && error.kind() != io::ErrorKind::NotFound
            {
                // Nothing should be left in it; if something is, it is moved out of the way.
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

/// Missing parent folders of `path` in `root`, parents first; `None` if something else occupies one.
fn missing_folders(root: &Path, path: &Path) -> Result<Option<Vec<PathBuf>>, ExchangeError> {
    let mut parents: Vec<&Path> = path.ancestors().skip(1).filter(|folder| !folder.as_os_str().is_empty()).collect();
    parents.reverse();
    let mut missing = Vec::new();
    for folder in parents {
        if !is_there(&root.join(folder))? {
            missing.push(folder.to_owned());
        } else if !is_folder(&root.join(folder)) {
            return Ok(None);
        }
    }
    Ok(Some(missing))
}

fn is_empty_folder(path: &Path) -> Result<bool, ExchangeError> {
    Ok(is_folder(path) && names(path)?.is_empty())
}

/// Creates `folder` with the permissions of `model` (at least the owner's); private if `model` is not a folder.
fn create_like(model: &Path, folder: &Path) -> Result<(), ExchangeError> {
    let failed = |source| io_error("create", folder, source);
    files::create_private_dir(folder).map_err(failed)?;
    match fs::symlink_metadata(model) {
        Ok(meta) if meta.is_dir() => {
            fs::set_permissions(folder, Permissions::from_mode(meta.permissions().mode() & 0o7777 | 0o700))
                .map_err(failed)
        }
        _ => Ok(()),
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

        /// Every file and link in the workspace.
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
        // A failed step undoes all of it.
        folders
            .exchange(|tree| tree.carry_back().and_then(|()| tree.move_back_in()).and_then(|()| tree.move_back_out()));
        assert_eq!(folders.workspace(), before);
        assert!(!folders.path("workspace/.leoflow-conflicts-1").exists());
        // Completed, then undone by the same exchange.
        folders.forward();
        folders.exchange(|tree| tree.settle());
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
            .exchange(|tree| tree.carry_back().and_then(|()| tree.move_back_in()).and_then(|()| tree.move_back_out()));
        assert_eq!(folders.workspace(), paths(&["cache/CACHEDIR.TAG", "data/.git/HEAD"]));
    }

    #[test]
    fn resumes_an_interrupted_carry() {
        let folders = Folders::new();
        folders.write("workspace/a/.git/HEAD");
        folders.write("workspace/b/.git/HEAD");
        folders.forward();
        // Killed after the first of two moves.
        fs::create_dir_all(folders.path("beside/out/b")).unwrap();
        fs::rename(folders.path("workspace/b/.git"), folders.path("beside/out/b/.git")).unwrap();
        folders.exchange(|tree| tree.carry_over());
        assert_eq!(folders.workspace(), paths(&["a/.git/HEAD", "b/.git/HEAD"]));
    }
}

//! Carries over entries that no backup contains: an exchange moves them from the replaced content of a folder into its
//! new content.

use super::exchange_error::{ExchangeError, io_error};
use super::exchange_tree::{LIST_LIMIT, Tree, TreeExchange, is_folder, is_there, names};
use crate::backup::create::selection::{omitted_in_task_logs, omitted_in_workspace};
use leoflow_base::sys::fs::beneath::Folder;
use leoflow_base::sys::fs::{files, permissions};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

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
    /// Relative to `out`, which contains the replaced content.
    from: OsString,
    /// Relative to the folder itself; differs from `from` if the new content occupies that path.
    to: OsString,
}

impl TreeExchange<'_> {
    /// Moves entries that no backup contains from `out` back to their paths: `.git`, virtual environments, files that
    /// could not be copied. An entry whose path is occupied moves to the conflicts folder.
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
                // Replace an empty folder. The removal fails if the folder has content by now.
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
            // An entry below the previous one moves with it.
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
            // The whole entry is carried over.
            return Ok(());
        }
        let (from, to) = (self.out().join(path), root.join(path));
        // `below` fails for a path through a link.
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

    /// Chooses the target of the entry `path`: the same path, or a free one in the conflicts folder. Also returns the
    /// parent folders to create.
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
}

/// Missing parent folders of `path` in `root`, parents first; `None` if a file or link occupies one of their paths.
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
    files::create_dir_where_supported(folder).map_err(failed)?;
    match fs::symlink_metadata(model) {
        Ok(meta) if meta.is_dir() => {
            permissions::set_path_where_supported(folder, meta.permissions().mode() & 0o7777 | 0o700).map_err(failed)
        }
        _ => Ok(()),
    }
}

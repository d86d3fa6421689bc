//! Removes files for an uninstall, never through a link or across a mount point.

use super::plan::UninstallRefusal;
use crate::setup::receipt::ReceiptError;
use leoflow_base::home::journal::{JournalError, Operation};
use leoflow_base::home::lock::LockError;
use leoflow_base::sys::fs::{files, folders, mounts};
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::location::LocationError;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why an uninstall failed.
#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("cannot remove {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("cannot inspect {path}: {source}")]
    Inspect { path: PathBuf, source: io::Error },
    #[error("failed to end the processes of an earlier run")]
    Leftovers(#[source] io::Error),
    #[error("a {0} was interrupted and is not finished")]
    Unfinished(Operation),
    #[error("the plan has changed since it was shown; nothing was removed")]
    PlanChanged,
    #[error(transparent)]
    Refused(#[from] UninstallRefusal),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error("{0} has become a link or a mount point and is not removed")]
    Changed(PathBuf),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error("cannot read the plan in the journal: {0}")]
    Plan(String),
    /// The purge failed before its first irreversible step; everything is unchanged.
    #[error("{0}; nothing was removed")]
    NothingRemoved(Box<RemoveError>),
}

/// Removes a part of the home except for the paths in `not_ours`.
pub fn remove_ours(path: &Path, not_ours: &[PathBuf]) -> Result<(), RemoveError> {
    if not_ours.iter().any(|foreign_path| foreign_path == path) {
        return Ok(());
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    if is_link || !not_ours.iter().any(|foreign_path| foreign_path.starts_with(path)) {
        return remove(path);
    }
    entries(path)?.iter().try_for_each(|entry| remove_ours(entry, not_ours))
}

/// Fails if the path has become a link or contains a new mount point since the plan or the last run. A home may be a
/// mount point itself; a workspace that became one cannot be renamed.
pub fn check_unchanged(path: &Path) -> Result<(), RemoveError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    // If the mounts cannot be read, nothing is removed.
    let has_mounts =
        path.canonicalize().and_then(|real| mounts::below(&real)).map_or(true, |inside| !inside.is_empty());
    if is_link || has_mounts { Err(RemoveError::Changed(path.to_owned())) } else { Ok(()) }
}

/// True for a mount point, which cannot be removed.
pub fn is_mount(path: &Path) -> bool {
    path.canonicalize().and_then(|real| mounts::is_mount(&real)).unwrap_or(false)
}

/// Removes everything in a folder except `kept_path`.
pub fn remove_all_but(folder: &Path, kept_path: &Path) -> Result<(), RemoveError> {
    entries(folder)?.iter().filter(|path| *path != kept_path).try_for_each(|path| remove(path))
}

/// Lists a folder; empty if it does not exist.
pub fn entries(folder: &Path) -> Result<Vec<PathBuf>, RemoveError> {
    folders::entries(folder).map_err(|source| RemoveError::Io { path: folder.to_owned(), source })
}

/// Removes a tree without following links. Read-only folders, which some package managers create, are made writable
/// first.
pub fn remove(path: &Path) -> Result<(), RemoveError> {
    let removed = match files::remove_any(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            files::make_folders_writable(path).and_then(|()| files::remove_any(path))
        }
        other => other,
    };
    removed.map_err(|source| RemoveError::Io { path: path.to_owned(), source })
}

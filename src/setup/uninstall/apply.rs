//! Following the plan. Each step can be done again, and what says how to go on goes last.

use super::plan::Plan;
use super::shell_files;
use crate::home::Home;
use crate::home::journal::{Entry, Journal, JournalError, Operation};
use crate::setup::receipt::{Receipt, ReceiptError};
use crate::sys::{checkpoint, files, mounts};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum RemoveError {
    #[error("cannot remove {path}: {source}")]
    Io { path: PathBuf, source: io::Error },
    #[error("{0} has become a link or a mount point, and is left alone")]
    Changed(PathBuf),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("the plan in the journal cannot be read: {0}")]
    Plan(String),
}

/// What a purge needs when another process goes on with it.
#[derive(Serialize, Deserialize)]
struct Purge {
    workspace: Option<PathBuf>,
    shell_files: Vec<PathBuf>,
}

/// Removes what can be had again. The caller holds the home's lock.
pub fn remove_programs(home: &Home, plan: &Plan) -> Result<(), RemoveError> {
    clean_shell_files(&plan.shell_files)?;
    if let Some(receipt) = Receipt::load(home)? {
        Receipt { shell_files: Vec::new(), ..receipt }.write(home)?;
    }
    for part in &plan.remove {
        remove(&part.path)?;
        checkpoint("uninstall.part");
    }
    Ok(())
}

/// Removes everything. The caller holds the home's lock, which goes with it.
pub fn purge(home: &Home, plan: &Plan) -> Result<(), RemoveError> {
    let purge = Purge {
        workspace: plan.workspace.as_ref().map(|tree| tree.path.clone()),
        shell_files: plan.shell_files.clone(),
    };
    let text = serde_json::to_value(&purge).map_err(|error| RemoveError::Plan(error.to_string()))?;
    let steps = ["shell-files", "workspace", "home"].map(str::to_owned).to_vec();
    let mut journal = Journal::begin_with(home, Operation::Purge, steps, text)?;
    go_on(home, &purge, &mut journal)
}

/// Goes on with a purge that was interrupted.
pub fn resume_purge(home: &Home, entry: Entry) -> Result<(), RemoveError> {
    let purge: Purge =
        serde_json::from_value(entry.plan.clone()).map_err(|error| RemoveError::Plan(error.to_string()))?;
    go_on(home, &purge, &mut Journal::resume(home, entry))
}

fn go_on(home: &Home, purge: &Purge, journal: &mut Journal) -> Result<(), RemoveError> {
    clean_shell_files(&purge.shell_files)?;
    checkpoint("purge.shell-files");
    if let Some(workspace) = &purge.workspace {
        unchanged(workspace)?;
        remove(workspace)?;
        checkpoint("purge.workspace");
    }
    journal.set_at(2)?;
    unchanged(home.root())?;
    // The journal is the last but for the folders that hold it.
    remove_all_but(home.root(), &home.run())?;
    checkpoint("purge.home");
    remove_all_but(&home.run(), &home.journal())?;
    checkpoint("purge.run");
    for last in [home.journal(), home.run(), home.root().to_owned()] {
        remove(&last)?;
        checkpoint("purge.last");
    }
    Ok(())
}

fn clean_shell_files(paths: &[PathBuf]) -> Result<(), RemoveError> {
    paths.iter().try_for_each(|path| {
        shell_files::remove_lines(path).map_err(|source| RemoveError::Io { path: path.clone(), source })
    })
}

/// Between the plan and now, or between two runs, somebody may have put something else there.
fn unchanged(path: &Path) -> Result<(), RemoveError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    let has_mounts = mounts::at_or_below(path).is_ok_and(|mounts| !mounts.is_empty());
    if is_link || has_mounts { Err(RemoveError::Changed(path.to_owned())) } else { Ok(()) }
}

fn remove_all_but(folder: &Path, kept: &Path) -> Result<(), RemoveError> {
    let failed = |source| RemoveError::Io { path: folder.to_owned(), source };
    let entries = match fs::read_dir(folder) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        Err(error) => return Err(failed(error)),
    };
    for entry in entries {
        let path = entry.map_err(failed)?.path();
        if path != kept {
            remove(&path)?;
        }
    }
    Ok(())
}

/// Removes a tree; links in it are removed, not followed. Folders that their owner may not write in, as
/// some package managers leave them, are opened first.
fn remove(path: &Path) -> Result<(), RemoveError> {
    let removed = match files::remove_any(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            files::make_folders_writable(path).and_then(|()| files::remove_any(path))
        }
        other => other,
    };
    removed.map_err(|source| RemoveError::Io { path: path.to_owned(), source })
}

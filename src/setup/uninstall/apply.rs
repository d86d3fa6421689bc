//! Following the plan. Each step can be done again, and what says how to go on goes last.

use super::plan::{Identity, Plan};
use super::shell_files;
use crate::home::journal::{self, Entry, Journal, JournalError, Operation};
use crate::home::{Home, foreign};
use crate::setup::receipt::{Receipt, ReceiptError};
use crate::setup::service::{self, ServiceError};
use crate::sys::{checkpoint, files, mounts, random};
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
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
    #[error(transparent)]
    Service(#[from] ServiceError),
    #[error("the plan in the journal cannot be read: {0}")]
    Plan(String),
}

/// What a purge needs when another process goes on with it.
#[derive(Serialize, Deserialize)]
struct Purge {
    /// The home that the journal is of: a copy of it elsewhere is not meant.
    home: Identity,
    workspace: Option<Doomed>,
    shell_files: Vec<PathBuf>,
    /// What had been interrupted before, and goes on when the purge is taken back.
    #[serde(default)]
    before: Option<Entry>,
}

#[derive(Serialize, Deserialize)]
struct Doomed {
    path: PathBuf,
    /// Where it is renamed to first: what comes to its place afterwards is the user's.
    aside: PathBuf,
    identity: Identity,
}

/// Steps of a purge. Before the first of them nothing is gone.
const STEPS: [&str; 4] = ["begin", "set-aside", "workspace", "home"];

/// Removes what can be had again. The caller holds the home's lock.
pub fn remove_programs(home: &Home, plan: &Plan) -> Result<(), RemoveError> {
    service::remove(home)?;
    clean_shell_files(&plan.shell_files)?;
    if let Some(receipt) = Receipt::load(home)? {
        Receipt { shell_files: Vec::new(), ..receipt }.write(home)?;
    }
    for part in &plan.remove {
        remove_ours(&part.path, &plan.not_ours)?;
        checkpoint("uninstall.part");
    }
    Ok(())
}

/// Removes a part of the home, but for what in it is somebody else's.
fn remove_ours(path: &Path, not_ours: &[PathBuf]) -> Result<(), RemoveError> {
    if not_ours.iter().any(|theirs| theirs == path) {
        return Ok(());
    }
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    if is_link || !not_ours.iter().any(|theirs| theirs.starts_with(path)) {
        return remove(path);
    }
    let failed = |source| RemoveError::Io { path: path.to_owned(), source };
    for entry in fs::read_dir(path).map_err(failed)? {
        remove_ours(&entry.map_err(failed)?.path(), not_ours)?;
    }
    Ok(())
}

/// Removes everything. The caller holds the home's lock, which goes with it.
pub fn purge(home: &Home, plan: &Plan) -> Result<(), RemoveError> {
    let purge = Purge {
        home: plan.identity,
        workspace: plan.workspace.as_ref().map(|tree| Doomed {
            path: tree.path.clone(),
            aside: aside(&tree.path),
            identity: tree.identity,
        }),
        shell_files: plan.shell_files.clone(),
        before: interrupted_before(home)?,
    };
    let text = serde_json::to_value(&purge).map_err(|error| RemoveError::Plan(error.to_string()))?;
    let mut journal = Journal::begin_with(home, Operation::Purge, STEPS.map(str::to_owned).to_vec(), text)?;
    journal.set_at(1)?;
    checkpoint("purge.decided");
    go_on(home, &purge, &mut journal, 1)
}

fn read(entry: &Entry) -> Result<Purge, RemoveError> {
    serde_json::from_value(entry.plan.clone()).map_err(|error| RemoveError::Plan(error.to_string()))
}

/// An exchange that is half done, whose journal the purge's own takes the place of.
fn interrupted_before(home: &Home) -> Result<Option<Entry>, RemoveError> {
    Ok(match journal::unfinished(home)? {
        Some(entry) if matches!(entry.operation, Operation::Restore | Operation::RestoreUndo) => Some(entry),
        Some(entry) if entry.operation == Operation::Purge => read(&entry)?.before,
        _ => None,
    })
}

/// What came of a purge that was interrupted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Resumed {
    Finished,
    /// It had not begun to remove anything, and is forgotten.
    TakenBack,
}

/// Whether a purge had begun to remove something.
pub fn has_begun(entry: &Entry) -> bool {
    entry.at > 0
}

/// Goes on with a purge that was interrupted.
pub fn resume_purge(home: &Home, entry: Entry) -> Result<Resumed, RemoveError> {
    let purge = read(&entry)?;
    if !has_begun(&entry) {
        match purge.before {
            None => journal::clear(home)?,
            Some(before) => Journal::resume(home, before.clone()).set_at(before.at)?,
        }
        return Ok(Resumed::TakenBack);
    }
    if identity(home.root()) != Some(purge.home) {
        return Err(RemoveError::Plan("it is of another folder, of which this is a copy".to_owned()));
    }
    let at = entry.at;
    go_on(home, &purge, &mut Journal::resume(home, entry), at)?;
    Ok(Resumed::Finished)
}

fn go_on(home: &Home, purge: &Purge, journal: &mut Journal, at: usize) -> Result<(), RemoveError> {
    if at == 1 {
        service::remove(home)?;
        clean_shell_files(&purge.shell_files)?;
        checkpoint("purge.shell-files");
        if let Some(workspace) = &purge.workspace {
            set_aside(workspace)?;
            checkpoint("purge.set-aside");
        }
        journal.set_at(2)?;
    }
    if at <= 2 {
        if let Some(workspace) = &purge.workspace {
            remove(&workspace.aside)?;
            checkpoint("purge.workspace");
        }
        journal.set_at(3)?;
    }
    unchanged(home.root())?;
    // The journal is the last but for the folders that hold it.
    let not_ours = foreign(home);
    for entry in entries(home.root())? {
        if entry != home.run() {
            remove_ours(&entry, &not_ours)?;
        }
    }
    checkpoint("purge.home");
    remove_all_but(&home.run(), &home.journal())?;
    checkpoint("purge.run");
    for last in [home.journal(), home.run()] {
        remove(&last)?;
        checkpoint("purge.last");
    }
    if not_ours.is_empty() {
        remove(home.root())?;
        checkpoint("purge.last");
    }
    Ok(())
}

fn aside(path: &Path) -> PathBuf {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    path.with_file_name(format!(".{name}.leoflow-purge-{}", hex::encode(random::bytes::<4>())))
}

/// Renames the very folder that was looked at; one that has come to its place is left alone.
fn set_aside(doomed: &Doomed) -> Result<(), RemoveError> {
    // An inode is used again once its folder is gone; so it is looked at only before the rename.
    if fs::symlink_metadata(&doomed.aside).is_ok() || identity(&doomed.path) != Some(doomed.identity) {
        return Ok(());
    }
    unchanged(&doomed.path)?;
    let failed = |source| RemoveError::Io { path: doomed.path.clone(), source };
    files::rename_durably(&doomed.path, &doomed.aside).map_err(failed)
}

fn identity(path: &Path) -> Option<Identity> {
    let meta = fs::symlink_metadata(path).ok().filter(|meta| meta.is_dir())?;
    Some(Identity { inode: meta.ino() })
}

fn clean_shell_files(paths: &[PathBuf]) -> Result<(), RemoveError> {
    paths.iter().try_for_each(|path| {
        shell_files::remove_lines(path).map_err(|source| RemoveError::Io { path: path.clone(), source })
    })
}

/// Between the plan and now, or between two runs, somebody may have put something else there.
fn unchanged(path: &Path) -> Result<(), RemoveError> {
    let is_link = fs::symlink_metadata(path).is_ok_and(|meta| meta.is_symlink());
    // Where that cannot be told, nothing is removed.
    let has_mounts = mounts::at_or_below(path).map_or(true, |mounts| !mounts.is_empty());
    if is_link || has_mounts { Err(RemoveError::Changed(path.to_owned())) } else { Ok(()) }
}

fn remove_all_but(folder: &Path, kept: &Path) -> Result<(), RemoveError> {
    entries(folder)?.iter().filter(|path| *path != kept).try_for_each(|path| remove(path))
}

/// None in a folder that is not there.
fn entries(folder: &Path) -> Result<Vec<PathBuf>, RemoveError> {
    let failed = |source| RemoveError::Io { path: folder.to_owned(), source };
    match fs::read_dir(folder) {
        Ok(entries) => entries.map(|entry| Ok(entry.map_err(failed)?.path())).collect(),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(failed(error)),
    }
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

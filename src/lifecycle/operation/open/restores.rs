//! Finishes or undoes interrupted restores, restore undos, and moves to another datastore; removes the leftovers of
//! operations that were killed before they changed anything.

use super::datastore::private_server;
use super::rollback_record;
use crate::backup::restore::exchange::{self, Resumed};
use crate::backup::restore::{self, quarantine};
use crate::backup::{ExchangeError, relocation};
use crate::operation::{OperationContext, OperationError};
use crate::upgrade::release::stage;
use crate::upgrade::rollback::snapshot;
use leoflow_base::home::Home;
use leoflow_base::home::journal::{self, Entry, Operation};
use leoflow_base::home::lock::{LockError, OperationLock};
use leoflow_base::home::progress::Reporter;
use leoflow_postgres::Access;
use leoflow_postgres::cluster::{self, ClusterState};
use std::fs;
use std::path::Path;

impl OperationContext<'_> {
    /// Finishes or undoes a move to another datastore.
    pub(super) async fn finish_move(&self, entry: Entry) -> Result<(), OperationError> {
        self.end_leftovers()?;
        self.note(match relocation::resume(self.home, entry, self.reporter).await? {
            relocation::Resumed::Finished => {
                // Snapshots stay on the old server. If this fails, the next upgrade clears them.
                let _ = snapshot::forget_all(self.home);
                "finished the interrupted move to another datastore"
            }
            relocation::Resumed::Undone => "undid the interrupted move to another datastore; nothing has changed",
        });
        Ok(())
    }

    /// Finishes or undoes the exchange of the current state with another one: a restore, or the undo of one.
    pub(super) async fn finish_exchange(&self, entry: Entry) -> Result<(), OperationError> {
        self.end_leftovers()?;
        let (access, server) = private_server(self.home).await?;
        let operation = match entry.operation {
            Operation::RestoreUndo => "undo of a restore",
            _ => "restore",
        };
        let resumed = exchange::resume(self.home, &access, entry).await.map_err(|error| self.with_restorer(error))?;
        drop(server);
        self.note(match resumed {
            Resumed::Finished => format!("finished the interrupted {operation}"),
            Resumed::Undone(None) => format!("reverted the failed {operation}; nothing has changed"),
            Resumed::Undone(Some(reason)) => {
                format!("reverted the interrupted {operation}; nothing has changed: {reason}")
            }
        });
        report_conflicts(self.home, self.reporter);
        Ok(())
    }

    /// Adds the older release's program: in a rollback, that program restores, and this release may not know its
    /// steps.
    fn with_restorer(&self, source: ExchangeError) -> OperationError {
        let is_other_release = matches!(source, ExchangeError::OtherSteps | ExchangeError::Plan(_));
        let record = rollback_record(self.home).ok().flatten().filter(|_| is_other_release);
        let restorer = record.map(|record| (record.to.clone(), stage::program_of(self.home, &record.to)));
        OperationError::Exchange { source, restorer }
    }

    /// Moves an unreadable cluster back that an interrupted restore had moved away.
    pub(super) fn restore_cluster(&self) -> Result<(), OperationError> {
        let home = self.home;
        if quarantine::pending(home).map_err(OperationError::io("read", &home.quarantine_note()))?.is_none() {
            return Ok(());
        }
        self.end_leftovers()?;
        quarantine::put_back(home).map_err(OperationError::io("move", &home.postgres_data()))?;
        self.note("undid an interrupted restore: the unreadable datastore is back in its place");
        Ok(())
    }

    /// Removes the leftovers of a restore, a verification or a rehearsal that was killed before it changed anything,
    /// unless the operation that uses them runs: it holds the operation lock.
    pub(super) async fn remove_leftovers(&self) -> Result<(), OperationError> {
        if !restore::has_leftovers(self.home) {
            return Ok(());
        }
        let _operation_lock = match OperationLock::take(self.home, "cleaning up") {
            Ok(lock) => lock,
            Err(LockError::Held { .. }) => return Ok(()),
            Err(error) => return Err(error.into()),
        };
        self.clean_up(None).await
    }

    /// Removes leftovers from the home and from the cluster: the running one, or a private one. The caller holds the
    /// operation lock. A failed removal is only a warning, because leftovers do no harm.
    pub async fn clean_up(&self, access: Option<&Access>) -> Result<(), OperationError> {
        // The folder of an unfinished exchange looks like leftovers but holds live data.
        if !restore::has_leftovers(self.home) || journal::unfinished(self.home)?.is_some() {
            return Ok(());
        }
        let removed = match access {
            None if cluster::state(self.home) == ClusterState::Ready => match private_server(self.home).await {
                Ok((access, _server)) => restore::remove_restore_leftovers(self.home, Some(&access)).await,
                // The next start reports why the server fails; the folders stay, so that it retries the removal.
                Err(_) => return Ok(()),
            },
            access => restore::remove_restore_leftovers(self.home, access).await,
        };
        match removed {
            Ok(()) => self.note("removed the leftovers of an interrupted restore, verification or rehearsal"),
            Err(error) => self.warn(format!(
                "cannot remove the leftovers of an interrupted restore, verification or rehearsal: {error}"
            )),
        }
        Ok(())
    }
}

/// Reports the files that were in the way of an exchange and where they were moved, and the folders that it left.
pub(crate) fn report_conflicts(home: &Home, reporter: &dyn Reporter) {
    for folder in exchange::fixed(home) {
        let text = format!("{} stays as it was: this user cannot move it, and no backup contains it", folder.display());
        reporter.warn(text);
    }
    for folder in exchange::conflicts(home) {
        let mut names: Vec<String> = files_below(&folder);
        let unnamed_count = names.len().saturating_sub(MAX_NAMED);
        names.truncate(MAX_NAMED);
        let suffix = if unnamed_count > 0 { format!(" and {unnamed_count} more") } else { String::new() };
        reporter.warn(format!("files in the way were moved to {}: {}{suffix}", folder.display(), names.join(", ")));
    }
}

/// Maximum number of files named in the message.
const MAX_NAMED: usize = 20;

/// Lists the relative paths of the files in a folder; a hidden folder such as `.git` counts as one.
fn files_below(folder: &Path) -> Vec<String> {
    let (mut paths, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(current) = folders.pop() {
        for entry in fs::read_dir(&current).into_iter().flatten().flatten() {
            let path = entry.path();
            let is_folder = entry.file_type().is_ok_and(|kind| kind.is_dir());
            match is_folder && !entry.file_name().to_string_lossy().starts_with('.') && paths.len() < 1000 {
                true => folders.push(path),
                false => paths.extend(path.strip_prefix(folder).map(|path| path.display().to_string())),
            }
        }
    }
    paths.sort();
    paths
}

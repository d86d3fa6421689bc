//! Takes the home's lock, then finishes or undoes interrupted operations; opens the datastore.

pub mod claims;
pub mod datastore;
mod restores;
mod rollbacks;
mod upgrades;

pub use datastore::Datastore;
pub(crate) use restores::report_conflicts;
pub use rollbacks::{refuse_during_rollback, rollback_record};
pub(crate) use upgrades::interrupted_upgrade;
pub use upgrades::{Abort, InstalledRelease};

use super::{OperationContext, OperationError};
use crate::backup::restore::quarantine;
use crate::setup::uninstall;
use crate::upgrade::rollback::rollback_record::Settled;
use leoflow_base::home::Home;
use leoflow_base::home::journal::{self, Entry, JournalError, Operation};
use leoflow_base::home::lock::HomeLock;
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::replace;
use leoflow_postgres::{Access, Credentials, Endpoint, install};
use leoflow_processes::supervisor;

/// What happens when the upgrade that is finished installs another release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterUpgrade {
    /// Execs that release.
    ExecInstalled,
    /// Continues with this release.
    GoOn,
}

impl OperationContext<'_> {
    /// Takes the home's lock; finishes or undoes an interrupted operation and reports it. `command` names the holder of
    /// the lock in other processes' messages.
    pub async fn take_home(
        &self,
        command: &str,
        url: Option<&str>,
        after: AfterUpgrade,
    ) -> Result<HomeLock, OperationError> {
        let lock = HomeLock::take(self.home, command, url)?;
        match self.take_held_home(after).await? {
            // This program would migrate the database that the rollback restored, so the older release takes over.
            Some(Settled::Finished(record)) if record.to.to_string() != self.version => {
                Err(self.exec_installed_version())
            }
            _ => Ok(lock),
        }
    }

    /// Like [`Self::take_home`], for a caller that holds the lock. Returns how an interrupted rollback was settled.
    async fn take_held_home(&self, after: AfterUpgrade) -> Result<Option<Settled>, OperationError> {
        if let Some(entry @ Entry { operation: Operation::Purge, .. }) = journal::unfinished(self.home)? {
            // Brings back the journal that the purge replaced.
            self.discard_purge(entry)?;
        }
        match journal::unfinished(self.home)? {
            None | Some(Entry { operation: Operation::Setup | Operation::Purge, .. }) => {}
            Some(entry @ Entry { operation: Operation::Restore | Operation::RestoreUndo, .. }) => {
                self.finish_exchange(entry).await?;
            }
            Some(entry @ Entry { operation: Operation::MoveDatastore, .. }) => self.finish_move(entry).await?,
            Some(Entry { operation: Operation::Upgrade, .. }) => {
                let installed = self.finish_upgrade_of_stopped(Abort::No).await?;
                if installed == InstalledRelease::Other && after == AfterUpgrade::ExecInstalled {
                    return Err(self.exec_installed_version());
                }
            }
        }
        self.restore_cluster()?;
        self.remove_leftovers().await?;
        self.settle_rollback_of_stopped().await
    }

    /// Discards an interrupted purge that had removed nothing. The caller holds the home's lock.
    pub fn discard_purge(&self, entry: Entry) -> Result<(), OperationError> {
        refuse_begun_purge(&entry)?;
        if let uninstall::Resumed::Undone(Some(workspace)) = uninstall::resume_purge(self.home, entry, self.reporter)? {
            self.warn(uninstall::workspace_not_restored(&workspace));
        }
        self.note("discarded an interrupted purge: nothing had been removed");
        Ok(())
    }

    /// Refuses a partial purge, for a command that reads the home before it takes the lock.
    pub fn refuse_half_purged(&self) -> Result<(), OperationError> {
        journal::unfinished(self.home)?.as_ref().map_or(Ok(()), refuse_begun_purge)
    }

    /// Execs the installed version with the same arguments. Returns only on failure.
    pub fn exec_installed_version(&self) -> OperationError {
        let program = self.home.bin().join("leoflow");
        let arguments: Vec<_> = env_vars::arguments().into_iter().skip(1).collect();
        // The exec releases the lock.
        let source = replace::replace_self(&program, "leoflow", &arguments, &[]);
        OperationError::Io { doing: "run", path: program, source }
    }

    /// Finishes an interrupted operation, for a command that decides by the state of the home.
    pub async fn finish_first(&self, command: &str) -> Result<(), OperationError> {
        if self.interrupted()?.is_some() || self.is_cluster_moved_away() {
            self.take_home(command, None, AfterUpgrade::GoOn).await?;
        }
        Ok(())
    }

    /// Refuses an interrupted operation, for a read-only command, which cannot know the final state.
    pub(crate) fn refuse_interrupted(&self) -> Result<(), OperationError> {
        if self.is_cluster_moved_away() {
            return Err(OperationError::RestoreInterrupted);
        }
        self.refuse_half_purged()?;
        self.interrupted()?.map_or(Ok(()), |entry| Err(OperationError::Interrupted(entry.operation)))
    }

    /// True when an interrupted restore, not a running one, has moved the cluster away.
    fn is_cluster_moved_away(&self) -> bool {
        // An unreadable note counts as present.
        quarantine::pending(self.home).map_or(true, |quarantined| quarantined.is_some())
            && control::status_of(self.home).is_none()
    }

    /// The unfinished operation, unless it is a setup, which every start can continue.
    fn interrupted(&self) -> Result<Option<Entry>, JournalError> {
        Ok(journal::unfinished(self.home)?.filter(|entry| entry.operation != Operation::Setup))
    }

    /// Creates the home's folders.
    pub(super) fn create_home(&self) -> Result<(), OperationError> {
        self.home.create().map_err(OperationError::io("create", self.home.root()))
    }

    /// Stops the processes of an earlier run.
    fn end_leftovers(&self) -> Result<(), OperationError> {
        supervisor::end_leftovers(self.home).map(drop).map_err(OperationError::Leftovers)
    }
}

/// Refuses a partial purge. Only another purge finishes it, because no other command may lose data.
fn refuse_begun_purge(entry: &Entry) -> Result<(), OperationError> {
    match entry.operation == Operation::Purge && uninstall::may_have_removed_something(entry) {
        true => Err(OperationError::PurgeBegun),
        false => Ok(()),
    }
}

/// The access to a home's datastore.
pub(super) fn access(home: &Home) -> Result<Access, OperationError> {
    let installation = install::installed(home).ok_or_else(|| {
        let reason = install::why_incomplete(home).map(|reason| format!(": {reason}"));
        OperationError::ProgramsMissing(reason.unwrap_or_default())
    })?;
    let credentials = Credentials::require(home)?;
    Ok(Access { endpoint: Endpoint::for_home(home), credentials, installation })
}

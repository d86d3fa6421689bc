//! Takes the home's lock, then finishes or undoes interrupted operations.

use super::{Abort, InstalledRelease, Recovery};
use crate::error::Error;
use leoflow_base::home::journal::{self, Entry, Operation};
use leoflow_base::home::lock::HomeLock;
use leoflow_base::home::progress::Progress;
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::replace;
use leoflow_lifecycle::backup::restore::quarantine;
use leoflow_lifecycle::setup::uninstall;
use leoflow_lifecycle::upgrade::rollback::rollback_record::Settled;

/// What a command does when the upgrade that it finishes installs another release.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum AfterUpgrade {
    /// Execs that release.
    ExecInstalled,
    /// Continues with this release.
    GoOn,
}

/// The error for a home with a partial purge.
const PURGE_BEGAN: &str = "a purge of this home was interrupted after it had removed files";

impl Recovery<'_> {
    /// Takes the home's lock; finishes or undoes an interrupted operation and reports it. `command` names the holder of
    /// the lock in other processes' messages.
    pub(crate) async fn take_home(
        &self,
        command: &str,
        url: Option<&str>,
        after: AfterUpgrade,
    ) -> Result<HomeLock, Error> {
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
    pub(crate) async fn take_held_home(&self, after: AfterUpgrade) -> Result<Option<Settled>, Error> {
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
    pub(crate) fn discard_purge(&self, entry: Entry) -> Result<(), Error> {
        refuse_begun_purge(&entry)?;
        if let uninstall::Resumed::Undone(Some(workspace)) = uninstall::resume_purge(self.home, entry, self.reporter)? {
            self.reporter.report(Progress::Warning(uninstall::workspace_not_restored(&workspace)));
        }
        let text = "discarded an interrupted purge: nothing had been removed";
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    /// Refuses a partial purge, for a command that reads the home before it takes the lock.
    pub(crate) fn refuse_half_purged(&self) -> Result<(), Error> {
        journal::unfinished(self.home)?.as_ref().map_or(Ok(()), refuse_begun_purge)
    }

    /// Moves an unreadable cluster back that an interrupted restore had moved away.
    pub(crate) fn restore_cluster(&self) -> Result<(), Error> {
        let note_path = self.home.quarantine_note();
        if quarantine::pending(self.home).map_err(|error| Error::io("read", &note_path, &error))?.is_none() {
            return Ok(());
        }
        self.end_leftovers()?;
        quarantine::put_back(self.home).map_err(|error| Error::io("move", &self.home.postgres_data(), &error))?;
        let text = "undid an interrupted restore: the unreadable datastore is back in its place";
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    /// Execs the installed version with the same arguments. Returns only on failure.
    pub(crate) fn exec_installed_version(&self) -> Error {
        let program = self.home.bin().join("leoflow");
        let arguments: Vec<_> = env_vars::arguments().into_iter().skip(1).collect();
        // The exec releases the lock.
        let error = replace::replace_self(&program, "leoflow", &arguments, &[]);
        Error::io("run", &program, &error)
    }

    /// Finishes an interrupted operation, for a command that decides by the state of the home.
    pub(crate) async fn finish_first(&self, command: &str) -> Result<(), Error> {
        if self.interrupted()?.is_some() || self.is_cluster_moved_away() {
            self.take_home(command, None, AfterUpgrade::GoOn).await?;
        }
        Ok(())
    }

    /// Refuses an interrupted operation, for a read-only command, which cannot know the final state.
    pub(crate) fn refuse_interrupted(&self) -> Result<(), Error> {
        if self.is_cluster_moved_away() {
            return Err(Error::failed("a restore was interrupted and has to be undone first")
                .hint("leoflow lite start undoes it"));
        }
        self.refuse_half_purged()?;
        match self.interrupted()? {
            None => Ok(()),
            Some(entry) => {
                Err(Error::failed(format!("a {} was interrupted and has to be finished first", entry.operation))
                    .hint("leoflow lite start finishes it"))
            }
        }
    }

    /// True when an interrupted restore, not a running one, has moved the cluster away.
    fn is_cluster_moved_away(&self) -> bool {
        // An unreadable note counts as present.
        quarantine::pending(self.home).map_or(true, |quarantined| quarantined.is_some())
            && control::status_of(self.home).is_none()
    }

    /// The unfinished operation, unless it is a setup, which every start can continue.
    fn interrupted(&self) -> Result<Option<Entry>, Error> {
        Ok(journal::unfinished(self.home)?.filter(|entry| entry.operation != Operation::Setup))
    }
}

/// Refuses a partial purge. Only another purge finishes it, because no other command may lose data.
fn refuse_begun_purge(entry: &Entry) -> Result<(), Error> {
    if entry.operation == Operation::Purge && uninstall::may_have_removed_something(entry) {
        return Err(Error::refused(PURGE_BEGAN).hint("finish the purge: leoflow uninstall --purge"));
    }
    Ok(())
}

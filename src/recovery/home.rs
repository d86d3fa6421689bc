//! Taking the home, and first of all finishing or undoing what an earlier process left half done.

use super::Recovery;
use crate::backup::set_aside;
use crate::error::Error;
use crate::home::journal::{self, Entry, Operation};
use crate::home::lock::HomeLock;
use crate::home::progress::Progress;
use crate::protocol::control;
use crate::setup::uninstall;
use crate::sys::{env_vars, replace};
use crate::upgrade::rollback_record::Settled;

/// What a command does if the upgrade that it finishes puts another release in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AfterUpgrade {
    /// Starts that release in its place.
    HandOn,
    GoOn,
}

/// Why a home with a half-done purge cannot be used.
const PURGE_BEGAN: &str = "a purge of this home was interrupted, and part of it is gone already";

impl Recovery<'_> {
    /// Takes the home; what was interrupted is finished or undone, with one line that says so.
    /// `command` is what others are told who want the home meanwhile.
    pub async fn take_home(&self, command: &str, url: Option<&str>, after: AfterUpgrade) -> Result<HomeLock, Error> {
        let lock = HomeLock::take(self.home, command, url)?;
        match self.take_held_home(after).await? {
            // This program would migrate what has just come back.
            Some(Settled::Finished(record)) if record.to.to_string() != self.version => Err(self.hand_on()),
            _ => Ok(lock),
        }
    }

    /// The same for a caller that has the home's lock. Returns what became of a rollback that was interrupted.
    pub(super) async fn take_held_home(&self, after: AfterUpgrade) -> Result<Option<Settled>, Error> {
        match journal::unfinished(self.home)? {
            None => {}
            Some(Entry { operation: Operation::Setup, .. }) => {}
            Some(entry @ Entry { operation: Operation::Purge, .. }) => {
                self.take_back_purge(entry)?;
                if let Some(entry) = journal::unfinished(self.home)? {
                    self.finish_exchange(entry).await?;
                }
            }
            Some(entry @ Entry { operation: Operation::Restore | Operation::RestoreUndo, .. }) => {
                self.finish_exchange(entry).await?;
            }
            Some(entry @ Entry { operation: Operation::MoveDatastore, .. }) => self.finish_move(entry).await?,
            Some(Entry { operation: Operation::Upgrade, .. }) => {
                let is_anothers = self.finish_upgrade_of_stopped(false).await?;
                if is_anothers && after == AfterUpgrade::HandOn {
                    return Err(self.hand_on());
                }
            }
        }
        self.put_back_cluster()?;
        self.remove_strays().await?;
        self.settle_rollback_of_stopped().await
    }

    /// Forgets an interrupted purge that had removed nothing. The caller holds the home's lock.
    pub fn take_back_purge(&self, entry: Entry) -> Result<(), Error> {
        refuse_begun_purge(&entry)?;
        if let uninstall::Resumed::TakenBack(Some(left)) = uninstall::resume_purge(self.home, entry, self.reporter)? {
            self.reporter.report(Progress::Warning(uninstall::workspace_left(&left)));
        }
        let text = "forgot a purge that was interrupted before it removed anything";
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    /// For a command that looks before it takes the home.
    pub fn refuse_half_purged(&self) -> Result<(), Error> {
        journal::unfinished(self.home)?.as_ref().map_or(Ok(()), refuse_begun_purge)
    }

    /// What a restore that did not come through had set aside because it could not be read.
    pub(super) fn put_back_cluster(&self) -> Result<(), Error> {
        let note = self.home.set_aside_note();
        if set_aside::pending(self.home).map_err(|error| Error::io("read", &note, &error))?.is_none() {
            return Ok(());
        }
        self.end_leftovers()?;
        set_aside::put_back(self.home).map_err(|error| Error::io("move", &self.home.postgres_data(), &error))?;
        let text =
            "took back a restore that was interrupted: the datastore that could not be read is in its place again";
        self.reporter.report(Progress::Note(text.to_owned()));
        Ok(())
    }

    /// The version that is in force now does what this one was told to do. Comes back only when it cannot.
    fn hand_on(&self) -> Error {
        let program = self.home.bin().join("leoflow");
        let arguments: Vec<_> = env_vars::arguments().into_iter().skip(1).collect();
        // The lock is let go by the exec.
        let error = replace::replace_self(&program, "leoflow", &arguments, &[]);
        Error::io("run", &program, &error)
    }

    /// For a command that decides by what is there: what was interrupted is finished before it looks.
    pub async fn finish_first(&self, command: &str) -> Result<(), Error> {
        if self.interrupted()?.is_some() || self.is_set_aside() {
            self.take_home(command, None, AfterUpgrade::GoOn).await?;
        }
        Ok(())
    }

    /// For a command that only looks: it cannot tell what there will be.
    pub fn refuse_interrupted(&self) -> Result<(), Error> {
        if self.is_set_aside() {
            return Err(Error::failed("a restore was interrupted, and what it had set aside has to be put back first")
                .hint("leoflow lite start puts it back"));
        }
        self.refuse_half_purged()?;
        match self.interrupted()? {
            None => Ok(()),
            Some(entry) => {
                Err(Error::failed(format!("a {} was interrupted, and has to be finished first", entry.operation))
                    .hint("leoflow lite start finishes it"))
            }
        }
    }

    /// By a restore that did not come through; not by one that is under way.
    fn is_set_aside(&self) -> bool {
        // One that cannot be read may be there.
        set_aside::pending(self.home).map_or(true, |aside| aside.is_some()) && control::status_of(self.home).is_none()
    }

    fn interrupted(&self) -> Result<Option<Entry>, Error> {
        Ok(journal::unfinished(self.home)?.filter(|entry| entry.operation != Operation::Setup))
    }
}

/// Only a purge finishes a purge: no other command was meant to lose anything.
fn refuse_begun_purge(entry: &Entry) -> Result<(), Error> {
    if entry.operation == Operation::Purge && uninstall::has_begun(entry) {
        return Err(Error::refused(PURGE_BEGAN).hint("finish it: leoflow uninstall --purge"));
    }
    Ok(())
}

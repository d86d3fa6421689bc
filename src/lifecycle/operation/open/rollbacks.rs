//! Settles interrupted rollbacks by backup: finishes them, or discards those that had changed nothing.

use super::AfterUpgrade;
use super::datastore::{Datastore, private_server};
use crate::operation::{DryRun, OperationContext, OperationError};
use crate::upgrade::rollback::history;
use crate::upgrade::rollback::rollback_record::{self, RollbackRecord, Settled};
use leoflow_base::home::Home;
use leoflow_base::home::lock::HomeLock;
use leoflow_base::home::progress::Progress;
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::protocol::control;
use leoflow_base::sys::env_vars;
use leoflow_postgres::{Access, schema};
use std::time::{Duration, Instant};

/// How long to wait for a restore whose rollback process is dead.
const RESTORE_TIMEOUT: Duration = Duration::from_secs(600);
const POLL_INTERVAL: Duration = Duration::from_millis(100);

/// Reads the record of a running or interrupted rollback by backup.
pub fn rollback_record(home: &Home) -> Result<Option<RollbackRecord>, OperationError> {
    rollback_record::read(home).map_err(OperationError::io("read", &home.rollback_record()))
}

/// Refuses a command that changes the schema or the release: a rollback decides by the schema which release is
/// installed.
pub fn refuse_during_rollback(home: &Home) -> Result<(), OperationError> {
    rollback_record(home)?.map_or(Ok(()), |record| Err(OperationError::RollbackUnfinished(record.to)))
}

impl OperationContext<'_> {
    /// Finishes an interrupted rollback by backup, or discards one that had changed nothing; `None` when there was
    /// none. Fails for a rollback that another process is performing, and in a dry run for every rollback.
    pub(crate) async fn settle_rollback(&self, dry_run: DryRun) -> Result<Option<Settled>, OperationError> {
        if env_vars::is_set(RESTORE_OF_ROLLBACK) {
            return Ok(None);
        }
        let Some(mut record) = rollback_record(self.home)? else { return Ok(None) };
        if record.worker.as_ref().is_some_and(|worker| worker.is_alive()) {
            return Err(OperationError::RollbackInProgress(record.to));
        }
        if dry_run == DryRun::Yes {
            return Err(OperationError::RollbackInterrupted(record.to));
        }
        let deadline = Instant::now() + RESTORE_TIMEOUT;
        while record.is_under_way() {
            if Instant::now() > deadline {
                return Err(OperationError::RestoreInProgress(record.to));
            }
            self.reporter.report(Progress::Started("Waiting for a restore in progress".to_owned()));
            tokio::time::sleep(POLL_INTERVAL).await;
            match rollback_record(self.home)? {
                Some(current) => record = current,
                None => return Ok(None),
            }
        }
        if control::status_of(self.home).is_none() {
            // Taking the home finishes the restore by its own journal and then settles the rollback.
            let _home_lock = HomeLock::take(self.home, "leoflow rollback", None)?;
            return self.take_held_home(AfterUpgrade::GoOn).await;
        }
        // The record may have changed while waiting for the lock.
        let _operation_lock = self.wait_for_operation().await?;
        let Some(record) = rollback_record(self.home)?.filter(|current| current.worker == record.worker) else {
            return Ok(None);
        };
        let datastore = Datastore::open(self, "leoflow rollback").await?;
        self.settle_and_report(record, &datastore.access).await.map(Some)
    }

    /// Like [`Self::settle_rollback`], for a caller that holds the home's lock of a stopped instance.
    pub(super) async fn settle_rollback_of_stopped(&self) -> Result<Option<Settled>, OperationError> {
        let Some(record) = rollback_record(self.home)? else { return Ok(None) };
        if env_vars::is_set(RESTORE_OF_ROLLBACK) || record.is_under_way() {
            return Ok(None);
        }
        self.end_leftovers()?;
        let (access, _server) = private_server(self.home).await?;
        self.settle_and_report(record, &access).await.map(Some)
    }

    /// Settles a rollback by the database's schema version.
    async fn settle_and_report(&self, record: RollbackRecord, access: &Access) -> Result<Settled, OperationError> {
        let client = access.connect(&access.application()).await?;
        let settled = record.settle(self.home, schema::current_version(&client).await?)?;
        self.note(match &settled {
            Settled::Finished(record) => {
                note_finished(self.home);
                format!("finished the interrupted rollback to {}", record.to)
            }
            Settled::Discarded(record) => {
                format!("discarded the interrupted rollback to {}: nothing had changed", record.to)
            }
        });
        Ok(settled)
    }
}

/// Marks the rollback as finished by another command. If that fails, a rerun asks for confirmation once more.
pub(super) fn note_finished(home: &Home) {
    let _ = history::set_finished_by_another(home, history::Reported::No);
}

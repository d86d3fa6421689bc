//! Rollbacks by backup that did not come to their end.

use super::Recovery;
use super::datastore::Datastore;
use super::home::AfterUpgrade;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::HomeLock;
use crate::home::progress::Progress;
use crate::postgres::Access;
use crate::protocol::child::RESTORE_OF_ROLLBACK;
use crate::protocol::control;
use crate::schema;
use crate::sys::env_vars;
use crate::upgrade::history;
use crate::upgrade::rollback_record::{self, RollbackRecord, Settled};
use std::time::{Duration, Instant};

/// How long a restore that goes on without its rollback is waited for.
const PATIENCE: Duration = Duration::from_secs(600);
const LOOK: Duration = Duration::from_millis(100);

/// The rollback by backup that is under way or was interrupted.
pub fn rollback_record(home: &Home) -> Result<Option<RollbackRecord>, Error> {
    rollback_record::read(home).map_err(|error| Error::io("read", &home.upgrade().join("rollback.json"), &error))
}

/// For a command that changes the schema, or the release: a rollback decides by the schema which release is in force.
pub fn refuse_beside_a_rollback(home: &Home) -> Result<(), Error> {
    match rollback_record(home)? {
        Some(record) => Err(Error::failed(format!("a rollback to {} is under way, or was interrupted", record.to))
            .hint("finish it: leoflow rollback")),
        None => Ok(()),
    }
}

impl Recovery<'_> {
    /// Finishes an interrupted rollback by backup, or forgets one that had changed nothing; `None` where there was none. One
    /// that is under way is left to whoever is at it.
    pub async fn settle_rollback(&self, look_only: bool) -> Result<Option<Settled>, Error> {
        if env_vars::is_set(RESTORE_OF_ROLLBACK) {
            return Ok(None);
        }
        let Some(mut record) = rollback_record(self.home)? else { return Ok(None) };
        if record.worker.as_ref().is_some_and(|worker| worker.is_alive()) {
            return Err(Error::failed(format!("a rollback to {} is under way", record.to))
                .hint("what it does: leoflow lite logs upgrade -f"));
        }
        if look_only {
            return Err(Error::failed(format!("a rollback to {} was interrupted", record.to))
                .hint("finish it: leoflow rollback"));
        }
        let deadline = Instant::now() + PATIENCE;
        while record.is_under_way() {
            if Instant::now() > deadline {
                return Err(
                    Error::failed(format!("a restore of {} is under way", record.to)).hint("leoflow lite status")
                );
            }
            self.reporter.report(Progress::Started("Waiting for a restore that is under way".to_owned()));
            tokio::time::sleep(LOOK).await;
            match rollback_record(self.home)? {
                Some(now) => record = now,
                None => return Ok(None),
            }
        }
        if control::status_of(self.home).is_none() {
            // Whoever takes the home settles it; a restore's own journal comes before.
            let lock = HomeLock::take(self.home, "leoflow rollback", None)?;
            return self.settle_in(lock).await;
        }
        // One at a time, and what is there then.
        let _alone = self.wait_for_operation().await?;
        let Some(record) = rollback_record(self.home)?.filter(|now| now.worker == record.worker) else {
            return Ok(None);
        };
        let datastore = Datastore::open(self, "leoflow rollback").await?;
        let schema = schema_of(&datastore.access).await?;
        self.tell_settled(record, schema).map(Some)
    }

    async fn settle_in(&self, lock: HomeLock) -> Result<Option<Settled>, Error> {
        let settled = self.take_held_home(AfterUpgrade::GoOn).await;
        drop(lock);
        settled
    }

    /// The same where the caller has the home and nothing runs.
    pub(super) async fn settle_rollback_of_stopped(&self) -> Result<Option<Settled>, Error> {
        let Some(record) = rollback_record(self.home)? else { return Ok(None) };
        if env_vars::is_set(RESTORE_OF_ROLLBACK) || record.is_under_way() {
            return Ok(None);
        }
        self.end_leftovers()?;
        let (access, _server) = self.private_server().await?;
        let schema = schema_of(&access).await?;
        self.tell_settled(record, schema).map(Some)
    }

    fn tell_settled(&self, record: RollbackRecord, schema: i64) -> Result<Settled, Error> {
        let settled = record.settle(self.home, schema)?;
        if let Settled::Finished(_) = &settled {
            note_finished(self.home);
        }
        self.reporter.report(Progress::Note(match &settled {
            Settled::Finished(record) => format!("finished the rollback to {} that was interrupted", record.to),
            Settled::Forgotten(record) => {
                format!("forgot the rollback to {} that was interrupted before it changed anything", record.to)
            }
        }));
        Ok(settled)
    }
}

/// A mark that cannot be written costs a question that is asked once more.
pub(super) fn note_finished(home: &Home) {
    let _ = history::set_finished_by_another(home, true);
}

async fn schema_of(access: &Access) -> Result<i64, Error> {
    let client = access.connect(&access.application()).await?;
    Ok(schema::classify::database_version(&schema::inspect(&client).await?))
}

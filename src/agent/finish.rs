//! How tries end: their keepers are gone, their folders are read, the outcome goes to the datastore, the folder goes.
//! An error while a folder is read says nothing about the task: it is read again until it can be.

use super::ending;
use super::folder::TaskFolder;
use super::run::{Agent, Running};
use super::stop::end_orphans;
use super::warm;
use crate::engine::keys::TryKey;
use crate::engine::store::StoreError;
use crate::engine::store::requeue;
use crate::engine::store::tries::{self, Ended};
use crate::python::Interpreter;
use crate::sys::process::ProcessId;
use crate::sys::{blocking, reaper};
use deadpool_postgres::ClientWrapper;
use futures_util::future::join_all;
use jiff::Timestamp;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Until a folder that could not be read is read again.
const READ_AGAIN: Duration = Duration::from_secs(1);

/// A try whose keeper has ended.
pub(super) struct Settled {
    key: TryKey,
    folder: TaskFolder,
    interpreter: Option<Rc<Interpreter>>,
    /// `None` where it never had one, or nothing is known of it.
    keeper: Option<ProcessId>,
    /// Whether its files are of this start of the machine: those of an earlier one may be older than what happened.
    is_current: bool,
}

/// What the folder of a try says.
enum Fate {
    Ended(Box<Ended>),
    /// No keeper ever took it, or its task was not started for a cause that passes. Nothing of the user's has run.
    NotBegun(String),
}

impl Settled {
    pub(super) fn adopted(key: &TryKey, folder: &TaskFolder, keeper: Option<ProcessId>, is_current: bool) -> Self {
        Self { key: key.clone(), folder: folder.clone(), interpreter: None, keeper, is_current }
    }
}

impl Agent {
    /// The keeper of this try has ended, and with it the try, but where another keeper has it.
    pub(super) fn settle(&mut self, key: TryKey, ended: Running) -> Option<Settled> {
        let Running { folder, keeper, interpreter, .. } = ended;
        // Ours, if it was our child; otherwise another's to wait for.
        reaper::ended_child(keeper.pid);
        let settled = Settled { key, folder, interpreter, keeper: Some(keeper), is_current: true };
        match settled.folder.keeper() {
            Ok(Some(other)) if Some(&other) != settled.keeper.as_ref() && other.is_alive() => {
                // Another keeper was faster: that one has the try.
                let Settled { key, folder, interpreter, .. } = settled;
                self.watch(key, folder, other, interpreter);
                None
            }
            Ok(_) => Some(settled),
            Err(error) => {
                self.read_again(settled, &error);
                None
            }
        }
    }

    /// Writes down how tries ended whose keepers are gone, and removes their folders. Returns whether one is deferred.
    pub(super) async fn record(&mut self, client: &ClientWrapper, over: Vec<Settled>) -> Result<bool, StoreError> {
        let mut ended = Vec::with_capacity(over.len());
        for one in over {
            match self.fate(&one).await {
                Ok(Fate::Ended(outcome)) => ended.push((*outcome, one.folder)),
                Ok(Fate::NotBegun(reason)) => self.queue_again(client, &one.key, reason).await?,
                Err(error) => self.read_again(one, &error),
            }
        }
        // On their way together, each for itself: together they would hold what a clear takes in another order.
        let written = join_all(ended.iter().map(|(one, _)| tries::record(client, one))).await;
        for ((one, _), written) in ended.iter().zip(written) {
            // A value that the database refuses is its task's fault; everything else is tried again.
            match written {
                Err(StoreError::Invalid(reason)) => {
                    let reason = format!("its result cannot be kept: {reason}");
                    tries::record(client, &ending::never_began(one.key.clone(), reason)).await?;
                }
                written => drop(written?),
            }
        }
        ended.iter().for_each(|(_, folder)| folder.discard());
        Ok(ended.iter().any(|(one, _)| one.deferral.is_some()))
    }

    async fn fate(&mut self, settled: &Settled) -> io::Result<Fate> {
        let Settled { key, folder, interpreter, is_current, .. } = settled;
        let outcome = folder.outcome()?;
        let result = folder.result()?;
        if let Some(outcome) = outcome.as_ref().filter(|outcome| outcome.transient && result.is_none()) {
            return Ok(Fate::NotBegun(outcome.problem.clone().unwrap_or_default()));
        }
        let keeper_log = if outcome.is_none() { folder.keeper_log() } else { String::new() };
        if outcome.is_none() {
            if *is_current && result.is_none() && folder.keeper()?.is_none() && folder.spec()?.is_some() {
                return Ok(Fate::NotBegun(format!("the task could not be started: {keeper_log}")));
            }
            let marked = folder.clone();
            if let Err(error) = blocking::run(move || end_orphans(&marked)).await {
                warn!("{}: {error}", folder.path().display());
            }
        }
        if let (Some(result), Some(interpreter)) = (&result, interpreter)
            && self.warm.learn(interpreter, &warm::user(key), &result.libraries)
        {
            self.warm.prepare_large(interpreter);
        }
        let ended = ending::ended(key.clone(), outcome.as_ref(), result, &keeper_log, Timestamp::now());
        debug!("{}: {}", ended.key, ended.state.as_str());
        Ok(Fate::Ended(Box::new(ended)))
    }

    /// Puts a try that has not begun back into the queue.
    pub(super) async fn queue_again(
        &mut self,
        client: &ClientWrapper,
        key: &TryKey,
        reason: String,
    ) -> Result<(), StoreError> {
        if !requeue::queue_again(client, key).await? {
            // It was cleared or ended meanwhile.
            return self.fail(client, key, reason).await;
        }
        TaskFolder::of(&self.surroundings.home, key).discard();
        self.hindrance.note(format!("tasks wait in the queue: {reason}"), Instant::now());
        Ok(())
    }

    /// Its end could not be read: it stays as it is, and is looked at again in a moment.
    fn read_again(&mut self, settled: Settled, error: &io::Error) {
        let Settled { key, folder, interpreter, keeper, .. } = settled;
        let reason = format!("{key}: {} cannot be read: {error}", folder.path().display());
        self.hindrance.note_unread(reason, Instant::now());
        match keeper {
            Some(keeper) => self.watch_after(READ_AGAIN, key, folder, keeper, interpreter),
            // The next round finds it by the datastore.
            None => self.must_look_again = true,
        }
    }
}

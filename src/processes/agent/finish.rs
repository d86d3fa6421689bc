//! Finishes tries that have ended: reads their folders, records the outcomes in the datastore and removes the folders.
//! A failed read proves nothing about the task, so the agent repeats it until it succeeds.

use super::adopt::Boot;
use super::run::Agent;
use super::running::{EndedTry, Running};
use super::stop::end_orphans;
use super::try_outcome;
use super::warm;
use crate::keeper::{Libraries, TaskFolder};
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::sys::blocking;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::model::state::TryState;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::instance::tries::{self, Callbacks, Ended, Retry};
use std::io;
use std::time::Duration;
use tokio::time::Instant;
use tracing::{debug, warn};

/// Pause before the agent reads a folder again that it could not read.
const REREAD_PAUSE: Duration = Duration::from_secs(1);

/// How a try ended, according to its folder.
enum TryEnd {
    Ended(Box<Ended>),
    /// No keeper took the try, or a transient error prevented its task from starting. No user code has run.
    NotBegun(String),
}

/// The outcome of a try that a restored or cloned datastore calls running.
const RESTORED: &str = "the datastore was restored or cloned while the task ran";

impl Agent {
    /// Returns the try unless another keeper has it, or its folder must be read again.
    pub(super) fn after_end(&mut self, ended_try: EndedTry) -> Option<EndedTry> {
        match ended_try.folder.keeper() {
            Ok(Some(other)) if Some(&other) != ended_try.keeper.as_ref() && other.is_alive() => {
                // Another keeper took the try first.
                let EndedTry { key, folder, interpreter, .. } = ended_try;
                self.watch(key, Running::new(folder, other, interpreter), Duration::ZERO);
                None
            }
            Ok(_) => Some(ended_try),
            Err(error) => {
                self.retry_read(ended_try, &error);
                None
            }
        }
    }

    /// Records how tries ended, and removes their folders. Returns true if one has deferred
    /// itself.
    pub(super) async fn record(&mut self, client: &ClientWrapper, finished: Vec<EndedTry>) -> Result<bool, StoreError> {
        let mut ended = Vec::with_capacity(finished.len());
        for ended_try in finished {
            match self.read_try_end(&ended_try).await {
                Ok(TryEnd::Ended(outcome)) => ended.push((*outcome, ended_try.folder)),
                Ok(TryEnd::NotBegun(reason)) => self.requeue_try(client, &ended_try.key, reason).await?,
                Err(error) => self.retry_read(ended_try, &error),
            }
        }
        let outcomes: Vec<&Ended> = ended.iter().map(|(outcome, _)| outcome).collect();
        let written = tries::record_all(client, &outcomes).await?;
        for ((outcome, _), written) in ended.iter().zip(written) {
            // If the database refuses a value, the task has failed; every other error is retried.
            match written {
                Err(StoreError::Invalid(reason)) => {
                    let reason = format!("the task's result cannot be stored: {reason}");
                    // Of a successful result, the process has called other callbacks.
                    let callbacks = if outcome.state == TryState::Failed { outcome.callbacks } else { Callbacks::Owed };
                    let (key, now) = (outcome.key.clone(), Timestamp::now());
                    let failed = Ended::failed(key, Retry::Allowed, callbacks, reason, now);
                    self.may_be_queued |= tries::record(client, &failed).await?;
                }
                written => self.may_be_queued |= written?,
            }
        }
        ended.iter().for_each(|(_, folder)| folder.discard());
        Ok(ended.iter().any(|(outcome, _)| outcome.deferral.is_some()))
    }

    /// Reads from the try's folder how the try ended; ends the processes that a killed keeper left.
    async fn read_try_end(&mut self, ended_try: &EndedTry) -> io::Result<TryEnd> {
        let EndedTry { key, folder, interpreter, keeper_exit, boot, .. } = ended_try;
        let outcome = folder.outcome()?;
        let result = folder.result()?;
        if let Some(outcome) = outcome.as_ref().filter(|outcome| outcome.transient && result.is_none()) {
            return Ok(TryEnd::NotBegun(outcome.problem.clone().unwrap_or_default()));
        }
        if outcome.is_none() {
            if *boot == Boot::Current && result.is_none() && folder.keeper()?.is_none() && folder.spec()?.is_some() {
                return Ok(TryEnd::NotBegun("failed to start the task: see `leoflow lite logs keeper`".to_owned()));
            }
            let task_folder = folder.clone();
            let log = key.log_path(&self.context.home);
            if let Err(error) = blocking::run(move || end_orphans(&task_folder, &log)).await {
                warn!("{}: cannot end the task's remaining processes: {error}", folder.path().display());
            }
        }
        if *boot == Boot::OtherDatastore && outcome.is_none() && result.is_none() {
            // It may have succeeded in the instance that the copy was made of, which called its callbacks.
            let (key, now) = (key.clone(), Timestamp::now());
            let ended = Ended::failed(key, Retry::Allowed, Callbacks::Called, RESTORED.to_owned(), now);
            return Ok(TryEnd::Ended(Box::new(ended)));
        }
        if let (Some(result), Some(interpreter)) = (&result, interpreter)
            && !result.libraries.is_empty()
        {
            let (interpreter, usage_key) = ((**interpreter).clone(), warm::usage_key(key));
            self.keepers.note_libraries(Libraries { interpreter, usage_key, libraries: result.libraries.clone() });
        }
        let ended = try_outcome::evaluate(key.clone(), outcome.as_ref(), result, *keeper_exit, Timestamp::now());
        debug!("{}: {}", ended.key, ended.state.as_str());
        Ok(TryEnd::Ended(Box::new(ended)))
    }

    /// Requeues a try that has not begun.
    pub(super) async fn requeue_try(
        &mut self,
        client: &ClientWrapper,
        key: &TryKey,
        reason: String,
    ) -> Result<(), StoreError> {
        if !tries::requeue(client, key).await? {
            // The try was cleared or ended in the meantime.
            return self.fail(client, key, reason).await;
        }
        TaskFolder::of(&self.context.home, key).discard();
        self.start_backoff.note(format!("tasks wait in the queue: {reason}"), Instant::now());
        Ok(())
    }

    /// Schedules another read of a folder that could not be read.
    fn retry_read(&mut self, ended_try: EndedTry, error: &io::Error) {
        let EndedTry { key, folder, interpreter, keeper, .. } = ended_try;
        let reason = format!("{key}: cannot read {}: {error}", folder.path().display());
        self.start_backoff.note_unread(reason, Instant::now());
        match keeper {
            Some(keeper) => self.watch(key, Running::new(folder, keeper, interpreter), REREAD_PAUSE),
            // The next take-over finds the try in the datastore.
            None => self.needs_take_over = true,
        }
    }
}

//! Starts a claimed try with the Python of its environment, from a warm Python if possible.

use super::folder::TaskFolder;
use super::keepers;
use super::run::{Agent, Running};
use super::start;
use super::try_outcome;
use super::warm::{self, Batch};
use deadpool_postgres::ClientWrapper;
use leoflow_base::protocol::task_log::Level;
use leoflow_base::sys::transient::is_transient;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_engine::store::instance::tries;
use leoflow_python::{Interpreter, NoPython};
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tracing::debug;

/// Result of starting a try.
enum StartResult {
    Started,
    /// The try waits: its environment is being built, or its warm Python is loading.
    Waits,
    /// The try cannot run, for this reason: it fails.
    Impossible(String),
    /// The try cannot run now because of a transient error, with this reason: it goes back to the queue.
    NotNow(String),
}

impl StartResult {
    fn failed(error: &io::Error) -> Self {
        let reason = format!("failed to start the task: {error}");
        if is_transient(error) { Self::NotNow(reason) } else { Self::Impossible(reason) }
    }
}

impl Agent {
    /// Starts a try, or fails it if it cannot start.
    pub(super) async fn start(
        &mut self,
        client: &ClientWrapper,
        claimed: &Claimed,
        batch: Batch,
    ) -> Result<(), StoreError> {
        match self.try_start(client, claimed, batch).await? {
            StartResult::Started | StartResult::Waits => Ok(()),
            StartResult::Impossible(reason) => self.fail(client, &claimed.key, reason).await,
            StartResult::NotNow(reason) => self.requeue_try(client, &claimed.key, reason).await,
        }
    }

    /// Fails a try that has not begun and never will.
    pub(super) async fn fail(&self, client: &ClientWrapper, key: &TryKey, reason: String) -> Result<(), StoreError> {
        start::write_to_log(&self.context.home, key, |log| log.write_message(Level::Error, &reason));
        tries::record(client, &try_outcome::never_began(key.clone(), reason)).await?;
        TaskFolder::of(&self.context.home, key).discard();
        Ok(())
    }

    async fn try_start(
        &mut self,
        client: &ClientWrapper,
        claimed: &Claimed,
        batch: Batch,
    ) -> Result<StartResult, StoreError> {
        let Some(version) = claimed.version_id else {
            return Ok(StartResult::Impossible("the task's DAG has no version to run".to_owned()));
        };
        let version = self.versions.get(client, version).await?;
        let plain = match self.interpreter.get().await {
            Ok(interpreter) => interpreter,
            Err(NoPython { reason, is_transient: true }) => return Ok(StartResult::NotNow(reason)),
            Err(NoPython { reason, .. }) => return Ok(StartResult::Impossible(reason)),
        };
        let Some(interpreter) = self.interpreter_for(claimed, plain, version.environment.as_deref()) else {
            return Ok(StartResult::Waits);
        };
        if self.environments.wait_for_warm(claimed, &mut self.warm, &interpreter) {
            return Ok(StartResult::Waits);
        }
        let mut request = match self.context.prepare(claimed, &version, &interpreter) {
            Ok(request) => request,
            Err(error) => return Ok(StartResult::failed(&error)),
        };
        if self.warm.uses_large(&request.usage_key) && warm::may_set_variables(&version.sources) {
            // Without a usage key, the try gets a zygote without large libraries, and imports them after it has set the
            // variables.
            request.usage_key.clear();
        }
        let keeper = match warm::start(&mut self.warm, &interpreter, &request, batch).await {
            Some(keeper) => keeper,
            None => match keepers::start_cold(&request.folder) {
                Ok(keeper) => keeper,
                Err(error) => return Ok(StartResult::failed(&error)),
            },
        };
        debug!("{}: started, keeper {}", claimed.key, keeper.pid);
        let running = Running::new(request.folder, keeper, Some(interpreter));
        self.watch(claimed.key.clone(), running, Duration::ZERO);
        Ok(StartResult::Started)
    }

    /// The Python of the environment with this hash, or `plain` without one. `None` if the try has to wait while the
    /// environment is built.
    fn interpreter_for(
        &mut self,
        claimed: &Claimed,
        plain: Interpreter,
        environment: Option<&str>,
    ) -> Option<Rc<Interpreter>> {
        let Some(hash) = environment else { return Some(Rc::new(plain)) };
        let interpreter = self.environments.find(&plain, hash);
        if interpreter.is_none() {
            let message = "waiting for its environment, which is not on this machine and is being built";
            self.context.log_waiting(&claimed.key, message);
            self.environments.wait_for(claimed, hash.to_owned());
        }
        interpreter
    }
}

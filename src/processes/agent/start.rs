//! Starts a claimed try: prepares it (DAG version, Python, settings, `spec.json`) and has a keeper run it.

use super::run::Agent;
use super::running::Running;
use super::task_context::write_to_log;
use crate::keeper::TaskFolder;
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::protocol::task_log::Level;
use leoflow_base::sys::transient::is_transient;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_engine::store::instance::tries::{self, Callbacks, Ended, Retry};
use leoflow_python::NoPython;
use std::io;
use std::rc::Rc;
use std::time::Duration;
use tracing::debug;

/// Why a try is not started.
enum NotStarted {
    /// It waits: its environment is being built.
    Waits,
    /// It cannot run, for this reason: it fails.
    Impossible(String),
    /// It cannot run now because of a transient error, with this reason: it goes back to the queue.
    NotNow(String),
    Store(StoreError),
}

impl From<StoreError> for NotStarted {
    fn from(error: StoreError) -> Self {
        Self::Store(error)
    }
}

impl From<NoPython> for NotStarted {
    fn from(NoPython { reason, is_transient }: NoPython) -> Self {
        if is_transient { Self::NotNow(reason) } else { Self::Impossible(reason) }
    }
}

impl From<io::Error> for NotStarted {
    fn from(error: io::Error) -> Self {
        let reason = format!("failed to start the task: {error}");
        if is_transient(&error) { Self::NotNow(reason) } else { Self::Impossible(reason) }
    }
}

impl Agent {
    /// Starts a try, or fails it if it cannot start.
    pub(super) async fn start(&mut self, client: &ClientWrapper, claimed: &Claimed) -> Result<(), StoreError> {
        match self.try_start(client, claimed).await {
            Ok(()) | Err(NotStarted::Waits) => Ok(()),
            Err(NotStarted::Impossible(reason)) => self.fail(client, &claimed.key, reason).await,
            Err(NotStarted::NotNow(reason)) => self.requeue_try(client, &claimed.key, reason).await,
            Err(NotStarted::Store(error)) => Err(error),
        }
    }

    /// Fails a try that has not begun and never will.
    pub(super) async fn fail(
        &mut self,
        client: &ClientWrapper,
        key: &TryKey,
        reason: String,
    ) -> Result<(), StoreError> {
        write_to_log(&self.context.home, key, |log| log.write_message(Level::Error, &reason));
        // As in Airflow, whose scheduler has the callbacks called of a task that its executor could not start:
        // `SchedulerJobRunner.process_executor_events`.
        let ended = Ended::failed(key.clone(), Retry::Allowed, Callbacks::Owed, reason, Timestamp::now());
        self.may_be_queued |= tries::record(client, &ended).await?;
        TaskFolder::of(&self.context.home, key).discard();
        Ok(())
    }

    async fn try_start(&mut self, client: &ClientWrapper, claimed: &Claimed) -> Result<(), NotStarted> {
        let no_version = || NotStarted::Impossible("the task's DAG has no version to run".to_owned());
        let version = self.versions.get(client, claimed.version_id.ok_or_else(no_version)?).await?;
        let plain = self.interpreter.get().await?;
        let interpreter = match version.version.environment.as_deref() {
            None => Rc::new(plain),
            Some(hash) => self.environments.find(&plain, hash).ok_or_else(|| {
                let message = "waiting for its environment, which is not on this machine and is being built";
                write_to_log(&self.context.home, &claimed.key, |log| log.write_message(Level::Info, message));
                self.environments.wait_for(claimed, hash.to_owned());
                NotStarted::Waits
            })?,
        };
        let mut start = self.context.prepare(claimed, &version, &interpreter)?;
        if let Some(warm) = &mut start.warm {
            if !self.versions.may_have_template(&version) {
                warm.template = None;
            }
            if self.keepers.has_libraries(&warm.usage_key) && version.may_set_variables {
                // Without a usage key, the try gets a zygote without large libraries, and imports them after it has set
                // the variables.
                warm.usage_key.clear();
            }
        }
        let folder = TaskFolder::at(start.folder.clone());
        let keeper = self.keepers.start(start)?;
        debug!("{}: started, keeper {}", claimed.key, keeper.pid);
        self.watch(claimed.key.clone(), Running::new(folder, keeper, Some(interpreter)), Duration::ZERO);
        Ok(())
    }
}

//! Builds of environments, with their progress and retries.

use super::{BuildState, CodeError, Environment, Environments, retry_delay, upkeep};
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex;
use leoflow_engine::store::dag::environments as store;
use leoflow_engine::store::events::Event;
use leoflow_python::environments::{self, Declared, Lock};
use leoflow_python::{Interpreter, Python};
use std::sync::Arc;
use tracing::{info, warn};

impl Environments {
    /// Builds the environment and notifies `changed`. If the build fails, waits for the retry delay, after which the
    /// next request may start another build. `failures` counts earlier consecutive failures.
    pub(super) async fn build(
        self: Arc<Self>,
        inputs: String,
        (declared, python, lock): (Declared, Python, Option<Lock>),
        plain: Interpreter,
        failures: u32,
    ) {
        let reason = match self.try_build(&inputs, &declared, &python, lock, &plain).await {
            Ok(environment) => {
                info!("the environment of {} is ready", declared.requirements.join(", "));
                self.set(&inputs, &declared, &python, BuildState::Ready(environment));
                return self.changed.notify_one();
            }
            Err(error) => error.to_string(),
        };
        warn!("failed to build the environment of {}: {reason}", declared.requirements.join(", "));
        self.core.changes.publish(Some(&Event::Dags));
        let failures = failures + 1;
        self.set(&inputs, &declared, &python, BuildState::Failed { reason, failures });
        self.changed.notify_one();
        tokio::time::sleep(retry_delay(failures)).await;
        let is_latest =
            |state: &BuildState| matches!(state, BuildState::Failed { failures: now, .. } if *now == failures);
        if mutex::lock(&self.states).get(&inputs).is_some_and(|(_, _, state)| is_latest(state)) {
            self.set(&inputs, &declared, &python, BuildState::RetryDue { failures });
            self.changed.notify_one();
        }
    }

    async fn try_build(
        self: &Arc<Self>,
        inputs: &str,
        declared: &Declared,
        python: &Python,
        lock: Option<Lock>,
        plain: &Interpreter,
    ) -> Result<Environment, CodeError> {
        let _building = self.builds.acquire().await;
        let (this, inputs_copy) = (self.clone(), inputs.to_owned());
        let (declared, python) = (declared.clone(), python.clone());
        let work = move || {
            let report = |progress: Progress| {
                let is_step = matches!(progress, Progress::Started(_));
                let Some(step) = upkeep::step_or_log(progress) else { return };
                this.set(&inputs_copy, &declared, &python, BuildState::Building(step));
                if is_step {
                    this.core.changes.publish(Some(&Event::Dags));
                }
            };
            environments::ensure(&this.core.home, &declared, &python, lock, &report)
        };
        let (lock, folder) = blocking::run(work).await??;
        let client = self.core.database.get().await?;
        store::choose(&*client, inputs, &lock).await?;
        Ok(Environment { hash: Some(lock.hash()), interpreter: plain.in_environment(&folder) })
    }
}

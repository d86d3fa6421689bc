//! Python environments of projects. The `inputs` of an environment, a hash of the project's declaration and of the
//! Python, identify it. Environments on disk are reused; missing ones are built in the background, at most `MAX_BUILDS`
//! at a time.

mod availability;
mod build;
mod error;
mod python;
pub mod upkeep;
mod uv;

use self::python::NoPython;
use crate::state::Core;
use crate::state::database::DatastoreError;
pub use availability::{Availability, Environment, RequiredEnvironment};
pub use error::CodeError;
use leoflow_base::sys::blocking;
use leoflow_base::sys::mutex::lock;
use leoflow_engine::store::dag::environments as store;
use leoflow_engine::store::events::Event;
use leoflow_python::environments::{self, Declared, Lock, Variables};
use leoflow_python::{Interpreter, Python, SharedInterpreter};
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::sync::Notify;
use tokio::time::Instant;
use tracing::{info, warn};

/// First retry delay after a failed build; grows fourfold up to `MAX_RETRY_DELAY`.
const RETRY_DELAY: Duration = Duration::from_secs(60);
const MAX_RETRY_DELAY: Duration = Duration::from_secs(3600);
/// Retry delays after a missing Python and after an unavailable datastore.
const PYTHON_RETRY_DELAY: Duration = Duration::from_secs(60);
const STORE_RETRY_DELAY: Duration = Duration::from_secs(2);
/// Maximum number of builds at the same time.
const MAX_BUILDS: usize = 4;
/// Progress text of a queued build.
const QUEUED: &str = "Waiting for its turn";

/// The state of a required environment.
#[derive(Debug, Clone)]
enum BuildState {
    Ready(Environment),
    /// Holds a text about the current build step.
    Building(String),
    /// Holds the number of consecutive failures.
    Failed {
        reason: String,
        failures: u32,
    },
    /// The retry delay has passed; the next request starts a build.
    RetryDue {
        failures: u32,
    },
}

/// Returns the retry delay after `failures` consecutive failures.
fn retry_delay(failures: u32) -> Duration {
    (RETRY_DELAY * 4u32.saturating_pow(failures.saturating_sub(1))).min(MAX_RETRY_DELAY)
}

pub struct Environments {
    core: Arc<Core>,
    /// The Python of DAG files without an environment.
    pub interpreter: SharedInterpreter,
    /// The required environments by inputs.
    states: Mutex<HashMap<String, (Declared, Python, BuildState)>>,
    inputs_by_file: Mutex<HashMap<PathBuf, String>>,
    /// The values of environment variables with which builds of each environment were tried since its last retry, by
    /// inputs.
    tried_values: Mutex<HashMap<String, Vec<Variables>>>,
    uv_download: uv::UvDownload,
    python_downloads: python::PythonDownloads,
    /// Limits the builds at the same time. Several may run, because a build that waits for a package index must not
    /// block the others.
    builds: tokio::sync::Semaphore,
    /// Notified when waiting or outdated files must be parsed again: a build, download or update has ended, or a retry
    /// is due.
    pub changed: Notify,
    /// When the next delayed notification of `changed` is due.
    next_notification: Mutex<Option<Instant>>,
    /// Files that must be parsed again because their environment changed.
    outdated: Mutex<Vec<PathBuf>>,
}

impl Environments {
    /// `python` is the interpreter that the user configured.
    pub fn new(core: Arc<Core>, python: Option<PathBuf>) -> Self {
        Self {
            interpreter: SharedInterpreter::new(core.home.clone(), python),
            core,
            states: Mutex::default(),
            inputs_by_file: Mutex::default(),
            tried_values: Mutex::default(),
            uv_download: uv::UvDownload::default(),
            python_downloads: python::PythonDownloads::default(),
            builds: tokio::sync::Semaphore::new(MAX_BUILDS),
            changed: Notify::new(),
            next_notification: Mutex::default(),
            outdated: Mutex::default(),
        }
    }

    /// Records which environment a file requires.
    fn set_requirement(&self, file: &Path, inputs: &str) {
        lock(&self.inputs_by_file).insert(file.to_owned(), inputs.to_owned());
    }

    /// Records that a file uses the plain interpreter, or that its requirements are unknown.
    pub fn clear_requirement(&self, file: &Path) {
        lock(&self.inputs_by_file).remove(file);
    }

    /// Forgets removed DAG files, and environments that no file requires, except those being built.
    pub fn keep_only(&self, is_dag_file: impl Fn(&Path) -> bool) {
        let mut inputs_by_file = lock(&self.inputs_by_file);
        inputs_by_file.retain(|file, _| is_dag_file(file));
        let is_required = |inputs: &String| inputs_by_file.values().any(|required| required == inputs);
        lock(&self.tried_values).retain(|inputs, _| is_required(inputs));
        lock(&self.states)
            .retain(|inputs, (_, _, state)| is_required(inputs) || matches!(state, BuildState::Building(_)));
    }

    /// Returns the environment that a DAG file's project declares; starts building it if it does not exist.
    pub async fn request(self: &Arc<Self>, declared: &Declared, file: &Path) -> Availability {
        let plain = match self.interpreter.get().await {
            Ok(plain) => plain,
            Err(missing) => return Availability::Failed(missing.reason),
        };
        // The environment's key until a Python satisfies the declaration.
        let unresolved_key = declared.inputs(&format!("none of {}", declared.python.join(" ")));
        let python = match self.python_for(declared, &plain).await {
            Ok(python) => {
                lock(&self.states).remove(&unresolved_key);
                python
            }
            Err(NoPython::Downloading(progress)) => {
                self.set_requirement(file, &unresolved_key);
                self.set(&unresolved_key, declared, &Python::default(), BuildState::Building(progress));
                return Availability::Waits;
            }
            Err(NoPython::Unavailable(reason)) => {
                lock(&self.states).remove(&unresolved_key);
                // A Python may be installed at any time.
                self.notify_after(PYTHON_RETRY_DELAY);
                return Availability::Failed(reason);
            }
        };
        if declared.is_plain(&python, &plain.program) {
            // Only a Python range is declared, and the plain interpreter satisfies it.
            self.clear_requirement(file);
            return Availability::Ready(Environment { hash: None, interpreter: plain });
        }
        let inputs = declared.inputs_with(&python);
        self.set_requirement(file, &inputs);
        let failures = match self.try_start(&inputs, declared, &python) {
            Ok(failures) => failures,
            Err(availability) => return availability,
        };
        // In a task of its own: other files wait for this build from here on, but the caller may be cancelled.
        let (this, requirement, file) = (self.clone(), (declared.clone(), python), file.to_owned());
        let task = tokio::spawn(async move { this.find_or_build(inputs, requirement, plain, failures, file).await });
        task.await.unwrap_or_else(|error| Availability::Failed(error.to_string()))
    }

    /// Returns the environment if it exists on disk; starts building it otherwise.
    async fn find_or_build(
        self: Arc<Self>,
        inputs: String,
        (declared, python): (Declared, Python),
        plain: Interpreter,
        failures: u32,
        file: PathBuf,
    ) -> Availability {
        match self.find_built(&inputs, &plain).await {
            Err(error) => {
                // `Database::get` logs why the datastore is not available.
                if let DatastoreError::Store(error) = error {
                    warn!("cannot read the lock of the environment of {}: {error}; retrying", file.display());
                }
                lock(&self.states).remove(&inputs);
                self.notify_after(STORE_RETRY_DELAY);
                Availability::Waits
            }
            Ok((_, Some(environment))) => {
                self.set(&inputs, &declared, &python, BuildState::Ready(environment.clone()));
                if self.is_required_by_others(&inputs, &file) {
                    self.changed.notify_one();
                }
                Availability::Ready(environment)
            }
            Ok((lock, None)) => {
                info!("building the environment of {}", file.display());
                self.core.changes.publish(Some(&Event::Dags));
                tokio::spawn(self.build(inputs, (declared, python, lock), plain, failures));
                Availability::Waits
            }
        }
    }

    fn is_required_by_others(&self, inputs: &str, file: &Path) -> bool {
        lock(&self.inputs_by_file).iter().any(|(other, required)| required == inputs && other != file)
    }

    /// Marks the environment as building and returns its count of consecutive failures. The error is the availability
    /// of an environment that must not be built now.
    fn try_start(&self, inputs: &str, declared: &Declared, python: &Python) -> Result<u32, Availability> {
        let mut states = lock(&self.states);
        if let Some((known, _, _)) = states.get_mut(inputs) {
            known.variables.clone_from(&declared.variables);
        }
        let mut tried_values = lock(&self.tried_values);
        let tried_values = tried_values.entry(inputs.to_owned()).or_default();
        // New values, such as a corrected password, are tried at once.
        let has_new_values = !tried_values.contains(&declared.variables);
        let failures = match states.get(inputs).map(|(_, _, state)| state.clone()) {
            Some(BuildState::Failed { .. } | BuildState::RetryDue { .. }) if has_new_values => 0,
            Some(BuildState::Ready(environment)) if environment.interpreter.program.is_file() => {
                return Err(Availability::Ready(environment));
            }
            Some(BuildState::Building(_)) => return Err(Availability::Waits),
            Some(BuildState::Failed { reason, .. }) => return Err(Availability::Failed(reason)),
            Some(BuildState::RetryDue { failures }) => {
                tried_values.clear();
                failures
            }
            Some(BuildState::Ready(_)) | None => 0,
        };
        if !tried_values.contains(&declared.variables) {
            tried_values.push(declared.variables.clone());
        }
        states.insert(inputs.to_owned(), (declared.clone(), python.clone(), BuildState::Building(QUEUED.to_owned())));
        Ok(failures)
    }

    /// Returns the lock chosen earlier, and its environment if it exists and may still be used.
    async fn find_built(
        &self,
        inputs: &str,
        plain: &Interpreter,
    ) -> Result<(Option<Lock>, Option<Environment>), DatastoreError> {
        let lock = {
            let client = self.core.database.get().await?;
            store::chosen(&*client, inputs).await?
        };
        // A lock that is no longer allowed is resolved again.
        let environment = match lock.as_ref().filter(|lock| lock.is_allowed()) {
            Some(lock) => self.find_on_disk(lock.hash(), plain).await,
            None => None,
        };
        Ok((lock, environment))
    }

    /// Notifies `changed` after the pause, unless it will be notified earlier.
    fn notify_after(self: &Arc<Self>, pause: Duration) {
        let due = Instant::now() + pause;
        let mut next = lock(&self.next_notification);
        if next.is_some_and(|next| next <= due) {
            return;
        }
        *next = Some(due);
        drop(next);
        let this = self.clone();
        tokio::spawn(async move {
            tokio::time::sleep_until(due).await;
            lock(&this.next_notification).take_if(|next| *next == due);
            this.changed.notify_one();
        });
    }

    /// Returns the environment with this lock, if it exists.
    async fn find_on_disk(&self, hash: String, plain: &Interpreter) -> Option<Environment> {
        let (home, lock_hash) = (self.core.home.clone(), hash.clone());
        let find = move || environments::find(&home, &lock_hash).inspect(|folder| environments::record_use(folder));
        let folder = blocking::run(find).await.ok()??;
        Some(Environment { hash: Some(hash), interpreter: plain.in_environment(&folder) })
    }

    /// Records the state of an environment.
    fn set(&self, inputs: &str, declared: &Declared, python: &Python, state: BuildState) {
        lock(&self.states).insert(inputs.to_owned(), (declared.clone(), python.clone(), state));
    }

    /// True if `changed` will be notified for this file's environment.
    pub fn will_notify(&self, file: &Path) -> bool {
        let next_notification = *lock(&self.next_notification);
        next_notification.is_some() || self.is_building(file)
    }

    /// True while this file's environment is being built.
    pub fn is_building(&self, file: &Path) -> bool {
        let inputs = lock(&self.inputs_by_file).get(file).cloned();
        inputs.is_some_and(|inputs| matches!(lock(&self.states).get(&inputs), Some((_, _, BuildState::Building(_)))))
    }

    /// Returns files that must be parsed again with another environment.
    pub fn take_outdated(&self) -> Vec<PathBuf> {
        std::mem::take(&mut lock(&self.outdated))
    }

    /// Lists the required environments with their states.
    pub fn required(&self) -> Vec<RequiredEnvironment> {
        let inputs_by_file = lock(&self.inputs_by_file);
        let files = |inputs: &String| {
            let mut files: Vec<PathBuf> = inputs_by_file
                .iter()
                .filter(|(_, required)| *required == inputs)
                .map(|(file, _)| file.clone())
                .collect();
            files.sort();
            files
        };
        let describe = |(inputs, (declared, python, build_state)): (&String, &(Declared, Python, BuildState))| {
            let (state, detail, hash) = match build_state {
                BuildState::Ready(environment) => ("ready", None, environment.hash.clone()),
                BuildState::Building(step) => ("building", Some(step.clone()), None),
                BuildState::Failed { reason, .. } => ("failed", Some(reason.clone()), None),
                BuildState::RetryDue { .. } => ("building", None, None),
            };
            let files = files(inputs);
            RequiredEnvironment {
                declared: declared.clone(),
                python: python.version.clone(),
                files,
                state,
                detail,
                hash,
            }
        };
        lock(&self.states).iter().map(describe).filter(|required| !required.files.is_empty()).collect()
    }
}

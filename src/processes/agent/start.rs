//! Starts a claimed try: prepares it (DAG version, Python, settings, `spec.json`) and starts its keeper, from a warm
//! Python if possible.

use super::folder::TaskFolder;
use super::keepers;
use super::log::TaskLog;
use super::run::{Agent, Running};
use super::task_files::{KeeperSpec, Spec};
use super::try_outcome;
use super::warm::{self, Batch, Request};
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::protocol::task_log::Level;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::descriptors::FIRST_PASSED;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::transient::is_transient;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::planner::retry;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::versions::{self, Version};
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_engine::store::instance::tries;
use leoflow_postgres::GenericClient;
use leoflow_python::{Interpreter, Job, NoPython, VersionCode, environment};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use std::time::Duration;
use tracing::{debug, warn};

/// Cache of DAG versions; a version never changes.
#[derive(Default)]
pub struct Versions(HashMap<i64, Rc<Version>>);

const MAX_VERSIONS: usize = 32;

impl Versions {
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Version>, StoreError> {
        if let Some(version) = self.0.get(&id) {
            return Ok(version.clone());
        }
        let version = Rc::new(versions::version(client, id).await?);
        if self.0.len() >= MAX_VERSIONS {
            self.0.clear();
        }
        self.0.insert(id, version.clone());
        Ok(version)
    }
}

/// Settings that all tasks of the agent share.
pub struct TaskContext {
    pub home: Home,
    pub workspace: PathBuf,
    pub max_map_length: u64,
}

impl TaskContext {
    /// Writes `spec.json`; returns the parameters of the start.
    pub fn prepare(&self, claimed: &Claimed, version: &Version, interpreter: &Interpreter) -> io::Result<Request> {
        let key = &claimed.key;
        let folder = TaskFolder::of(&self.home, key);
        let code = VersionCode::of(&self.workspace, &version.relative_fileloc, &version.sources);
        let task = version.structure.tasks.iter().find(|task| task.task_id == key.instance.task_id);
        let options = interpreter.options(&json!({
            "folder": folder.path(), "secrets": FIRST_PASSED, "work_in": code.folders,
            "read_by_libraries": warm::LIBRARY_VARIABLES,
        }));
        // JSON has no other paths either.
        let arguments = interpreter.arguments(Job::Task, &options).into_iter().map(OsString::into_string);
        let arguments = arguments.collect::<Result<_, _>>().map_err(|_| io::ErrorKind::InvalidFilename)?;
        let env_names = task.map(|task| task.env.keys().cloned().collect()).unwrap_or_default();
        let spec = Spec {
            key: key.clone(),
            keeper: KeeperSpec {
                program: interpreter.program.clone(),
                arguments,
                // A directory that always exists. The task itself changes to its project, which may be on a hanging
                // mount.
                folder: self.home.root().to_owned(),
                log: key.log_path(&self.home),
                time_limit: task.and_then(|task| task.execution_timeout),
            },
            task: self.task_spec(claimed, version, code),
        };
        folder.write_spec(&spec)?;
        Ok(Request { folder, usage_key: warm::usage_key(key), options, env_names })
    }

    /// Writes to the log of a try why it waits.
    pub fn log_waiting(&self, key: &TryKey, reason: &str) {
        write_to_log(&self.home, key, |log| log.write_message(Level::Info, reason));
    }

    /// The part of `spec.json` that the Python package reads.
    fn task_spec(&self, claimed: &Claimed, version: &Version, code: VersionCode) -> Map<String, Value> {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let spec_json = json!({
            "max_tries": claimed.max_tries,
            "may_retry": retry::has_tries_left(claimed.key.try_number, claimed.max_tries),
            "run_type": claimed.run_type,
            "logical_date": time(claimed.logical_date),
            "data_interval_start": time(claimed.data_interval_start),
            "data_interval_end": time(claimed.data_interval_end),
            "run_after": time(Some(claimed.run_after)),
            "run_start_date": time(claimed.run_start_date),
            "partition_key": claimed.partition.as_ref().map(|partition| &partition.key),
            "partition_date": time(claimed.partition.as_ref().and_then(|partition| partition.date)),
            "conf": claimed.conf,
            "note": claimed.note,
            "triggered_by": claimed.triggered_by,
            "first_start_date": time(claimed.first_start_date),
            "reschedules": claimed.reschedules,
            "next_method": claimed.resumption.as_ref().map(|next| &next.next_method),
            "next_kwargs": claimed.resumption.as_ref().map(|next| &next.next_kwargs),
            "settings": version.structure.settings,
            "env": version.structure.tasks.iter().find(|task| task.task_id == claimed.key.instance.task_id).map(|task| &task.env),
            "roots": code.roots,
            "fileloc": code.file,
            "sources": code.sources,
            "socket": self.home.api_socket(),
            "token": claimed.token,
            "max_map_length": self.max_map_length,
        });
        match spec_json {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

/// Why a try is not started.
enum NotStarted {
    /// It waits: its environment is being built, or its warm Python is loading.
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
    pub(super) async fn start(
        &mut self,
        client: &ClientWrapper,
        claimed: &Claimed,
        batch: Batch,
    ) -> Result<(), StoreError> {
        match self.try_start(client, claimed, batch).await {
            Ok(()) | Err(NotStarted::Waits) => Ok(()),
            Err(NotStarted::Impossible(reason)) => self.fail(client, &claimed.key, reason).await,
            Err(NotStarted::NotNow(reason)) => self.requeue_try(client, &claimed.key, reason).await,
            Err(NotStarted::Store(error)) => Err(error),
        }
    }

    /// Fails a try that has not begun and never will.
    pub(super) async fn fail(&self, client: &ClientWrapper, key: &TryKey, reason: String) -> Result<(), StoreError> {
        write_to_log(&self.context.home, key, |log| log.write_message(Level::Error, &reason));
        tries::record(client, &try_outcome::never_began(key.clone(), reason)).await?;
        TaskFolder::of(&self.context.home, key).discard();
        Ok(())
    }

    async fn try_start(&mut self, client: &ClientWrapper, claimed: &Claimed, batch: Batch) -> Result<(), NotStarted> {
        let no_version = || NotStarted::Impossible("the task's DAG has no version to run".to_owned());
        let version = self.versions.get(client, claimed.version_id.ok_or_else(no_version)?).await?;
        let plain = self.interpreter.get().await?;
        let interpreter = match version.environment.as_deref() {
            None => Rc::new(plain),
            Some(hash) => self.environments.find(&plain, hash).ok_or_else(|| {
                let message = "waiting for its environment, which is not on this machine and is being built";
                self.context.log_waiting(&claimed.key, message);
                self.environments.wait_for(claimed, hash.to_owned());
                NotStarted::Waits
            })?,
        };
        if self.environments.wait_for_warm(claimed, &mut self.warm, &interpreter) {
            return Err(NotStarted::Waits);
        }
        let mut request = self.context.prepare(claimed, &version, &interpreter)?;
        if self.warm.uses_large(&request.usage_key) && warm::may_set_variables(&version.sources) {
            // Without a usage key, the try gets a zygote without large libraries, and imports them after it has set the
            // variables.
            request.usage_key.clear();
        }
        let keeper = match warm::start(&mut self.warm, &interpreter, &request, batch).await {
            Some(keeper) => keeper,
            None => keepers::start_cold(&request.folder)?,
        };
        debug!("{}: started, keeper {}", claimed.key, keeper.pid);
        let running = Running::new(request.folder, keeper, Some(interpreter));
        self.watch(claimed.key.clone(), running, Duration::ZERO);
        Ok(())
    }
}

/// Writes to the log of a try that has no keeper; otherwise only the keeper writes it.
pub(super) fn write_to_log(home: &Home, key: &TryKey, write: impl FnOnce(&mut TaskLog)) {
    match TaskLog::open(&key.log_path(home)) {
        Ok(mut log) => {
            write(&mut log);
            log.close();
        }
        Err(error) => warn!("{key}: cannot write its log: {error}"),
    }
}

/// Starts a keeper for a prepared folder; returns its pid. The keeper leads its own process group and outlives the
/// agent.
pub fn spawn_keeper(folder: &TaskFolder) -> io::Result<i32> {
    let output = File::create(folder.path().join("keeper.log"))?;
    let spawn = Spawn {
        argv0: Some("leoflow".into()),
        arguments: vec!["keep-task".into(), folder.path().into()],
        environment: environment(),
        ..Spawn::new(env_vars::running_program(), output.as_fd())
    };
    spawn.start().map_err(io::Error::other)
}

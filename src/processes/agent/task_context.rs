//! What all tasks of the agent share: settings, versions of DAGs, and the folders that they are prepared in.

use super::warm::{self, Batch};
use crate::keeper::{Spec, Start, TaskFolder, TaskLog, WarmStart};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::process::descriptors::FIRST_PASSED;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::planner::retry;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::versions::{self, Version};
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_postgres::GenericClient;
use leoflow_python::{Interpreter, Job, VersionCode};
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::ffi::OsString;
use std::io;
use std::path::PathBuf;
use std::rc::Rc;
use tracing::warn;

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
    /// Writes `spec.json`; returns the request to start the try.
    pub fn prepare(
        &self,
        claimed: &Claimed,
        version: &Version,
        interpreter: &Interpreter,
        batch: Batch,
    ) -> io::Result<Start> {
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
        let is_cold = task.is_some_and(|task| warm::starts_cold(task.env.keys()));
        let start = Start {
            folder: folder.path().to_owned(),
            program: interpreter.program.clone(),
            arguments,
            // A directory that always exists. The task itself changes to its project, which may be on a hanging mount.
            work_in: self.home.root().to_owned(),
            log: key.log_path(&self.home),
            time_limit: task.and_then(|task| task.execution_timeout),
            warm: (!is_cold).then(|| WarmStart {
                interpreter: interpreter.clone(),
                usage_key: warm::usage_key(key),
                options,
                is_batch: batch == Batch::Several,
            }),
        };
        folder.write_spec(&Spec { key: key.clone(), task: self.task_spec(claimed, version, code) })?;
        Ok(start)
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

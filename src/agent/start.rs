//! Starting the keeper of a try.

use super::folder::{KeeperSpec, Spec, TaskFolder};
use super::log::TaskLog;
use super::warm::{self, Request};
use crate::engine::keys::TryKey;
use crate::engine::planner::retry;
use crate::engine::store::StoreError;
use crate::engine::store::tries::Claimed;
use crate::engine::store::versions::{self, Version};
use crate::home::Home;
use crate::postgres::GenericClient;
use crate::protocol::task_log::{self, Level, TryName};
use crate::python::{Interpreter, Job, VersionCode, environment};
use crate::sys::spawn::{FIRST_PASSED, Spawn};
use jiff::Timestamp;
use serde_json::{Map, Value, json};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::path::PathBuf;
use std::rc::Rc;
use tracing::warn;

/// Versions of DAGs that tasks were started from; they never change.
#[derive(Default)]
pub struct Versions(HashMap<i64, Rc<Version>>);

const MOST_VERSIONS: usize = 32;

impl Versions {
    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<Version>, StoreError> {
        if let Some(version) = self.0.get(&id) {
            return Ok(version.clone());
        }
        let version = Rc::new(versions::version(client, id).await?);
        if self.0.len() >= MOST_VERSIONS {
            self.0.clear();
        }
        self.0.insert(id, version.clone());
        Ok(version)
    }
}

/// Where things are for every task.
pub struct Surroundings {
    pub home: Home,
    pub workspace: PathBuf,
    pub max_map_length: u64,
}

impl Surroundings {
    /// Writes down what is to be run.
    pub fn prepare(&self, claimed: &Claimed, version: &Version, interpreter: &Interpreter) -> io::Result<Request> {
        let key = &claimed.key;
        let folder = TaskFolder::of(&self.home, key);
        let code = VersionCode::of(&self.workspace, &version.relative_fileloc, &version.sources);
        let task = version.structure.tasks.iter().find(|task| task.task_id == key.task_id);
        let options = interpreter.options(&json!({
            "folder": folder.path(), "secrets": FIRST_PASSED, "work_in": code.folders,
            "read_by_libraries": warm::READ_BY_LIBRARIES,
        }));
        let sets = task.map(|task| task.env.keys().cloned().collect()).unwrap_or_default();
        let spec = Spec {
            key: key.clone(),
            keeper: KeeperSpec {
                program: interpreter.program.clone(),
                arguments: interpreter.arguments(Job::Task, &options).into_iter().map(Into::into).collect(),
                // Always there. The task goes to its project by itself: that may lie on a mount that hangs.
                folder: self.home.root().to_owned(),
                log: log_of(&self.home, key),
                time_limit: task.and_then(|task| task.execution_timeout),
            },
            task: self.describe(claimed, version, code),
        };
        folder.write_spec(&spec)?;
        Ok(Request { folder, user: warm::user(key), options, sets })
    }

    /// Says in the log of a try what keeps it from beginning.
    pub fn say_that_it_waits(&self, key: &TryKey, why: &str) {
        say_in_log(&self.home, key, |log| log.say(Level::Info, why));
    }

    fn describe(&self, claimed: &Claimed, version: &Version, code: VersionCode) -> Map<String, Value> {
        let time = |at: Option<Timestamp>| at.map(|at| at.to_string());
        let described = json!({
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
            "env": version.structure.tasks.iter().find(|task| task.task_id == claimed.key.task_id).map(|task| &task.env),
            "roots": code.roots,
            "fileloc": code.file,
            "sources": code.sources,
            "socket": self.home.api_socket(),
            "token": claimed.token,
            "max_map_length": self.max_map_length,
        });
        match described {
            Value::Object(map) => map,
            _ => Map::new(),
        }
    }
}

fn log_of(home: &Home, key: &TryKey) -> PathBuf {
    let name = TryName {
        dag_id: &key.run.dag_id,
        run_id: &key.run.run_id,
        task_id: &key.task_id,
        map_index: key.map_index,
        try_number: key.try_number,
    };
    task_log::path(home, name)
}

/// For a try that has no process, or none yet.
pub(super) fn say_in_log(home: &Home, key: &TryKey, say: impl FnOnce(&mut TaskLog)) {
    match TaskLog::open(&log_of(home, key)) {
        Ok(mut log) => {
            say(&mut log);
            log.close();
        }
        Err(error) => warn!("{key}: its log cannot be written: {error}"),
    }
}

/// Starts a keeper for what is prepared; returns its pid. It leads a group of its own and outlives us.
pub fn keeper(folder: &TaskFolder) -> io::Result<i32> {
    let output = File::create(folder.path().join("keeper.log"))?;
    let spawn = Spawn {
        // The program that this process runs, also after its file was replaced.
        program: PathBuf::from("/proc/self/exe"),
        called: Some("leoflow".into()),
        arguments: vec!["keep-task".into(), folder.path().into()],
        environment: environment(),
        output: output.as_fd(),
        errors: None,
        folder: None,
        passed: Vec::new(),
        single_user: None,
        parent_death: None,
        own_session: false,
    };
    spawn.start().map_err(io::Error::other)
}

//! What all tasks of the agent share: settings, versions of DAGs, and the folders that they are prepared in.

use super::warm;
use crate::keeper::{Code, Spec, Start, TaskFolder, TaskLog, WarmStart};
use jiff::Timestamp;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::descriptors::FIRST_PASSED;
use leoflow_engine::model::dag::Structure;
use leoflow_engine::model::keys::{InstanceKey, TryKey};
use leoflow_engine::planner::retry;
use leoflow_engine::schedule::timetable::Timetable;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::versions::{self, Version};
use leoflow_engine::store::instance::claimed::Claimed;
use leoflow_postgres::GenericClient;
use leoflow_python::{Interpreter, Job, VersionCode};
use serde_json::{Map, Value, json};
use std::collections::{HashMap, HashSet};
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use tracing::warn;

/// Cache of DAG versions; a version never changes.
pub struct Versions {
    workspace: PathBuf,
    /// The folder for the code that tries share.
    code_folder: PathBuf,
    cached: HashMap<i64, Rc<LoadedVersion>>,
    /// Those whose tries cannot share a run of the DAG file.
    without_template: HashSet<i64>,
}

/// A DAG version, and what all its tries share.
pub struct LoadedVersion {
    pub id: i64,
    pub version: Version,
    pub code: VersionCode,
    /// What its tasks read.
    task_code: Code,
    /// True if the code may set variables that libraries read on import.
    pub may_set_variables: bool,
}

const MAX_VERSIONS: usize = 32;

impl Versions {
    pub fn new(home: &Home, workspace: &Path) -> Self {
        let code_folder = home.running_tasks_code();
        let versions = Self {
            workspace: workspace.to_owned(),
            code_folder,
            cached: HashMap::new(),
            without_template: HashSet::new(),
        };
        versions.clear_code();
        versions
    }

    /// Removes the shared files; those in the folders of tries stay. Without the folder, each try gets a file of its own.
    fn clear_code(&self) {
        let folder = &self.code_folder;
        if let Err(error) = files::remove_any(folder).and_then(|()| files::create_private_dir(folder)) {
            warn!("cannot clear {}: {error}", folder.display());
        }
    }

    /// Remembers versions whose tries cannot share a run of the DAG file.
    pub fn refuse_templates(&mut self, ids: &[i64]) {
        self.without_template.extend(ids);
    }

    /// True if tries of this version may share a run of the DAG file.
    pub fn may_have_template(&self, version: &LoadedVersion) -> bool {
        !self.without_template.contains(&version.id) && !warm::is_isolated(&version.version.structure)
    }

    pub async fn get(&mut self, client: &impl GenericClient, id: i64) -> Result<Rc<LoadedVersion>, StoreError> {
        if let Some(version) = self.cached.get(&id) {
            return Ok(version.clone());
        }
        let version = versions::version(client, id).await?;
        let code = VersionCode::of(&self.workspace, &version.relative_fileloc, &version.sources);
        let code_json =
            json!({"roots": code.roots, "sources": code.sources, "settings": version.structure.settings}).to_string();
        let task_code = Code::new(code_json.into_bytes(), &self.code_folder);
        let may_set_variables = warm::may_set_variables(&version.sources);
        let version = LoadedVersion { id, version, code, task_code, may_set_variables };
        let version = Rc::new(version);
        if self.cached.len() >= MAX_VERSIONS {
            self.cached.clear();
            self.clear_code();
        }
        self.cached.insert(id, version.clone());
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
    pub fn prepare(&self, claimed: &Claimed, loaded: &LoadedVersion, interpreter: &Interpreter) -> io::Result<Start> {
        let key = &claimed.key;
        let folder = TaskFolder::of(&self.home, key);
        let LoadedVersion { version, code, .. } = loaded;
        let task = version.structure.tasks.iter().find(|task| task.task_id == key.instance.task_id);
        let options = interpreter.options(&json!({
            "folder": folder.path(), "keeper": FIRST_PASSED, "work_in": code.folders,
            "read_by_libraries": warm::LIBRARY_VARIABLES,
        }));
        // JSON has no other paths either.
        let arguments = interpreter.arguments(Job::Task, &options).into_iter().map(OsString::into_string);
        let arguments = arguments.collect::<Result<_, _>>().map_err(|_| io::ErrorKind::InvalidFilename)?;
        let is_cold = task.is_some_and(|task| warm::starts_cold(task.env.keys()));
        let has_own_variables = task.is_none_or(|task| !task.env.is_empty());
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
                template: (!has_own_variables).then_some(loaded.id),
            }),
        };
        folder.write_spec(&Spec { key: key.clone(), task: self.task_spec(claimed, loaded) }, &loaded.task_code)?;
        Ok(start)
    }

    /// The part of `spec.json` that the Python package reads.
    fn task_spec(&self, claimed: &Claimed, LoadedVersion { version, code, .. }: &LoadedVersion) -> Map<String, Value> {
        let time = |time: Option<Timestamp>| time.map(|time| time.to_string());
        let spec_json = json!({
            "max_tries": claimed.max_tries,
            "may_retry": retry::has_tries_left(claimed.key.try_number, claimed.max_tries),
            "run_type": claimed.run_type,
            "logical_date": time(claimed.logical_date),
            "data_interval_start": time(claimed.data_interval_start),
            "data_interval_end": time(claimed.data_interval_end),
            "run_after": time(Some(claimed.run_after)),
            "waited_for_assets": matches!(version.structure.timetable, Some(Timetable::AssetAndTime { .. })),
            "run_queued_at": time(Some(claimed.run_queued_at)),
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
            "env": version.structure.tasks.iter().find(|task| task.task_id == claimed.key.instance.task_id).map(|task| &task.env),
            "fileloc": code.file,
            "socket": self.home.api_socket(),
            "token": claimed.token,
            "max_map_length": self.max_map_length,
        });
        let mut spec = match spec_json {
            Value::Object(map) => map,
            _ => Map::new(),
        };
        spec.extend(loop_spec(&version.structure, &claimed.key.instance).map(|spec| ("loop".to_owned(), spec)));
        spec
    }
}

/// The loop that contains a task instance.
fn loop_spec(structure: &Structure, instance: &InstanceKey) -> Option<Value> {
    let task = structure.tasks.iter().find(|task| task.task_id == instance.task_id)?;
    let group = &structure.groups[structure.loop_of(task)?];
    let repeats = group.repeats.as_ref()?;
    Some(json!({
        "node_id": group.group_id, "max_iterations": repeats.max_iterations, "terminal_task_id": repeats.terminal,
        "terminal_is_mapped": repeats.is_terminal_mapped, "tasks": structure.tasks_of_group(&group.group_id),
    }))
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

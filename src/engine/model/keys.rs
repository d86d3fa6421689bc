//! Identifiers of runs, task instances and tries.

use leoflow_base::home::Home;
use leoflow_base::protocol::task_log::{self, TryName};
use serde::{Deserialize, Serialize};
use std::fmt;
use std::path::PathBuf;

/// The map index of a task that is not mapped, as in Airflow.
pub const NOT_MAPPED: i32 = -1;

/// Identifies a DAG run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub dag_id: String,
    pub run_id: String,
}

/// Identifies a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct InstanceKey {
    #[serde(flatten)]
    pub run: RunKey,
    pub task_id: String,
    /// `NOT_MAPPED` for a task that is not mapped.
    pub map_index: i32,
}

impl InstanceKey {
    pub fn new(run: RunKey, task_id: &str, map_index: i32) -> Self {
        Self { run, task_id: task_id.to_owned(), map_index }
    }

    /// The only instance of a task that is not mapped.
    pub fn unmapped(run: RunKey, task_id: &str) -> Self {
        Self::new(run, task_id, NOT_MAPPED)
    }

    /// The folder with the logs of all tries.
    pub fn log_folder(&self, home: &Home) -> PathBuf {
        task_log::folder_of_instance(home, &self.run.dag_id, &self.run.run_id, &self.task_id, self.map_index)
    }
}

/// Identifies one try of a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TryKey {
    #[serde(flatten)]
    pub instance: InstanceKey,
    pub try_number: i32,
}

impl TryKey {
    /// The file with the first part of the try's log.
    pub fn log_path(&self, home: &Home) -> PathBuf {
        let InstanceKey { run: RunKey { dag_id, run_id }, task_id, map_index } = &self.instance;
        task_log::path(home, TryName { dag_id, run_id, task_id, map_index: *map_index, try_number: self.try_number })
    }
}

impl fmt::Display for InstanceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run.dag_id, self.task_id)?;
        if self.map_index >= 0 {
            write!(f, "[{}]", self.map_index)?;
        }
        write!(f, " of {}", self.run.run_id)
    }
}

impl fmt::Display for TryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, try {}", self.instance, self.try_number)
    }
}

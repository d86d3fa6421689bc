//! Identifiers of runs, task instances and tries.

use serde::{Deserialize, Serialize};
use std::fmt;

/// Identifies a DAG run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub dag_id: String,
    pub run_id: String,
}

/// Identifies a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct InstanceKey {
    pub run: RunKey,
    pub task_id: String,
    /// -1 for a task that is not mapped.
    pub map_index: i32,
}

/// Identifies one try of a task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TryKey {
    #[serde(flatten)]
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub try_number: i32,
}

impl fmt::Display for TryKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.run.dag_id, self.task_id)?;
        if self.map_index >= 0 {
            write!(f, "[{}]", self.map_index)?;
        }
        write!(f, " of {}, try {}", self.run.run_id, self.try_number)
    }
}

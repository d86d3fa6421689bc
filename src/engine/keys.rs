//! What names a run and a try, everywhere.

use serde::{Deserialize, Serialize};

/// A run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct RunKey {
    pub dag_id: String,
    pub run_id: String,
}

/// One try of one task instance.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
pub struct TryKey {
    #[serde(flatten)]
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub try_number: i32,
}

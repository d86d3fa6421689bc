//! Conditions of sensors that the scheduler evaluates without running the sensor's code.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::path::PathBuf;

/// The condition of a sensor, if the scheduler can evaluate it without running the sensor's code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub until: Until,
    /// The sensor's `timeout` in seconds.
    pub timeout: f64,
    /// True when the sensor succeeds once the condition is met; if false, the sensor's code starts then.
    #[serde(default)]
    pub is_all: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Until {
    /// Until this long after the end of the run's data interval, or after `run_after` if it has none.
    Delta {
        seconds: f64,
    },
    Moment {
        at: jiff::Timestamp,
    },
    /// Until this time of day, on the day on which the sensor starts in that zone.
    Time {
        time: jiff::civil::Time,
        zone: Value,
    },
    /// Until the day of the week in UTC is one of these; 1 is Monday.
    Weekday {
        days: Vec<i8>,
    },
    /// Until a run of another DAG, or tasks of it, have one of the allowed states.
    External(External),
    /// Until the file exists; `poke_interval` is in seconds.
    File {
        path: PathBuf,
        poke_interval: f64,
    },
}

impl Until {
    /// Seconds between two pokes; `None` for a condition that needs no polling.
    pub fn poke_interval(&self) -> Option<f64> {
        match self {
            Self::External(External { poke_interval, .. }) | Self::File { poke_interval, .. } => Some(*poke_interval),
            Self::Delta { .. } | Self::Moment { .. } | Self::Time { .. } | Self::Weekday { .. } => None,
        }
    }
}

/// The condition of an ExternalTaskSensor.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct External {
    pub dag_id: String,
    /// Tasks to wait for. Without `task_ids` and `group_id`, the sensor waits for the run itself.
    pub task_ids: Option<Vec<String>>,
    pub group_id: Option<String>,
    pub allowed_states: Vec<String>,
    /// If an awaited run or task has one of these states, the sensor's own code decides.
    pub failed_or_skipped_states: Vec<String>,
    /// Seconds by which the logical date of the awaited run is earlier than that of this run. `poke_interval` is in
    /// seconds too.
    pub execution_delta: f64,
    pub poke_interval: f64,
}

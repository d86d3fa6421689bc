//! The contents of the files in the folder of a try; see `folder`.

use jiff::Timestamp;
use leoflow_base::sys::process::reaper::Exit;
use leoflow_base::sys::transient::is_transient;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::instance::triggers::Deferral;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;
use std::io;

/// `spec.json`.
#[derive(Debug, Serialize, Deserialize)]
pub struct Spec {
    #[serde(flatten)]
    pub key: TryKey,
    /// Read by the Python package.
    #[serde(flatten)]
    pub task: serde_json::Map<String, serde_json::Value>,
}

/// `outcome.json`: how the task's process ended, written by the keeper.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Outcome {
    pub exit: Option<Exit>,
    pub ended_at: Timestamp,
    pub cause: Option<Cause>,
    /// Why the task never began, or was ended because its keeper could not adopt it.
    pub problem: Option<String>,
    /// True if a transient error prevented the task from beginning: the try is queued again.
    #[serde(default)]
    pub transient: bool,
}

impl Outcome {
    /// The outcome of a task that never began: another start may succeed after a transient error.
    pub(crate) fn not_started(error: &io::Error) -> Self {
        let problem = Some(format!("failed to start the task: {error}"));
        Self { exit: None, ended_at: Timestamp::now(), cause: None, problem, transient: is_transient(error) }
    }
}

/// Why the task was ended from outside.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Cause {
    Timeout,
    Stopped,
    Memory,
}

/// `result.json`, written by the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskResult {
    pub state: ResultState,
    #[serde(default = "yes")]
    pub retry: bool,
    pub reason: Option<String>,
    /// JSON texts by XCom key.
    #[serde(default)]
    pub xcoms: BTreeMap<String, String>,
    /// Number of elements of the return value, if other tasks are mapped over it.
    pub mapped_length: Option<i32>,
    /// When a rescheduled sensor pokes again.
    pub due: Option<Timestamp>,
    /// The trigger that resumes a deferred task, or a task that waits for human input.
    pub deferral: Option<Deferral>,
    /// Seconds until a failed task is retried; replaces the `retry_delay` of its DAG file.
    pub retry_delay: Option<f64>,
    /// Tasks that the try has decided to skip immediately.
    #[serde(default)]
    pub skipped_tasks: Vec<String>,
    /// For the gate of a loop: whether the loop stops, for the `reason`.
    pub loop_stops: Option<bool>,
    pub asset_events: Option<serde_json::Value>,
    /// The rendered template fields.
    pub rendered: Option<serde_json::Value>,
    /// The rendered name of a mapped instance.
    pub map_index: Option<String>,
    /// Large libraries that the task has imported; a warm Python may preload them for later tasks.
    #[serde(default)]
    pub libraries: Vec<String>,
}

fn yes() -> bool {
    true
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ResultState {
    Success,
    Skipped,
    Failed,
    UpForReschedule,
    Deferred,
    AwaitingInput,
}

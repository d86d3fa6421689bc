//! A task of a DAG, as parsed from its file.

use super::length::Length;
use super::sensor_wait::Wait;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

pub const DEFAULT_POOL: &str = "default_pool";
/// Maximum characters of the name of a pool, which is part of index keys: the limit of Airflow's `slot_pool.pool`.
pub(super) const LONGEST_POOL: usize = 256;

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Task {
    pub task_id: String,
    /// The operator's class; `operator_name` is its name for display.
    pub operator: String,
    #[serde(default)]
    pub operator_name: String,
    /// The module of the operator's class; `None` for a class of Airflow's standard provider.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub module: Option<String>,
    #[serde(default)]
    pub upstream: Vec<String>,
    #[serde(default)]
    pub retries: u32,
    /// Seconds.
    #[serde(default)]
    pub retry_delay: f64,
    /// Factor by which the delay grows with each try; `None` keeps it constant.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retry_backoff: Option<f64>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_retry_delay: Option<f64>,
    /// Seconds.
    pub execution_timeout: Option<f64>,
    #[serde(default)]
    pub owner: String,
    pub doc_md: Option<String>,
    #[serde(default, skip_serializing_if = "TriggerRule::is_default")]
    pub trigger_rule: TriggerRule,
    #[serde(default, skip_serializing_if = "is_false")]
    pub depends_on_past: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait_for_downstream: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub ignore_first_depends_on_past: bool,
    /// Airflow's `wait_for_past_depends_before_skipping`: the task is not skipped while `depends_on_past` blocks it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub wait_for_past_before_skipping: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub pool_slots: i32,
    /// The `priority_weight` in the DAG file; `weight` is the effective weight.
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub own_weight: i32,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub weight: i32,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub weight_rule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_tis_per_dag: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_active_tis_per_dagrun: Option<u32>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub start_date: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub end_date: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_setup: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_teardown: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_failure_fail_dagrun: bool,
    /// True for a branch or short circuit: its result decides which downstream tasks run.
    #[serde(rename = "decides", default, skip_serializing_if = "is_false")]
    pub is_branch: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub reschedules: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// The loop that contains the task: the id of its group.
    #[serde(rename = "loop", default, skip_serializing_if = "Option::is_none")]
    pub loop_id: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub mapped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "via_json_value")]
    pub length: Option<Length>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// True when the task succeeds without a process, like an EmptyOperator.
    #[serde(rename = "is_nothing", default, skip_serializing_if = "is_false")]
    pub is_no_op: bool,
    /// Condition that the scheduler evaluates without a process; `None` unless the task is such a sensor.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "none_if_unknown")]
    pub waits: Option<Wait>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub inlets: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub outlets: Vec<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub template_fields: Vec<String>,
    /// The keys of the XComs with the operator's links, by the links' names.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub extra_links: BTreeMap<String, String>,
    #[serde(default, skip_serializing_if = "Map::is_empty", with = "super::param_order")]
    pub params: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Environment variables from `leoflow.yaml`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub env: Map<String, Value>,
}

impl Task {
    pub fn pool(&self) -> &str {
        self.pool.as_deref().unwrap_or(DEFAULT_POOL)
    }
}

/// Decides from the states of a task's upstreams when it may start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum TriggerRule {
    #[default]
    AllSuccess,
    AllFailed,
    AllDone,
    AllDoneMinOneSuccess,
    AllDoneSetupSuccess,
    OneSuccess,
    OneFailed,
    OneDone,
    NoneFailed,
    NoneFailedMinOneSuccess,
    NoneSkipped,
    AllSkipped,
    Always,
}

impl TriggerRule {
    pub fn is_default(&self) -> bool {
        *self == Self::AllSuccess
    }
}

/// Returns `None` for a value of an unknown shape, so that the sensor runs in its own process.
fn none_if_unknown<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

fn one() -> i32 {
    1
}

fn is_one(value: &i32) -> bool {
    *value == 1
}

/// Deserializes in two steps, first to a JSON value: with serde_json's `arbitrary_precision`, untagged and internally
/// tagged enums cannot be deserialized from text directly.
pub(super) fn via_json_value<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

pub(super) fn is_false(value: &bool) -> bool {
    !value
}

//! The structure of a DAG, as parsed from its file and stored with each DAG version.

use super::length::Length;
use crate::schedule::asset_condition;
use crate::schedule::timetable::{Restriction, Timetable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;

/// A DAG. Versions stored by an older Leoflow may lack newer fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    pub dag_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag_display_name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub doc_md: Option<String>,
    /// For display: a cron expression, a preset or an interval; `None` when it is only triggered manually.
    #[serde(default)]
    pub schedule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "via_json_value")]
    pub timetable: Option<Timetable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timetable_summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timetable_description: Option<String>,
    /// A name such as `Europe/Berlin`, or seconds east of Greenwich.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub timezone: Value,
    #[serde(default)]
    pub start_date: Option<String>,
    #[serde(default)]
    pub end_date: Option<String>,
    /// Bounds of the scheduled runs' dates, computed from `start_date` and `end_date` of the DAG and of its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    #[serde(default)]
    pub catchup: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    /// The params by name: each an object of `value`, `schema` and `description`, or the bare value in a version that
    /// an older Leoflow stored.
    #[serde(default, with = "super::param_order")]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub owners: Vec<String>,
    /// Maximum number of running runs; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_runs: u32,
    /// Maximum number of executing tasks of one run; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_tasks: u32,
    #[serde(default)]
    pub is_paused_upon_creation: Option<bool>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dagrun_timeout: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_fast: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub render_template_as_native_obj: bool,
    /// URL by owner name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub owner_links: BTreeMap<String, String>,
    /// The version that a rerun uses by default: true is the newest one, false that of the run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rerun_with_latest_version: Option<bool>,
    /// Number of consecutive failed runs after which the DAG is paused; 0 is no limit.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub max_consecutive_failed_dag_runs: u32,
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_success_callback: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub on_failure_callback: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_condition: Option<Value>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<Group>,
    /// Labels of edges: upstream id, downstream id, label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edge_labels: Vec<(String, String, String)>,
    /// Settings from `leoflow.yaml` for the processes of all tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// In topological order: each task after its upstreams.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// Deserializes in two steps, first to a JSON value: with serde_json's `arbitrary_precision`, untagged and internally
/// tagged enums cannot be deserialized from text directly.
fn via_json_value<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// Returns `None` for a value of an unknown shape, so that the sensor runs in its own process.
fn none_if_unknown<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
    Ok(serde_json::from_value(Value::deserialize(deserializer)?).ok())
}

fn sixteen() -> u32 {
    16
}

fn one() -> i32 {
    1
}

fn is_one(value: &i32) -> bool {
    *value == 1
}

fn is_zero(value: &u32) -> bool {
    *value == 0
}

fn is_false(value: &bool) -> bool {
    !value
}

impl Structure {
    /// Names of the assets that the DAG waits for; an empty string for an asset referenced by URI only.
    pub(crate) fn awaited_assets(&self) -> Vec<&str> {
        let mut references = Vec::new();
        if let Some(condition) = &self.asset_condition {
            asset_condition::references(condition, &mut references);
        }
        let parsed = references.into_iter().filter_map(asset_condition::reference);
        parsed
            .filter(|reference| !matches!(reference, asset_condition::Reference::Alias(_)))
            .map(|reference| reference.columns().1)
            .collect()
    }

    /// The ids of the tasks of a group and of its nested groups.
    pub fn tasks_of_group(&self, group_id: &str) -> Vec<String> {
        let mut groups = vec![group_id];
        let mut next = 0;
        while next < groups.len() {
            let nested = self.groups.iter().filter(|group| group.parent.as_deref() == Some(groups[next]));
            let nested: Vec<&str> = nested.map(|group| group.group_id.as_str()).collect();
            groups.extend(nested);
            next += 1;
        }
        let is_inside = |task: &&Task| task.group.as_deref().is_some_and(|group| groups.contains(&group));
        self.tasks.iter().filter(is_inside).map(|task| task.task_id.clone()).collect()
    }

    /// Dates between which runs are scheduled, and whether past dates are caught up.
    pub fn restriction(&self) -> Restriction {
        let parse_date = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        Restriction { earliest: parse_date(&self.earliest), latest: parse_date(&self.latest), catchup: self.catchup }
    }
}

/// A task group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub group_id: String,
    #[serde(default)]
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tooltip: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Number of copies of a mapped group; `None` for a group that is not mapped.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "via_json_value")]
    pub length: Option<Length>,
    /// Tasks whose return values decide `length`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    // The group's dependencies as the DAG file declares them. They are only displayed: the scheduler uses the upstreams
    // of the tasks.
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub upstream_group_ids: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub downstream_group_ids: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub upstream_task_ids: BTreeSet<String>,
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub downstream_task_ids: BTreeSet<String>,
}

impl Group {
    /// Removes the links to tasks and groups that are not in `tasks` and `groups`.
    pub fn keep_links_to(&mut self, tasks: &BTreeSet<String>, groups: &BTreeSet<String>) {
        self.upstream_group_ids.retain(|id| groups.contains(id));
        self.downstream_group_ids.retain(|id| groups.contains(id));
        self.upstream_task_ids.retain(|id| tasks.contains(id));
        self.downstream_task_ids.retain(|id| tasks.contains(id));
    }

    pub fn has_upstream(&self) -> bool {
        !self.upstream_group_ids.is_empty() || !self.upstream_task_ids.is_empty()
    }

    pub fn has_downstream(&self) -> bool {
        !self.downstream_group_ids.is_empty() || !self.downstream_task_ids.is_empty()
    }
}

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
    #[serde(default)]
    pub execution_timeout: Option<f64>,
    #[serde(default)]
    pub owner: String,
    #[serde(default)]
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
    #[serde(default, skip_serializing_if = "Map::is_empty", with = "super::param_order")]
    pub params: Map<String, Value>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub display_name: Option<String>,
    /// Environment variables from `leoflow.yaml`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub env: Map<String, Value>,
}

impl Task {
    /// True when the scheduler itself marks the task as success, as Airflow does for an EmptyOperator.
    pub(crate) fn is_no_op(&self) -> bool {
        self.is_no_op
    }

    pub fn pool(&self) -> &str {
        self.pool.as_deref().unwrap_or(DEFAULT_POOL)
    }
}

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
    /// Until this long after the end of the run's data interval.
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

pub const DEFAULT_POOL: &str = "default_pool";

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

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    /// Serializes a structure with sorted keys, as `jsonb` stores it.
    fn stored(structure: &Structure) -> Value {
        let mut value = serde_json::to_value(structure).unwrap();
        value.sort_all_objects();
        value
    }

    #[test]
    fn stored_params_keep_the_order_of_the_file() {
        let param = |value: &str| json!({"schema": {}, "description": null, "value": value});
        let (params, single) =
            (json!({"zeta": param("1"), "a": param("2"), "mid": param("3")}), json!({"only": param("4")}));
        let task = json!({"task_id": "t", "operator": "x", "params": params});
        let described = json!({"dag_id": "d", "params": params, "tasks": [task]});
        let parsed: Structure = serde_json::from_value(described).unwrap();
        let restored: Structure = serde_json::from_value(stored(&parsed)).unwrap();
        let names = |params: &Map<String, Value>| params.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&restored.params), ["zeta", "a", "mid"]);
        assert_eq!(names(&restored.tasks[0].params), ["zeta", "a", "mid"]);
        assert_eq!(restored.params["zeta"], param("1"), "the position exists only in the column");
        let parsed: Structure = serde_json::from_value(json!({"dag_id": "d", "params": single, "tasks": []})).unwrap();
        assert_eq!(stored(&parsed)["params"], single, "the version's hash does not change");
        let nested = json!({"only": {"schema": {}, "value": [{"b": 1, "a": {"zz": 1, "y": 2}}]}});
        let parsed: Structure =
            serde_json::from_value(json!({"dag_id": "d", "params": nested.clone(), "tasks": []})).unwrap();
        let restored: Structure = serde_json::from_value(stored(&parsed)).unwrap();
        assert_eq!(restored.params["only"]["value"].to_string(), nested["only"]["value"].to_string());
        assert_eq!(restored.params["only"], nested["only"], "the text exists only in the column");
        // Earlier releases stored bare values.
        let old: Structure =
            serde_json::from_value(json!({"dag_id": "d", "params": {"a": 1, "b": {"position": 2}}, "tasks": []}))
                .unwrap();
        assert_eq!(old.params["b"], json!({"position": 2}));
    }
}

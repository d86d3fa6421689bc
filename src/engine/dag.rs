//! What parsing gives: the structure of a DAG, as it is stored in a version.

use super::length::Length;
use super::schedule::asset_condition;
use super::schedule::timetable::{Restriction, Timetable};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use std::path::PathBuf;

/// A DAG. Versions that an older Leoflow stored may lack what was added since.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    pub dag_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag_display_name: Option<String>,
    #[serde(default)]
    pub description: Option<String>,
    #[serde(default)]
    pub doc_md: Option<String>,
    /// As people read it: a cron expression, a preset, an interval; none when only triggered by hand.
    #[serde(default)]
    pub schedule: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "by_value")]
    pub timetable: Option<Timetable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timetable_summary: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timetable_description: Option<String>,
    /// `Europe/Berlin`, or seconds east of Greenwich.
    #[serde(default, skip_serializing_if = "Value::is_null")]
    pub timezone: Value,
    #[serde(default)]
    pub start_date: Option<String>,
    #[serde(default)]
    pub end_date: Option<String>,
    /// No run is scheduled before, and none after: from the DAG's dates and those of its tasks.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub earliest: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub latest: Option<String>,
    #[serde(default)]
    pub catchup: bool,
    #[serde(default)]
    pub tags: Vec<String>,
    /// By name: `value`, `schema`, `description`; only the value in versions of an older Leoflow.
    #[serde(default, with = "super::param_order")]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub owners: Vec<String>,
    /// Runs at once; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_runs: u32,
    /// Tasks at once in one run; 0 is no limit.
    #[serde(default = "sixteen")]
    pub max_active_tasks: u32,
    #[serde(default)]
    pub is_paused_upon_creation: Option<bool>,
    /// Seconds.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dagrun_timeout: Option<f64>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub fail_fast: bool,
    /// So many failed runs in a row pause the DAG; 0 is never.
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
    /// Upstream, downstream, label.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub edge_labels: Vec<(String, String, String)>,
    /// Of `leoflow.yaml`, for the process that runs a task.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub settings: Option<Value>,
    /// Each after those that it waits for.
    #[serde(default)]
    pub tasks: Vec<Task>,
}

/// Numbers of any precision do not survive the way from text into enums; from a JSON value they do.
fn by_value<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<T, D::Error> {
    serde_json::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
}

/// What is not understood is for the task's own code.
fn if_understood<'de, D: Deserializer<'de>, T: DeserializeOwned>(deserializer: D) -> Result<Option<T>, D::Error> {
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
    /// The names of the assets that it waits for; empty for one that is known by its URI only.
    pub fn awaited_assets(&self) -> Vec<&str> {
        let mut found = Vec::new();
        if let Some(condition) = &self.asset_condition {
            asset_condition::references(condition, &mut found);
        }
        let named = found.into_iter().filter_map(asset_condition::reference);
        named
            .filter(|reference| !matches!(reference, asset_condition::Reference::Alias(_)))
            .map(|reference| reference.columns().1)
            .collect()
    }

    /// Between which dates it has runs at all, and whether those of the past are made up for.
    pub fn restriction(&self) -> Restriction {
        let moment = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        Restriction { earliest: moment(&self.earliest), latest: moment(&self.latest), catchup: self.catchup }
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
    /// Of a mapped group: how many copies of it there are.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "by_value")]
    pub length: Option<Length>,
    /// The tasks whose results decide about that.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    // What its file joins it with. It is shown; what runs is decided by the tasks' own upstreams.
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
    /// Joined with nothing but these.
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
    /// The operator's class, and what people call it.
    pub operator: String,
    #[serde(default)]
    pub operator_name: String,
    #[serde(default)]
    pub upstream: Vec<String>,
    #[serde(default)]
    pub retries: u32,
    /// Seconds.
    #[serde(default)]
    pub retry_delay: f64,
    /// The factor by which the delay grows; none when it stays as it is.
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
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub pool: Option<String>,
    #[serde(default = "one", skip_serializing_if = "is_one")]
    pub pool_slots: i32,
    /// As the DAG file has it; `weight` is what it comes to.
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
    /// Whether it decides which of those below it run.
    #[serde(default, skip_serializing_if = "is_false")]
    pub decides: bool,
    #[serde(default, skip_serializing_if = "is_false")]
    pub reschedules: bool,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    #[serde(default, skip_serializing_if = "is_false")]
    pub mapped: bool,
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "by_value")]
    pub length: Option<Length>,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub sources: Vec<String>,
    /// Whether it ends without ever being a process.
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_nothing: bool,
    /// What it waits for, of a sensor that needs no process for it.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "if_understood")]
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
    /// Of `leoflow.yaml`.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub env: Map<String, Value>,
}

impl Task {
    /// Airflow's scheduler ends these itself; they never run.
    pub fn is_nothing(&self) -> bool {
        self.is_nothing
    }

    pub fn pool(&self) -> &str {
        self.pool.as_deref().unwrap_or(DEFAULT_POOL)
    }
}

/// A sensor's, for what is known without its code.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Wait {
    pub until: Until,
    /// Seconds after which it gives up.
    pub timeout: f64,
    /// Whether it has ended then. Otherwise there is more for its code to do.
    #[serde(default)]
    pub is_all: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Until {
    /// So long after the run's interval.
    Delta {
        seconds: f64,
    },
    Moment {
        at: jiff::Timestamp,
    },
    /// On the day on which it begins there.
    Time {
        time: jiff::civil::Time,
        zone: Value,
    },
    /// 1 is Monday; in UTC.
    Weekday {
        days: Vec<i8>,
    },
    /// Until a run of another DAG, or tasks of it, have one of the states.
    External(External),
    /// Until there is a file. How long it is until the next look: seconds.
    File {
        path: PathBuf,
        poke_interval: f64,
    },
}

impl Until {
    /// Seconds between two looks, of one that has to look.
    pub fn poke_interval(&self) -> Option<f64> {
        match self {
            Self::External(External { poke_interval, .. }) | Self::File { poke_interval, .. } => Some(*poke_interval),
            Self::Delta { .. } | Self::Moment { .. } | Self::Time { .. } | Self::Weekday { .. } => None,
        }
    }
}

/// What an ExternalTaskSensor waits for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct External {
    pub dag_id: String,
    /// Without tasks and without a group, it is the run itself.
    pub task_ids: Option<Vec<String>>,
    pub group_id: Option<String>,
    pub allowed_states: Vec<String>,
    /// With one of these its own code says what follows.
    pub failed_or_skipped_states: Vec<String>,
    /// How much earlier the other run's date is, and how long it is until the next look: seconds.
    pub execution_delta: f64,
    pub poke_interval: f64,
}

pub const DEFAULT_POOL: &str = "default_pool";

/// When a task may begin, by how those above it have ended.
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

    /// As `jsonb` gives it back.
    fn stored(structure: &Structure) -> Value {
        let mut value = serde_json::to_value(structure).unwrap();
        value.sort_all_objects();
        value
    }

    #[test]
    fn params_come_back_in_the_order_of_the_file() {
        let param = |value: &str| json!({"schema": {}, "description": null, "value": value});
        let (several, one) =
            (json!({"zeta": param("1"), "a": param("2"), "mid": param("3")}), json!({"only": param("4")}));
        let task = json!({"task_id": "t", "operator": "x", "params": several});
        let given = json!({"dag_id": "d", "params": several, "tasks": [task]});
        let read: Structure = serde_json::from_value(given).unwrap();
        let back: Structure = serde_json::from_value(stored(&read)).unwrap();
        let names = |params: &Map<String, Value>| params.keys().cloned().collect::<Vec<_>>();
        assert_eq!(names(&back.params), ["zeta", "a", "mid"]);
        assert_eq!(names(&back.tasks[0].params), ["zeta", "a", "mid"]);
        assert_eq!(back.params["zeta"], param("1"), "a position is the column's alone");
        let alone: Structure = serde_json::from_value(json!({"dag_id": "d", "params": one, "tasks": []})).unwrap();
        assert_eq!(stored(&alone)["params"], one, "its version is the one that it was");
        let nested = json!({"only": {"schema": {}, "value": [{"b": 1, "a": {"zz": 1, "y": 2}}]}});
        let read: Structure =
            serde_json::from_value(json!({"dag_id": "d", "params": nested.clone(), "tasks": []})).unwrap();
        let back: Structure = serde_json::from_value(stored(&read)).unwrap();
        assert_eq!(back.params["only"]["value"].to_string(), nested["only"]["value"].to_string());
        assert_eq!(back.params["only"], nested["only"], "the text is the column's alone");
        // As an earlier release stored it.
        let old: Structure =
            serde_json::from_value(json!({"dag_id": "d", "params": {"a": 1, "b": {"position": 2}}, "tasks": []}))
                .unwrap();
        assert_eq!(old.params["b"], json!({"position": 2}));
    }
}

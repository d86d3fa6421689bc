//! The structure of a DAG, as parsed from its file and stored with each DAG version.

use super::length::Length;
pub use super::sensor_wait::{External, Until, Wait};
pub use super::task::{DEFAULT_POOL, Task, TriggerRule};
use super::task::{is_false, via_json_value};
use crate::schedule::asset_condition;
use crate::schedule::timetable::{Restriction, Timetable};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::{BTreeMap, BTreeSet};

/// A DAG. Versions stored by an older Leoflow may lack newer fields.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Structure {
    pub dag_id: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub dag_display_name: Option<String>,
    pub description: Option<String>,
    pub doc_md: Option<String>,
    /// For display: a cron expression, a preset or an interval; `None` when it is only triggered manually.
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
    pub start_date: Option<String>,
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
    /// As the API shows them; the arguments of each task are in its structure.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub default_args: Map<String, Value>,
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
    /// True if a task may have callbacks or e-mails for a failed try, or if a plugin listens to the states of tasks.
    #[serde(default, skip_serializing_if = "is_false")]
    pub task_failure_callbacks: bool,
    /// True if a plugin of the DAG's environment listens to the states of DAG runs.
    #[serde(default, skip_serializing_if = "is_false")]
    pub run_listeners: bool,
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub deadlines: Vec<DeadlineAlert>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub asset_condition: Option<Value>,
    /// True if each asset event triggers a run of its own, as with Airflow from 3.4 on.
    #[serde(default, skip_serializing_if = "is_false")]
    pub run_for_each_asset_event: bool,
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

fn sixteen() -> u32 {
    16
}

fn is_zero(value: &u32) -> bool {
    *value == 0
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

    /// The ids of the tasks outside of loops, and of those in loops.
    pub(crate) fn ids_outside_and_in_loops(&self) -> (Vec<&str>, Vec<&str>) {
        let (mut once, mut looped) = (Vec::new(), Vec::new());
        for task in &self.tasks {
            let ids = if self.loop_of(task).is_some() { &mut looped } else { &mut once };
            ids.push(task.task_id.as_str());
        }
        (once, looped)
    }

    pub(crate) fn has_loops(&self) -> bool {
        self.groups.iter().any(|group| group.repeats.is_some())
    }

    /// The index of the loop that contains a task; loops are not nested.
    pub fn loop_of(&self, task: &Task) -> Option<usize> {
        let loop_id = task.loop_id.as_deref()?;
        self.groups.iter().position(|group| group.group_id == loop_id && group.repeats.is_some())
    }

    /// Dates between which runs are scheduled, and whether past dates are caught up.
    pub fn restriction(&self) -> Restriction {
        let parse_date = |text: &Option<String>| text.as_deref().and_then(|text| text.parse().ok());
        Restriction { earliest: parse_date(&self.earliest), latest: parse_date(&self.latest), catchup: self.catchup }
    }
}

/// When the runs of a DAG are due, and the callback for one that has not succeeded by then.
/// <https://airflow.apache.org/docs/apache-airflow/stable/howto/deadline-alerts.html>
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DeadlineAlert {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// What the interval is added to, as Airflow serializes it: an object with the `reference_type`, its class, and that
    /// class's arguments.
    pub reference: Value,
    /// Seconds; `None` if a Variable should hold them and does not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub interval: Option<f64>,
    /// The Variable that holds the seconds, if one does.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub variable: Option<String>,
    /// Import path of the function that is called.
    pub callback: String,
    pub is_async: bool,
}

/// A task group.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Group {
    pub group_id: String,
    pub parent: Option<String>,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub tooltip: String,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub display_name: String,
    /// Number of copies of a mapped group; `None` for a group that is not mapped.
    #[serde(default, skip_serializing_if = "Option::is_none", deserialize_with = "via_json_value")]
    pub length: Option<Length>,
    /// Set for a loop.
    #[serde(rename = "loop", default, skip_serializing_if = "Option::is_none")]
    pub repeats: Option<Loop>,
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

/// A loop of Airflow 3.4: its tasks run once in each iteration, until its gate stops it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Loop {
    pub max_iterations: i32,
    /// The task that decides after each iteration, last in the group. Tasks outside of the loop wait for it.
    pub gate: String,
    /// The last task before the gate, whose value is the result of an iteration.
    pub terminal: String,
    #[serde(default, skip_serializing_if = "is_false")]
    pub is_terminal_mapped: bool,
    /// True if a function of the DAG file decides; otherwise the loop has `max_iterations` iterations.
    #[serde(default, skip_serializing_if = "is_false")]
    pub has_condition: bool,
    /// The documentation of that function.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub doc: Option<String>,
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

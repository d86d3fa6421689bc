//! DAGs as Airflow's API shows them.

use super::views::{BUNDLE, Stamp, file_token, maybe, version};
use crate::engine::dag::Task;
use crate::engine::store::dags::Dag;
use crate::engine::store::versions::VersionName;
use serde::Serialize;
use serde_json::{Value, json};

/// A DAG in a list, which has many.
#[derive(Serialize)]
pub struct DagView<'a> {
    dag_id: &'a str,
    dag_display_name: &'a str,
    is_paused: bool,
    is_stale: bool,
    last_parsed_time: Option<Stamp>,
    last_parse_duration: Option<f64>,
    last_expired: Option<Stamp>,
    bundle_name: &'static str,
    bundle_version: Option<&'static str>,
    relative_fileloc: &'a str,
    fileloc: &'a str,
    description: Option<&'a str>,
    timetable_summary: Option<&'a str>,
    timetable_description: &'a str,
    timetable_partitioned: bool,
    timetable_periodic: bool,
    tags: Vec<TagView<'a>>,
    max_active_tasks: u32,
    max_active_runs: u32,
    max_consecutive_failed_dag_runs: u32,
    has_task_concurrency_limits: bool,
    has_import_errors: bool,
    next_dagrun_logical_date: Option<Stamp>,
    next_dagrun_data_interval_start: Option<Stamp>,
    next_dagrun_data_interval_end: Option<Stamp>,
    next_dagrun_run_after: Option<Stamp>,
    allowed_run_types: Option<Vec<&'static str>>,
    owners: &'a [String],
    is_backfillable: bool,
    file_token: String,
}

#[derive(Serialize)]
struct TagView<'a> {
    name: &'a str,
    dag_id: &'a str,
    dag_display_name: &'a str,
}

impl<'a> DagView<'a> {
    pub fn of(dag: &'a Dag) -> Self {
        let structure = &*dag.structure;
        let tag = |name: &'a String| TagView { name, dag_id: &dag.dag_id, dag_display_name: &dag.dag_id };
        let is_limited =
            |task: &Task| task.max_active_tis_per_dag.is_some() || task.max_active_tis_per_dagrun.is_some();
        let (next_start, next_end) = dag.next_interval.unzip();
        let is_periodic = structure.timetable.as_ref().is_some_and(|timetable| timetable.is_periodic());
        Self {
            dag_id: &dag.dag_id,
            dag_display_name: structure.dag_display_name.as_ref().unwrap_or(&dag.dag_id),
            is_paused: dag.is_paused,
            is_stale: !dag.is_active,
            last_parsed_time: dag.last_parsed_at.map(Stamp),
            last_parse_duration: dag.last_parse_duration,
            last_expired: None,
            bundle_name: BUNDLE,
            bundle_version: None,
            relative_fileloc: &dag.relative_fileloc,
            fileloc: &dag.fileloc,
            description: structure.description.as_deref(),
            timetable_summary: structure.timetable_summary.as_deref().filter(|_| structure.schedule.is_some()),
            timetable_description: match (&structure.timetable_description, &structure.schedule) {
                (Some(description), _) => description,
                (None, None) => "Never, external triggers only",
                (None, Some(_)) => "",
            },
            timetable_partitioned: structure.timetable.as_ref().is_some_and(|timetable| timetable.is_partitioned()),
            timetable_periodic: is_periodic,
            tags: structure.tags.iter().map(tag).collect(),
            max_active_tasks: structure.max_active_tasks,
            max_active_runs: structure.max_active_runs,
            max_consecutive_failed_dag_runs: structure.max_consecutive_failed_dag_runs,
            has_task_concurrency_limits: structure.tasks.iter().any(is_limited),
            has_import_errors: dag.has_import_errors,
            next_dagrun_logical_date: next_start.map(Stamp),
            next_dagrun_data_interval_start: next_start.map(Stamp),
            next_dagrun_data_interval_end: next_end.map(Stamp),
            next_dagrun_run_after: dag.next_run_after.map(Stamp),
            allowed_run_types: None,
            owners: &structure.owners,
            is_backfillable: is_periodic,
            file_token: file_token(&dag.fileloc),
        }
    }
}

pub fn dag(dag: &Dag) -> Value {
    // A view has no keys that are no texts.
    serde_json::to_value(DagView::of(dag)).unwrap_or_default()
}

/// The same with what `/details` adds.
pub fn dag_details(found: &Dag, active_runs: i64) -> Value {
    let mut whole = dag(found);
    let structure = &found.structure;
    let params: Value = structure
        .params
        .iter()
        .map(|(name, param)| (name.clone(), self::param(param)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    let details = json!({
        "catchup": structure.catchup,
        "dag_run_timeout": structure.dagrun_timeout.map(seconds),
        "doc_md": structure.doc_md,
        "start_date": structure.start_date,
        "end_date": structure.end_date,
        "is_paused_upon_creation": structure.is_paused_upon_creation,
        "params": params,
        "concurrency": structure.max_active_tasks,
        "timezone": zone_name(&structure.timezone),
        "asset_expression": structure.asset_condition,
        "last_parsed": maybe(found.last_parsed_at),
        "default_args": null,
        "template_search_path": null,
        "render_template_as_native_obj": false,
        "rerun_with_latest_version": null,
        "owner_links": {},
        "is_favorite": found.is_favorite,
        "active_runs_count": active_runs,
        "latest_dag_version": version(&VersionName {
            dag_id: found.dag_id.clone(),
            number: found.version_number,
            created_at: found.version_created_at,
        }),
    });
    if let (Some(whole), Value::Object(details)) = (whole.as_object_mut(), details) {
        whole.extend(details);
    }
    whole
}

/// A zone's name, or its distance from UTC in seconds.
fn zone_name(zone: &Value) -> String {
    match zone {
        Value::String(name) => name.clone(),
        Value::Number(seconds) => {
            let minutes = seconds.as_i64().unwrap_or(0) / 60;
            format!("{}{:02}:{:02}", if minutes < 0 { '-' } else { '+' }, minutes.abs() / 60, minutes.abs() % 60)
        }
        _ => "UTC".to_owned(),
    }
}

/// A duration in seconds, as pydantic writes a timedelta.
fn seconds(value: f64) -> String {
    format!("PT{value}S")
}

/// Versions of an older Leoflow have nothing but the value.
fn param(param: &Value) -> Value {
    match param.as_object().filter(|map| map.contains_key("schema")) {
        Some(map) => json!({
            "value": map.get("value"), "schema": map["schema"], "description": map.get("description"), "source": null,
        }),
        None => json!({"value": param, "schema": {}, "description": null, "source": null}),
    }
}

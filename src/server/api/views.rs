//! Rows as Airflow's API shows them: every field that it has, in its order. What Lite has no such
//! thing of says what Airflow says where it is not used.

use super::redact;
use crate::engine::store::dags::{Dag, ImportError};
use crate::engine::store::instances::Instance;
use crate::engine::store::runs::Run;
use crate::engine::store::versions::VersionName;
use crate::engine::store::xcoms::XCom;
use jiff::tz::Offset;
use jiff::{Timestamp, Unit};
use serde::{Serialize, Serializer};
use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// The one bundle that there is.
pub const BUNDLE: &str = "workspace";

/// A time as pydantic writes it: six digits of a second, or none.
#[derive(Debug, Clone, Copy)]
pub struct Stamp(pub Timestamp);

impl Stamp {
    /// Written by hand: lists have tens of thousands of them.
    fn with<T>(self, read: impl FnOnce(&str) -> T) -> T {
        let at = Offset::UTC.to_datetime(self.0);
        let micros = self.0.subsec_nanosecond() / 1000;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let year = i32::from(at.year());
        let pairs = [
            (0, year / 100),
            (2, year % 100),
            (5, at.month().into()),
            (8, at.day().into()),
            (11, at.hour().into()),
            (14, at.minute().into()),
            (17, at.second().into()),
            (20, micros / 10_000),
            (22, micros / 100 % 100),
            (24, micros % 100),
        ];
        for (place, pair) in pairs {
            let [tens, ones] = [pair / 10, pair % 10].map(|digit| u8::try_from(digit).unwrap_or_default());
            text[place] = b'0' + tens;
            text[place + 1] = b'0' + ones;
        }
        if micros == 0 {
            text[19] = b'Z';
        }
        let shown = if micros == 0 { &text[..20] } else { &text[..] };
        read(std::str::from_utf8(shown).unwrap_or_default())
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with(|text| serializer.serialize_str(text))
    }
}

pub fn stamp(at: Timestamp) -> String {
    Stamp(at).with(str::to_owned)
}

pub fn maybe(at: Option<Timestamp>) -> Value {
    at.map(stamp).into()
}

/// Seconds.
pub fn duration(start: Option<Timestamp>, end: Option<Timestamp>) -> Value {
    let span = start.zip(end).and_then(|(start, end)| (end - start).total(Unit::Second).ok());
    span.into()
}

/// Something of the form of a UUID that is the same for the same parts.
fn uuid(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\0").as_bytes());
    let hex = hex::encode(&hash[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

pub fn version(version: &VersionName) -> Value {
    let VersionName { dag_id, number, created_at } = version;
    json!({
        "id": uuid(&["version", dag_id, &number.to_string()]),
        "version_number": number,
        "dag_id": dag_id,
        "bundle_name": BUNDLE,
        "bundle_version": null,
        "created_at": stamp(*created_at),
        "dag_display_name": dag_id,
        "bundle_url": null,
    })
}

/// Stands for a file where its path would be too much.
pub fn file_token(fileloc: &str) -> String {
    uuid(&["file", fileloc])
}

pub fn dag(dag: &Dag) -> Value {
    let structure = &dag.structure;
    let tags: Vec<Value> = structure
        .tags
        .iter()
        .map(|tag| json!({"name": tag, "dag_id": dag.dag_id, "dag_display_name": dag.dag_id}))
        .collect();
    let description = match (&structure.timetable_description, &structure.schedule) {
        (Some(description), _) => description.as_str(),
        (None, None) => "Never, external triggers only",
        (None, Some(_)) => "",
    };
    let (next_start, next_end) = dag.next_interval.unzip();
    let is_periodic = structure.timetable.as_ref().is_some_and(|timetable| timetable.is_periodic());
    let has_limits = |task: &crate::engine::dag::Task| {
        task.max_active_tis_per_dag.is_some() || task.max_active_tis_per_dagrun.is_some()
    };
    json!({
        "dag_id": dag.dag_id,
        "dag_display_name": structure.dag_display_name.as_ref().unwrap_or(&dag.dag_id),
        "is_paused": dag.is_paused,
        "is_stale": !dag.is_active,
        "last_parsed_time": maybe(dag.last_parsed_at),
        "last_parse_duration": dag.last_parse_duration,
        "last_expired": null,
        "bundle_name": BUNDLE,
        "bundle_version": null,
        "relative_fileloc": dag.relative_fileloc,
        "fileloc": dag.fileloc,
        "description": structure.description,
        "timetable_summary": structure.timetable_summary.as_ref().filter(|_| structure.schedule.is_some()),
        "timetable_description": description,
        "timetable_partitioned": structure.timetable.as_ref().is_some_and(|timetable| timetable.is_partitioned()),
        "timetable_periodic": is_periodic,
        "tags": tags,
        "max_active_tasks": structure.max_active_tasks,
        "max_active_runs": structure.max_active_runs,
        "max_consecutive_failed_dag_runs": structure.max_consecutive_failed_dag_runs,
        "has_task_concurrency_limits": structure.tasks.iter().any(has_limits),
        "has_import_errors": dag.has_import_errors,
        "next_dagrun_logical_date": maybe(next_start),
        "next_dagrun_data_interval_start": maybe(next_start),
        "next_dagrun_data_interval_end": maybe(next_end),
        "next_dagrun_run_after": maybe(dag.next_run_after),
        "allowed_run_types": null,
        "owners": structure.owners,
        "is_backfillable": is_periodic,
        "file_token": file_token(&dag.fileloc),
    })
}

/// The same with what `/details` adds.
pub fn dag_details(found: &Dag) -> Value {
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
        "active_runs_count": found.active_runs,
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

pub fn run(run: &Run) -> Value {
    let versions: Vec<Value> = run.version.iter().map(version).collect();
    json!({
        "dag_run_id": run.key.run_id,
        "dag_id": run.key.dag_id,
        "logical_date": maybe(run.logical_date),
        "queued_at": stamp(run.queued_at),
        "start_date": maybe(run.start_date),
        "end_date": maybe(run.end_date),
        "duration": duration(run.start_date, run.end_date),
        "data_interval_start": maybe(run.data_interval_start),
        "data_interval_end": maybe(run.data_interval_end),
        "run_after": stamp(run.run_after),
        "last_scheduling_decision": null,
        "run_type": run.run_type,
        "state": run.state,
        "triggered_by": run.triggered_by,
        "triggering_user_name": run.triggering_user_name,
        "conf": run.conf,
        "note": run.note,
        "dag_versions": versions,
        "bundle_version": null,
        "dag_display_name": run.key.dag_id,
        "partition_key": run.partition.as_ref().map(|partition| &partition.key),
        "partition_date": maybe(run.partition.as_ref().and_then(|partition| partition.date)),
    })
}

pub fn instance(found: &Instance) -> Value {
    let Instance { run, task_id, .. } = found;
    let id = uuid(&[&run.dag_id, &run.run_id, task_id, &found.map_index.to_string(), &found.try_number.to_string()]);
    let operator_name = match found.operator.as_deref() {
        Some("_PythonDecoratedOperator") => Some("@task"),
        Some("_BashDecoratedOperator") => Some("@task.bash"),
        Some("_BranchPythonDecoratedOperator") => Some("@task.branch"),
        Some("_ShortCircuitDecoratedOperator") => Some("@task.short_circuit"),
        Some("DecoratedSensorOperator") => Some("@task.sensor"),
        other => other,
    };
    let rendered = found.rendered.as_deref().and_then(|text| serde_json::from_str::<Value>(text).ok());
    json!({
        "id": id,
        "task_id": task_id,
        "dag_id": run.dag_id,
        "dag_run_id": run.run_id,
        "map_index": found.map_index,
        "logical_date": maybe(found.logical_date),
        "run_after": stamp(found.run_after),
        "start_date": maybe(found.start_date),
        "end_date": maybe(found.end_date),
        "duration": duration(found.start_date, found.end_date),
        "state": found.state,
        "try_number": found.try_number,
        "max_tries": found.max_tries,
        "task_display_name": task_id,
        "dag_display_name": run.dag_id,
        "hostname": "",
        "unixname": "",
        "pool": found.pool,
        "pool_slots": found.pool_slots,
        "queue": "default",
        "priority_weight": found.priority_weight,
        "operator": found.operator,
        "operator_name": operator_name,
        "queued_when": maybe(found.queued_at),
        "scheduled_when": maybe(found.scheduled_at.or(found.queued_at)),
        "pid": found.pid,
        "executor": null,
        "executor_config": "{}",
        "note": found.note,
        "rendered_map_index": found.rendered_map_index.clone().or_else(|| {
            // Without a name, its number.
            (found.map_index >= 0).then(|| found.map_index.to_string())
        }),
        "rendered_fields": rendered.map_or_else(|| json!({}), |rendered| redact::fields(&rendered)),
        "trigger": null,
        "triggerer_job": null,
        "dag_version": found.version.as_ref().map(version),
    })
}

pub fn xcom(found: &XCom) -> Value {
    json!({
        "key": found.key,
        "timestamp": stamp(found.created_at),
        "logical_date": maybe(found.logical_date),
        "map_index": found.map_index,
        "task_id": found.task_id,
        "dag_id": found.run.dag_id,
        "run_id": found.run.run_id,
        "dag_display_name": found.run.dag_id,
        "task_display_name": found.task_id,
        "run_after": stamp(found.run_after),
    })
}

pub fn import_error(error: &ImportError) -> Value {
    json!({
        "import_error_id": error.id,
        "timestamp": stamp(error.created_at),
        "filename": error.filename,
        "bundle_name": BUNDLE,
        "stack_trace": error.stack_trace,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_pydantics() {
        let text = |at: &str| stamp(at.parse().unwrap());
        assert_eq!(text("2026-01-01T01:02:03.00045Z"), "2026-01-01T01:02:03.000450Z");
        assert_eq!(text("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}

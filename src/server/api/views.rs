//! Rows as Airflow's API shows them: every field that it has, in its order. What Lite has no such
//! thing of says what Airflow says where it is not used.

use super::redact;
use crate::engine::store::dags::ImportError;
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
        let micros = at.subsec_nanosecond() / 1000;
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
        assert_eq!(text("1969-12-31T23:59:58.5Z"), "1969-12-31T23:59:58.500000Z");
        assert_eq!(text("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}

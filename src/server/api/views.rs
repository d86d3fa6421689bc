//! Rows as Airflow's API shows them: every Airflow field, in Airflow's order. Fields without a counterpart in Lite hold
//! Airflow's value for an unused feature.

use crate::http::listing::collection;
use jiff::tz::Offset;
use jiff::{Timestamp, Unit};
use leoflow_engine::model::state::{RunState, RunType};
use leoflow_engine::store::dag::import_errors::ImportError;
use leoflow_engine::store::dag::versions::VersionName;
use leoflow_engine::store::run::runs::Run;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::borrow::Cow;

/// Name of the only bundle.
pub const BUNDLE: &str = "workspace";

/// A time as pydantic writes it: in UTC with six fractional digits, or with none if the microseconds are zero.
#[derive(Debug, Clone, Copy)]
pub struct Stamp(pub Timestamp);

impl Stamp {
    /// Passes the formatted time to `use_text`. Formats by hand, since lists contain tens of thousands of times.
    fn with_text<T>(self, use_text: impl FnOnce(&str) -> T) -> T {
        let datetime = Offset::UTC.to_datetime(self.0);
        let micros = datetime.subsec_nanosecond() / 1000;
        let mut text = *b"0000-00-00T00:00:00.000000Z";
        let year = i32::from(datetime.year());
        let pairs = [
            (0, year / 100),
            (2, year % 100),
            (5, datetime.month().into()),
            (8, datetime.day().into()),
            (11, datetime.hour().into()),
            (14, datetime.minute().into()),
            (17, datetime.second().into()),
            (20, micros / 10_000),
            (22, micros / 100 % 100),
            (24, micros % 100),
        ];
        for (position, pair) in pairs {
            let [tens, ones] = [pair / 10, pair % 10].map(|digit| u8::try_from(digit).unwrap_or_default());
            text[position] = b'0' + tens;
            text[position + 1] = b'0' + ones;
        }
        if micros == 0 {
            text[19] = b'Z';
        }
        let used = if micros == 0 { &text[..20] } else { &text[..] };
        use_text(std::str::from_utf8(used).unwrap_or_default())
    }
}

impl Serialize for Stamp {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.with_text(|text| serializer.serialize_str(text))
    }
}

impl JsonSchema for Stamp {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Stamp".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "date-time"})
    }
}

/// Formats a time like `Stamp`.
pub fn stamp(time: Timestamp) -> String {
    Stamp(time).with_text(str::to_owned)
}

pub fn optional_stamp(time: Option<Timestamp>) -> Value {
    time.map(stamp).into()
}

/// Returns the duration in seconds.
pub fn duration(start: Option<Timestamp>, end: Option<Timestamp>) -> Option<f64> {
    start.zip(end).and_then(|(start, end)| (end - start).total(Unit::Second).ok())
}

/// Schema of a text that holds a UUID.
pub struct Uuid;

impl JsonSchema for Uuid {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Uuid".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "format": "uuid"})
    }
}

/// Derives a UUID-shaped id; equal parts give equal ids.
pub fn uuid(parts: &[&str]) -> String {
    let hash = Sha256::digest(parts.join("\0").as_bytes());
    let hex = hex::encode(&hash[..16]);
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

#[derive(Serialize, JsonSchema)]
pub struct DagVersionResponse {
    #[schemars(with = "Uuid")]
    id: String,
    version_number: i32,
    dag_id: String,
    bundle_name: Option<&'static str>,
    bundle_version: Option<String>,
    created_at: Stamp,
    dag_display_name: String,
    bundle_url: Option<String>,
}

pub fn version(version: &VersionName) -> DagVersionResponse {
    let VersionName { dag_id, number, created_at } = version;
    DagVersionResponse {
        id: uuid(&["version", dag_id, &number.to_string()]),
        version_number: *number,
        dag_id: dag_id.clone(),
        bundle_name: Some(BUNDLE),
        // Each DAG version stores its source, as a version of an Airflow bundle does.
        bundle_version: Some(number.to_string()),
        created_at: Stamp(*created_at),
        dag_display_name: dag_id.clone(),
        bundle_url: None,
    }
}

/// Returns the token that identifies a file in API paths.
pub fn file_token(fileloc: &str) -> String {
    uuid(&["file", fileloc])
}

/// How a run was triggered, in Airflow's words.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "only for the JSON schema; runs store the value as text")]
pub enum DagRunTriggeredByType {
    Cli,
    Operator,
    RestApi,
    Ui,
    Test,
    Timetable,
    Asset,
    Backfill,
}

#[derive(Serialize, JsonSchema)]
pub struct DAGRunResponse {
    dag_run_id: String,
    dag_id: String,
    logical_date: Option<Stamp>,
    queued_at: Option<Stamp>,
    start_date: Option<Stamp>,
    end_date: Option<Stamp>,
    duration: Option<f64>,
    data_interval_start: Option<Stamp>,
    data_interval_end: Option<Stamp>,
    run_after: Stamp,
    last_scheduling_decision: Option<Stamp>,
    run_type: RunType,
    state: RunState,
    #[schemars(with = "Option<DagRunTriggeredByType>")]
    triggered_by: Option<String>,
    triggering_user_name: Option<String>,
    conf: Option<Map<String, Value>>,
    note: Option<String>,
    dag_versions: Vec<DagVersionResponse>,
    bundle_version: Option<String>,
    dag_display_name: String,
    partition_key: Option<String>,
    partition_date: Option<Stamp>,
}

collection! { DAGRunCollectionResponse { dag_runs: DAGRunResponse }, with cursors }

pub fn run(run: Run) -> DAGRunResponse {
    let (partition_key, partition_date) =
        run.partition.map_or((None, None), |partition| (Some(partition.key), partition.date.map(Stamp)));
    DAGRunResponse {
        dag_run_id: run.key.run_id,
        dag_display_name: run.key.dag_id.clone(),
        dag_id: run.key.dag_id,
        logical_date: run.logical_date.map(Stamp),
        queued_at: Some(Stamp(run.queued_at)),
        start_date: run.start_date.map(Stamp),
        end_date: run.end_date.map(Stamp),
        duration: duration(run.start_date, run.end_date),
        data_interval_start: run.data_interval_start.map(Stamp),
        data_interval_end: run.data_interval_end.map(Stamp),
        run_after: Stamp(run.run_after),
        last_scheduling_decision: run.last_scheduling_decision.map(Stamp),
        run_type: run.run_type,
        state: run.state,
        triggered_by: run.triggered_by,
        triggering_user_name: run.triggering_user_name,
        conf: Some(run.conf),
        note: run.note,
        dag_versions: run.version.iter().map(version).collect(),
        bundle_version: run.version.as_ref().map(|version| version.number.to_string()),
        partition_key,
        partition_date,
    }
}

#[derive(Serialize, JsonSchema)]
pub struct ImportErrorResponse {
    import_error_id: i64,
    timestamp: Stamp,
    filename: String,
    bundle_name: Option<&'static str>,
    stack_trace: String,
}

collection! { ImportErrorCollectionResponse { import_errors: ImportErrorResponse } }

pub fn import_error(error: ImportError) -> ImportErrorResponse {
    ImportErrorResponse {
        import_error_id: error.id,
        timestamp: Stamp(error.created_at),
        filename: error.filename,
        bundle_name: Some(BUNDLE),
        stack_trace: error.stack_trace,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_match_pydantic() {
        let text = |time: &str| stamp(time.parse().unwrap());
        assert_eq!(text("2026-01-01T01:02:03.00045Z"), "2026-01-01T01:02:03.000450Z");
        assert_eq!(text("1969-12-31T23:59:58.5Z"), "1969-12-31T23:59:58.500000Z");
        assert_eq!(text("2026-01-01T00:00:00Z"), "2026-01-01T00:00:00Z");
    }
}

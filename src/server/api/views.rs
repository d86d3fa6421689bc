//! Rows as Airflow's API shows them: every Airflow field, in Airflow's order. Fields without a counterpart in Lite hold
//! Airflow's value for an unused feature.

use crate::http::listing::{collection, view};
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

view! {
    pub struct DagVersionResponse;
    pub fn version(version: &VersionName) {
        #[schemars(with = "Uuid")]
        id: String = uuid(&["version", &version.dag_id, &version.number.to_string()]),
        version_number: i32 = version.number,
        dag_id: String = version.dag_id.clone(),
        bundle_name: Option<&'static str> = Some(BUNDLE),
        // Each DAG version stores its source, as a version of an Airflow bundle does.
        bundle_version: Option<String> = Some(version.number.to_string()),
        created_at: Stamp = Stamp(version.created_at),
        dag_display_name: String = version.dag_id.clone(),
        bundle_url: Option<String> = None,
    }
}

impl DagVersionResponse {
    pub fn id(self) -> String {
        self.id
    }

    /// The version as if its bundle had no versions, as Airflow's local bundles. The UI's Code tab lacks the label of a
    /// bundle version. Only DAGs, runs and task instances have one: with it the UI offers to rerun the newest version.
    pub fn without_bundle(self) -> Self {
        Self { bundle_version: None, ..self }
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

view! {
    pub struct DAGRunResponse;
    pub fn run(run: Run) {
        dag_run_id: String = run.key.run_id,
        dag_id: String = run.key.dag_id.clone(),
        logical_date: Option<Stamp> = run.logical_date.map(Stamp),
        queued_at: Option<Stamp> = Some(Stamp(run.queued_at)),
        start_date: Option<Stamp> = run.start_date.map(Stamp),
        end_date: Option<Stamp> = run.end_date.map(Stamp),
        duration: Option<f64> = duration(run.start_date, run.end_date),
        data_interval_start: Option<Stamp> = run.data_interval_start.map(Stamp),
        data_interval_end: Option<Stamp> = run.data_interval_end.map(Stamp),
        run_after: Stamp = Stamp(run.run_after),
        last_scheduling_decision: Option<Stamp> = run.last_scheduling_decision.map(Stamp),
        run_type: RunType,
        state: RunState,
        #[schemars(with = "Option<DagRunTriggeredByType>")]
        triggered_by: Option<String>,
        triggering_user_name: Option<String>,
        conf: Option<Map<String, Value>> = Some(run.conf),
        note: Option<String>,
        dag_versions: Vec<DagVersionResponse> = run.version.iter().map(version).collect(),
        bundle_version: Option<String> = run.version.map(|version| version.number.to_string()),
        dag_display_name: String = run.key.dag_id,
        partition_key: Option<String> = run.partition.as_ref().map(|partition| partition.key.clone()),
        partition_date: Option<Stamp> = run.partition.and_then(|partition| partition.date).map(Stamp),
        team_name: Option<String> = None,
    }
}

collection! { DAGRunCollectionResponse { dag_runs: DAGRunResponse }, with cursors }

view! {
    pub struct ImportErrorResponse;
    pub fn import_error(error: ImportError) {
        import_error_id: i64 = error.id,
        timestamp: Stamp = Stamp(error.created_at),
        file_token: String = file_token(&error.filename),
        filename: String,
        source_reference: Option<String> = None,
        bundle_name: Option<&'static str> = Some(BUNDLE),
        stack_trace: String,
    }
}

collection! { ImportErrorCollectionResponse { import_errors: ImportErrorResponse } }

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

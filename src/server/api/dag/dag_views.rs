//! DAGs as Airflow's API shows them.

use crate::api::asset::asset_expressions::AssetExpression;
use crate::api::prelude::*;
use crate::api::views::{BUNDLE, DagVersionResponse, file_token, version};
use jiff::SignedDuration;
use leoflow_engine::model::dag::{Structure, Task};
use leoflow_engine::model::state::RunType;
use leoflow_engine::schedule::timetable::Timetable;
use leoflow_engine::store::dag::dags::{Dag, Scheduling};
use leoflow_engine::store::dag::versions::VersionName;
use std::collections::BTreeMap;
use std::time::Duration;

view! {
    /// A DAG without the fields that only `/details` returns.
    pub struct DAGResponse<'a>;
    pub fn dag_response(dag: &'a Dag) {
        dag_id: &'a str = &dag.dag_id,
        dag_display_name: &'a str = dag.structure.dag_display_name.as_ref().unwrap_or(&dag.dag_id),
        is_paused: bool,
        scheduling_state: Scheduling = dag.scheduling(),
        is_stale: bool = !dag.is_active,
        last_parsed_time: Option<Stamp> = dag.last_parsed_at.map(Stamp),
        last_parse_duration: Option<f64>,
        last_expired: Option<Stamp> = None,
        bundle_name: Option<&'static str> = Some(BUNDLE),
        bundle_version: Option<String> = Some(dag.version_number.to_string()),
        relative_fileloc: Option<&'a str> = Some(&dag.relative_fileloc),
        fileloc: &'a str = &dag.fileloc,
        description: Option<&'a str> = dag.structure.description.as_deref(),
        timetable_summary: Option<&'a str> =
            dag.structure.timetable_summary.as_deref().filter(|_| dag.structure.schedule.is_some()),
        timetable_description: Option<String> = Some(timetable_description(&dag.structure)),
        timetable_partitioned: bool =
            dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.is_partitioned()),
        timetable_periodic: bool = is_periodic(&dag.structure),
        tags: Vec<DagTagResponse<'a>> = tags(dag),
        max_active_tasks: u32 = dag.structure.max_active_tasks,
        max_active_runs: Option<u32> = Some(dag.structure.max_active_runs),
        max_consecutive_failed_dag_runs: u32 = dag.structure.max_consecutive_failed_dag_runs,
        has_task_concurrency_limits: bool = dag.structure.tasks.iter().any(is_limited),
        has_import_errors: bool,
        next_dagrun_logical_date: Option<Stamp> = dag.next_interval.map(|(start, _)| Stamp(start)),
        next_dagrun_data_interval_start: Option<Stamp> = dag.next_interval.map(|(start, _)| Stamp(start)),
        next_dagrun_data_interval_end: Option<Stamp> = dag.next_interval.map(|(_, end)| Stamp(end)),
        next_dagrun_run_after: Option<Stamp> = dag.next_run_after.map(Stamp),
        allowed_run_types: Option<Vec<RunType>> = None,
        owners: &'a [String] = &dag.structure.owners,
        is_backfillable: bool = is_periodic(&dag.structure),
        file_token: String = file_token(&dag.fileloc),
    }
}

#[derive(Serialize, JsonSchema)]
struct DagTagResponse<'a> {
    name: &'a str,
    dag_id: &'a str,
    dag_display_name: &'a str,
}

collection! { DAGCollectionResponse<'a> { dags: DAGResponse<'a> } }

fn is_periodic(structure: &Structure) -> bool {
    structure.timetable.as_ref().is_some_and(|timetable| timetable.can_be_backfilled())
}

fn is_limited(task: &Task) -> bool {
    task.max_active_tis_per_dag.is_some() || task.max_active_tis_per_dagrun.is_some()
}

fn tags(dag: &Dag) -> Vec<DagTagResponse<'_>> {
    let tag = |name| DagTagResponse { name, dag_id: &dag.dag_id, dag_display_name: &dag.dag_id };
    dag.structure.tags.iter().map(|name| tag(name)).collect()
}

view! {
    /// A DAG with the additional fields of `/details`.
    pub struct DAGDetailsResponse<'a>;
    pub fn details_response(dag: &'a Dag, active_runs: i64, asset_expression: Option<Value>) {
        #[serde(flatten)]
        dag: DAGResponse<'a> = dag_response(dag),
        catchup: bool = dag.structure.catchup,
        #[schemars(with = "Option<SignedDuration>")]
        dag_run_timeout: Option<String> = dag.structure.dagrun_timeout.map(iso_duration),
        doc_md: Option<String> = dag.structure.doc_md.as_deref().map(clean_doc),
        #[schemars(with = "Option<Stamp>")]
        start_date: Option<&'a str> = dag.structure.start_date.as_deref(),
        #[schemars(with = "Option<Stamp>")]
        end_date: Option<&'a str> = dag.structure.end_date.as_deref(),
        is_paused_upon_creation: Option<bool> = dag.structure.is_paused_upon_creation,
        params: Option<Map<String, Value>> = Some(view_params(&dag.structure.params)),
        concurrency: u32 = dag.structure.max_active_tasks,
        timezone: Option<String> = Some(zone_name(&dag.structure.timezone)),
        #[schemars(with = "Option<AssetExpression>")]
        asset_expression: Option<Value> = asset_expression,
        last_parsed: Option<Stamp> = dag.last_parsed_at.map(Stamp),
        default_args: Option<&'a Map<String, Value>> = Some(&dag.structure.default_args),
        template_search_path: Option<Vec<String>> = None,
        render_template_as_native_obj: bool = dag.structure.render_template_as_native_obj,
        rerun_with_latest_version: Option<bool> = dag.structure.rerun_with_latest_version,
        owner_links: Option<BTreeMap<String, String>> = Some(dag.structure.owner_links.clone()),
        is_favorite: bool,
        active_runs_count: i64 = active_runs,
        latest_dag_version: Option<DagVersionResponse> = Some(version(&version_name(dag))),
        team_name: Option<String> = None,
    }
}

fn version_name(dag: &Dag) -> VersionName {
    VersionName { dag_id: dag.dag_id.clone(), number: dag.version_number, created_at: dag.version_created_at }
}

/// Describes a DAG's timetable in words, as Airflow does.
fn timetable_description(structure: &Structure) -> String {
    // Airflow describes no preset that only its cron library knows, such as `@midnight`; its own are expanded.
    let is_library_preset = structure.timetable_summary.as_deref().is_some_and(|summary| summary.starts_with('@'));
    let timetable = structure.timetable.as_ref().filter(|_| !is_library_preset);
    match (timetable.and_then(Timetable::description), &structure.timetable_description, &structure.schedule) {
        (Some(computed), ..) => computed,
        (None, Some(description), _) => description.clone(),
        (None, None, None) => "Never, external triggers only".to_owned(),
        (None, None, Some(_)) => String::new(),
    }
}

/// Returns a timezone's name, or `+hh:mm` for a zone that is stored as its offset from UTC in seconds.
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

/// Formats seconds as pydantic formats a timedelta: an ISO 8601 duration with years of 365 days.
fn iso_duration(seconds: f64) -> String {
    let sign = if seconds < 0.0 { "-" } else { "" };
    let duration = Duration::try_from_secs_f64(seconds.abs()).unwrap_or(Duration::MAX);
    // Python's durations are whole microseconds.
    let micros = duration.as_nanos().saturating_add(500) / 1000;
    let (whole, fraction) = (micros / 1_000_000, micros % 1_000_000);
    let days = whole / 86_400;
    let part = |count: u128, unit: &str| if count == 0 { String::new() } else { format!("{count}{unit}") };
    let fraction =
        if fraction == 0 { String::new() } else { format!(".{fraction:06}").trim_end_matches('0').to_owned() };
    let second =
        if whole % 60 == 0 && fraction.is_empty() { String::new() } else { format!("{}{fraction}S", whole % 60) };
    let date = part(days / 365, "Y") + &part(days % 365, "D");
    let time = part(whole / 3600 % 24, "H") + &part(whole / 60 % 60, "M") + &second;
    match (date.is_empty(), time.is_empty()) {
        (true, true) => "PT0S".to_owned(),
        (_, true) => format!("{sign}P{date}"),
        _ => format!("{sign}P{date}T{time}"),
    }
}

/// Removes a docstring's common indentation, as Airflow does with Python's `inspect.cleandoc`.
fn clean_doc(text: &str) -> String {
    let expanded = text.replace('\t', "        ");
    let mut lines: Vec<&str> = expanded.lines().collect();
    let indent_of = |line: &&str| line.len() - line.trim_start().len();
    let indent = lines.iter().skip(1).filter(|line| !line.trim().is_empty()).map(indent_of).min().unwrap_or(0);
    for (index, line) in lines.iter_mut().enumerate() {
        *line = if index == 0 { line.trim_start() } else { line.get(indent..).unwrap_or_default() };
    }
    let is_text = |line: &&str| !line.trim().is_empty();
    let Some(first) = lines.iter().position(is_text) else { return String::new() };
    let last = lines.iter().rposition(is_text).unwrap_or(first);
    lines[first..=last].join("\n")
}

/// Describes the parameters of a DAG or a task; of several with the same name, the last one.
pub fn view_params<'a>(params: impl IntoIterator<Item = (&'a String, &'a Value)>) -> Map<String, Value> {
    params.into_iter().map(|(name, param)| (name.clone(), view_param(param))).collect()
}

/// Describes a parameter of a DAG or a task. DAG versions stored by older releases hold only its value.
fn view_param(param: &Value) -> Value {
    match param.as_object().filter(|map| map.contains_key("schema")) {
        Some(map) => json!({
            "value": map.get("value"), "schema": map["schema"], "description": map.get("description"), "source": null,
        }),
        None => json!({"value": param, "schema": {}, "description": null, "source": null}),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The expected texts are those of Python's `inspect.cleandoc`.
    #[test]
    fn clean_doc_matches_inspect_cleandoc() {
        for (text, expected) in [
            ("one line", "one line"),
            ("\n    # Title\n\n      text\n    ", "# Title\n\n  text"),
            ("  first\n    second\n  third\n", "first\n  second\nthird"),
            ("\tfirst\n\tsecond", "first\nsecond"),
            ("", ""),
            ("é\n  ü", "é\nü"),
        ] {
            assert_eq!(clean_doc(text), expected, "{text:?}");
        }
    }

    /// The expected texts are those of pydantic, with which Airflow writes its answers.
    #[test]
    fn a_duration_is_written_as_in_iso_8601() {
        for (seconds, expected) in [
            (301.0, "PT5M1S"),
            (3600.0, "PT1H"),
            (172_800.0, "P2D"),
            (93_600.000_005, "P1DT2H0.000005S"),
            (-60.0, "-PT1M"),
            (0.0, "PT0S"),
            (34_560_000.0, "P1Y35D"),
            (1.5, "PT1.5S"),
        ] {
            assert_eq!(iso_duration(seconds), expected, "{seconds}");
        }
    }
}

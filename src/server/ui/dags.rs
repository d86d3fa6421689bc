//! `/ui/dags`, the latest runs of listed DAGs, and the dashboard.

use crate::api::asset::asset_expressions;
use crate::api::dag::dag_views::{DAGResponse, dag_response};
use crate::api::dag::dags::dag_listing;
use crate::api::instance::hitl::{HITLDetail, detail_response};
use crate::api::prelude::*;
use crate::api::run::dag_runs::run_not_found;
use crate::api::views::{duration, optional_stamp, stamp};
use axum::response::{IntoResponse, Response};
use jiff::SignedDuration;
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::dag::dags::{self, DagField};
use leoflow_engine::store::instance::hitl;
use leoflow_engine::store::list::overview::{self, Counts};
use leoflow_engine::store::run::runs::{self, Run};
use std::collections::HashMap;

fn run_summary(run: &Run) -> Value {
    json!({
        "id": run_number(&run.key), "dag_id": run.key.dag_id, "run_id": run.key.run_id,
        "logical_date": optional_stamp(run.logical_date), "run_after": stamp(run.run_after),
        "start_date": optional_stamp(run.start_date), "end_date": optional_stamp(run.end_date),
        "state": run.state, "duration": duration(run.start_date, run.end_date),
    })
}

/// Derives a stable number from the key (FNV-1a hash); the UI needs a number, but runs have none.
pub fn run_number(key: &RunKey) -> u32 {
    key.dag_id
        .bytes()
        .chain([0])
        .chain(key.run_id.bytes())
        .fold(0x811c_9dc5_u32, |hash, byte| (hash ^ u32::from(byte)).wrapping_mul(0x0100_0193))
}

#[derive(Serialize)]
struct DagsWithRuns<'a> {
    total_entries: i64,
    dags: Vec<DagWithRuns<'a>>,
}

/// A DAG with its newest runs and pending questions.
#[derive(Serialize)]
struct DagWithRuns<'a> {
    #[serde(flatten)]
    dag: DAGResponse<'a>,
    asset_expression: Option<Value>,
    latest_dag_runs: Vec<Value>,
    pending_actions: Vec<HITLDetail>,
    is_favorite: bool,
    has_unfinished_runs: bool,
}

/// About 20 years.
const MAX_HOURS: i64 = 200_000;

/// `/ui/dags`.
pub async fn list(State(state): Shared, params: Params) -> ApiResult<Response> {
    let mut listing = dag_listing(&params)?;
    listing.test(DagField::DagId, FieldTest::OneOf(params.texts("dag_ids")));
    let with_pending = params.flag("has_pending_actions")?;
    listing.filter.has_pending_response = with_pending;
    listing.filter.file_prefix = params.text("relative_fileloc_prefix").map(str::to_owned);
    listing.filter.scheduling = match params.text("scheduling_state") {
        None => None,
        Some(text) => Some(serde_json::from_value(text.into()).map_err(|_| {
            let message = "Input should be 'active', 'draining' or 'paused'";
            ApiError::unprocessable(&["query", "scheduling_state"], "enum", message)
        })?),
    };
    if let Some(hours) = params.whole("dag_run_state_within_hours")? {
        let since = Timestamp::now() - SignedDuration::from_hours(hours.clamp(0, MAX_HOURS));
        listing.filter.latest_run.since = Some(since);
    }
    let runs_per_dag = params.number("dag_runs_limit", 10)?;
    let client = state.core.database.get().await?;
    let page = dags::list(&*client, &state.dag_files.structures, listing).await?;
    let ids: Vec<&str> = page.rows.iter().map(|dag| dag.dag_id.as_str()).collect();
    let mut newest: HashMap<String, Vec<Value>> = HashMap::new();
    for run in runs::newest(&*client, Some(&ids), runs_per_dag).await? {
        newest.entry(run.key.dag_id.clone()).or_default().push(run_summary(&run));
    }
    let conditions: Vec<_> = page.rows.iter().map(|dag| dag.structure.asset_condition.as_ref()).collect();
    let expressions = asset_expressions::resolve_all(&*client, &conditions).await?;
    let unfinished = dag_facts::with_unfinished_runs(&*client, &ids).await?;
    let mut dags = Vec::with_capacity(page.rows.len());
    for (dag, asset_expression) in page.rows.iter().zip(expressions) {
        let mut questions = Vec::new();
        if with_pending == Some(true) {
            for detail in hitl::open_of_dag(&*client, &dag.dag_id).await? {
                questions.push(detail_response(&*client, detail).await?);
            }
        }
        dags.push(DagWithRuns {
            dag: dag_response(dag),
            asset_expression,
            latest_dag_runs: newest.remove(&dag.dag_id).unwrap_or_default(),
            pending_actions: questions,
            is_favorite: dag.is_favorite,
            has_unfinished_runs: unfinished.contains(&dag.dag_id),
        });
    }
    Ok(Json(DagsWithRuns { total_entries: page.total, dags }).into_response())
}

/// `/ui/dags/{dag_id}/latest_run`.
pub async fn latest_run(State(state): Shared, Id(dag_id): Id) -> JsonResult<Value> {
    let runs = runs::newest(&*state.core.database.get().await?, Some(&[dag_id.as_str()]), 1).await?;
    Ok(Json(runs.first().map_or(Value::Null, run_summary)))
}

/// Recent runs from which durations are estimated.
const SAMPLED_RUNS: i64 = 100;

/// `/ui/dags/{dag_id}/dagRuns/{run_id}/stats`.
pub async fn run_stats(
    Datastore(client): Datastore,
    Segments((dag_id, run_id)): Segments<RunPath>,
) -> JsonResult<Value> {
    let key = RunKey { dag_id, run_id };
    runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    let seconds = overview::durations(&*client, &key.dag_id, SAMPLED_RUNS).await?;
    Ok(Json(json!({"duration": statistics(&seconds)})))
}

/// Computes statistics of sorted values; null when empty.
fn statistics(sorted: &[f64]) -> Value {
    if sorted.is_empty() {
        return Value::Null;
    }
    let count = sorted.len() as f64;
    // Interpolates between the two nearest values.
    let percentile = |fraction: f64| {
        let position = fraction * (count - 1.0);
        let (low, high) = (sorted[position.floor() as usize], sorted[position.ceil() as usize]);
        low + (high - low) * position.fract()
    };
    // The most frequent whole second, if any occurs twice.
    let mut seconds: HashMap<i64, usize> = HashMap::new();
    for value in sorted {
        *seconds.entry(value.round() as i64).or_default() += 1;
    }
    let max_count = seconds.values().copied().max().unwrap_or(0);
    let mode =
        seconds.iter().filter(|(_, count)| max_count > 1 && **count == max_count).map(|(second, _)| *second).min();
    json!({
        "mean": sorted.iter().sum::<f64>() / count, "mode": mode, "p50": percentile(0.5), "p90": percentile(0.9),
        "p95": percentile(0.95), "p99": percentile(0.99),
    })
}

/// `/ui/dashboard/dag_stats`.
pub async fn dag_stats(State(state): Shared) -> JsonResult<Value> {
    let counts = overview::dags(&*state.core.database.get().await?).await?;
    Ok(Json(json!({
        "active_dag_count": counts.active, "failed_dag_count": counts.failed, "running_dag_count": counts.running,
        "queued_dag_count": counts.queued,
    })))
}

/// Returns the count of every state, including zero.
fn state_counts(states: impl Iterator<Item = &'static str>, counts: &Counts) -> Map<String, Value> {
    states.map(|state| (state.to_owned(), counts.states.get(state).copied().unwrap_or(0).into())).collect()
}

/// `/ui/dashboard/historical_metrics_data`.
pub async fn history(State(state): Shared, params: Params) -> JsonResult<Value> {
    let Some(start) = params.time("start_date")? else {
        return Err(ApiError::unprocessable(&["query", "start_date"], "missing", "Field required"));
    };
    let time = (start, params.time("end_date")?.unwrap_or_else(Timestamp::now));
    let client = state.core.database.get().await?;
    let (runs, instances) = (overview::runs(&*client, time).await?, overview::instances(&*client, time).await?);
    let run_states = RunState::ALL.iter().map(|state| state.as_str());
    let task_states = TaskState::ALL.iter().map(|state| state.as_str()).chain(["no_status"]);
    Ok(Json(json!({
        "dag_run_states": state_counts(run_states, &runs),
        "task_instance_states": state_counts(task_states, &instances),
        "dag_run_counts_are_lower_bounds": runs.are_lower_bounds,
        "task_instance_counts_are_lower_bounds": instances.are_lower_bounds,
    })))
}

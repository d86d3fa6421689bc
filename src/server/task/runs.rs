//! Requests of running tasks about their own and other runs, and of triggers about DAGs and states of runs.

use super::{Body, JsonAnswer, request_keys};
use crate::api::run::rerun_version;
use crate::api::views::BUNDLE;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use crate::http::request::Id;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_engine::model::keys::{RunKey, TryKey};
use leoflow_engine::model::length::Length;
use leoflow_engine::model::state::RunType;
use leoflow_engine::planner::graph::Graph;
use leoflow_engine::planner::snapshot::Returned;
use leoflow_engine::schedule::timetable::{Interval, Restriction};
use leoflow_engine::store::dag::{dags, versions};
use leoflow_engine::store::instance::clear::{self, Selection};
use leoflow_engine::store::instance::planner_input;
use leoflow_engine::store::instance::sdk_queries::{self, CountTarget};
use leoflow_engine::store::request_keys::Attempt;
use leoflow_engine::store::run::runs::{self, Trigger};
use leoflow_engine::store::run::version_choice::VersionChoice;
use leoflow_engine::store::{ReadFor, StoreError};
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub async fn dag(Datastore(client): Datastore, Id(dag_id): Id) -> JsonAnswer {
    let dag = dags::get(&*client, &dag_id).await?;
    let owners = dag.structure.owners.join(", ");
    let task_ids: Vec<&str> = dag.structure.tasks.iter().map(|task| task.task_id.as_str()).collect();
    let group_ids: Vec<&str> = dag.structure.groups.iter().map(|group| group.group_id.as_str()).collect();
    Ok(Json(json!({
        "dag_id": dag.dag_id, "is_paused": dag.is_paused, "bundle_name": BUNDLE, "bundle_version": null,
        "relative_fileloc": dag.relative_fileloc, "owners": owners, "tags": dag.structure.tags,
        "next_dagrun": dag.next_interval.map(|(start, _)| start), "task_ids": task_ids, "group_ids": group_ids,
    })))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerBody {
    dag_id: String,
    run_id: String,
    conf: Map<String, Value>,
    logical_date: Option<Timestamp>,
    run_after: Option<Timestamp>,
    note: Option<String>,
    partition_key: Option<String>,
    /// True to clear an existing run with the id `run_id`.
    reset: bool,
}

/// Triggers a run. With `reset`, clears the run with the id `run_id` if there is one. A repeated request changes nothing.
pub async fn trigger(
    State(state): Shared,
    Extension(try_key): Extension<TryKey>,
    headers: HeaderMap,
    Body(body): Body<TriggerBody>,
) -> Result<StatusCode, ApiError> {
    let trigger = Trigger {
        run_id: Some(body.run_id.clone()),
        logical_date: body.logical_date,
        run_after: body.run_after,
        conf: body.conf,
        note: body.note,
        triggered_by: "operator",
        user: try_key.instance.run.dag_id.clone(),
        run_type: Some(RunType::OperatorTriggered),
        partition_key: body.partition_key,
        ..Trigger::default()
    };
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    if request_keys::record(&transaction, &headers).await? == Attempt::Repeated {
        return Ok(StatusCode::NO_CONTENT);
    }
    match runs::trigger(&transaction, &body.dag_id, &trigger).await {
        Ok(_) => {}
        Err(StoreError::AlreadyExists { id: existing, .. }) if body.reset => {
            let key = RunKey { dag_id: body.dag_id, run_id: body.run_id };
            reset(&state, &transaction, &key, &existing).await?;
        }
        Err(StoreError::Invalid(text)) => return Err(ApiError::bad_request(text)),
        Err(error) => return Err(error.into()),
    }
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Clears a run. `existing` is the id of the run that prevents a new one. As in Airflow, 404 if it is another run, of the
/// same logical date.
async fn reset(state: &AppState, transaction: &Transaction<'_>, key: &RunKey, existing: &str) -> Result<(), ApiError> {
    let dag = dags::get(transaction, &key.dag_id).await?;
    // Like Airflow with a local bundle, which runs the current code.
    let version_choice = rerun_version::of_dag(state, &dag, None, VersionChoice::Newest).await?;
    let cleared = clear::clear(transaction, key, &Selection::default(), version_choice).await;
    cleared.map(drop).map_err(|error| match error {
        StoreError::NotFound { what: "run", .. } => {
            let run_id = &key.run_id;
            let detail = format!(
                "Dag run with run_id: '{run_id}' not found, and the run '{existing}' has its logical date. Use another \
                 logical date, or the run_id '{existing}' to reset that run"
            );
            ApiError::not_found(detail)
        }
        other => other.into(),
    })
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NoteBody {
    note: Option<String>,
}

/// Sets the note of the task's own run.
pub async fn set_note(
    State(state): Shared,
    Extension(try_key): Extension<TryKey>,
    Body(NoteBody { note }): Body<NoteBody>,
) -> Result<StatusCode, ApiError> {
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let note = note.filter(|note| !note.is_empty());
    runs::set_note(&transaction, &try_key.instance.run, note.as_deref()).await?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn state(State(state): Shared, Body(key): Body<RunKey>) -> JsonAnswer {
    let client = state.core.database.get().await?;
    let run = runs::get(&*client, &key, ReadFor::Reading).await?;
    Ok(Json(json!({"state": run.state})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Count {
    dag_id: String,
    task_ids: Option<Vec<String>>,
    group_id: Option<String>,
    dates: Vec<Timestamp>,
    states: Vec<String>,
}

/// Counts the runs with one of the logical dates, or task instances in them, that are in one of the states.
pub async fn count(Datastore(client): Datastore, Body(body): Body<Count>) -> JsonAnswer {
    let Count { dag_id, task_ids, group_id, dates, states } = body;
    let target = match (task_ids, group_id) {
        (Some(task_ids), _) => CountTarget::Tasks(task_ids),
        (None, Some(group_id)) => CountTarget::Group(group_id),
        (None, None) => CountTarget::Runs,
    };
    let count = sdk_queries::count(&*client, &dag_id, &target, &dates, &states).await?;
    Ok(Json(json!({"count": count})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LengthBody {
    length: Length,
}

/// Evaluates a length expression with the XComs of the task's own run; null until all of them are known.
pub async fn length(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(LengthBody { length }): Body<LengthBody>,
) -> JsonAnswer {
    let run = runs::get(&*client, &try_key.instance.run, ReadFor::Reading).await?;
    let Some(version) = run.version_id else { return Ok(Json(json!({"length": null}))) };
    let version = versions::version(&*client, version).await?;
    let graph = Graph::new(version.structure);
    let lengths = planner_input::lengths(&*client, &try_key.instance.run, &graph).await?;
    Ok(Json(json!({"length": length.resolve(&|task| lengths.get(&graph.task_index(task)?).map(Returned::count))})))
}

/// Returns the dates of the last successful run before the task's own.
pub async fn previous(Datastore(client): Datastore, Extension(try_key): Extension<TryKey>) -> JsonAnswer {
    let dates = sdk_queries::previous_success(&*client, &try_key.instance.run).await?;
    Ok(Json(dates.map_or(Value::Null, |dates| {
        json!({
            "data_interval_start": dates.data_interval_start, "data_interval_end": dates.data_interval_end,
            "start_date": dates.start_date, "end_date": dates.end_date,
        })
    })))
}

/// Returns whether the task's own run is the latest of its schedule so far.
pub async fn latest(Datastore(client): Datastore, Extension(try_key): Extension<TryKey>) -> JsonAnswer {
    let run = runs::get(&*client, &try_key.instance.run, ReadFor::Reading).await?;
    let dag = dags::get(&*client, &try_key.instance.run.dag_id).await?;
    let interval = run.data_interval_start.zip(run.data_interval_end);
    let (Some((start, end)), Some(timetable)) = (interval, &dag.structure.timetable) else {
        return Ok(Json(json!({"is_latest": true})));
    };
    let restriction = Restriction { catchup: true, ..dag.structure.restriction() };
    let now = Timestamp::now();
    let next = timetable.next(Some(Interval { start, end }), restriction, now).ok().flatten();
    let next_end = next.and_then(|next| next.interval).map(|interval| interval.end);
    let is_latest = next_end.is_none_or(|next_end| start < now && now <= next_end);
    Ok(Json(json!({"is_latest": is_latest})))
}

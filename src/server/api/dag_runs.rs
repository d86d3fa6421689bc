//! `/api/v2/dags/{dag_id}/dagRuns`, with Airflow's names and shapes.

use super::views;
use crate::engine::keys::RunKey;
use crate::engine::state::RunState;
use crate::engine::store::clear::{self, Selection};
use crate::engine::store::dags;
use crate::engine::store::instances;
use crate::engine::store::runs::{self, Trigger};
use crate::engine::store::{ReadFor, StoreError};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::caller::Caller;
use crate::server::dag_code::DagCode;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::{HeaderMap, StatusCode, header};
use axum::{Extension, Json};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use serde::{Deserialize, Deserializer};
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const COLUMNS: &[(&str, &str)] = &[
    ("id", "r.queued_at"),
    ("state", "r.state"),
    ("dag_id", "r.dag_id"),
    ("run_id", "r.run_id"),
    ("dag_run_id", "r.run_id"),
    ("logical_date", "r.logical_date"),
    ("run_after", "r.run_after"),
    ("start_date", "r.start_date"),
    ("end_date", "r.end_date"),
];

/// Airflow's word for all of them.
pub fn unless_all(id: &str) -> Option<&str> {
    (id != "~").then_some(id)
}

pub fn check_states(states: &[String], known: &[&str]) -> Result<(), ApiError> {
    if states.iter().all(|state| known.contains(&state.as_str()) || ["none", "no_status"].contains(&state.as_str())) {
        return Ok(());
    }
    let detail = format!("Invalid value for state. Valid values are {}", known.join(", "));
    Err(ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, detail))
}

pub async fn list(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut page = params.page("run_id_pattern", COLUMNS)?;
    if page.order.is_empty() {
        page.order = vec![crate::engine::store::Order { column: "r.queued_at", descending: false }];
    }
    let states = params.texts("state");
    check_states(&states, &RunState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    let client = state.database.get().await?;
    if let Some(dag_id) = unless_all(&dag_id) {
        dags::get(&*client, dag_id).await?;
    }
    let (found, total) = runs::list(&*client, unless_all(&dag_id), &states, &page).await?;
    let found: Vec<Value> = found.iter().map(views::run).collect();
    Ok(Json(json!({
        "dag_runs": found, "total_entries": total,
        "total_entries_limit": null, "next_cursor": null, "previous_cursor": null,
    })))
}

fn missing(error: StoreError, key: &RunKey) -> ApiError {
    match error {
        StoreError::NotFound { what: "run", .. } => {
            let RunKey { dag_id, run_id } = key;
            let detail = format!("The DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found");
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    }
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let client = state.database.get().await?;
    let run = runs::get(&*client, &key, ReadFor::Reading).await.map_err(|error| missing(error, &key))?;
    Ok(Json(views::run(&run)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct TriggerBody {
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    data_interval_start: Option<Timestamp>,
    #[serde(default)]
    data_interval_end: Option<Timestamp>,
    /// Required, and may be null: Airflow wants it said.
    #[serde(deserialize_with = "said")]
    logical_date: Option<Timestamp>,
    #[serde(default)]
    run_after: Option<Timestamp>,
    #[serde(default)]
    conf: Option<Map<String, Value>>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
}

fn said<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<Timestamp>, D::Error> {
    Option::deserialize(deserializer)
}

pub async fn trigger(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    Extension(caller): Extension<Caller>,
    headers: HeaderMap,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body: TriggerBody = body_as(body)?;
    if body.data_interval_start.is_some() != body.data_interval_end.is_some() {
        let message =
            "Value error, Either both data_interval_start and data_interval_end must be provided or both must be None";
        return Err(ApiError::unprocessable(&["body"], "value_error", message));
    }
    let triggered_by = match caller {
        Caller::LocalAdmin => "cli",
        Caller::Network if headers.contains_key(header::REFERER) => "ui",
        Caller::Network => "rest_api",
    };
    let with = Trigger {
        run_id: body.dag_run_id,
        logical_date: body.logical_date,
        data_interval: body.data_interval_start.zip(body.data_interval_end),
        run_after: body.run_after,
        conf: body.conf.unwrap_or_default(),
        note: body.note,
        triggered_by,
        user: state.secrets().admin_email.clone(),
        run_type: None,
        partition_key: body.partition_key,
    };
    let mut with = with;
    if let (Some(date), None) = (with.logical_date, with.data_interval) {
        with.data_interval = own_interval(&state, &dag_id, date).await?;
    }
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let run = runs::trigger(&transaction, &dag_id, &with).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("Dag with dag_id: '{dag_id}' not found"))
        }
        StoreError::Invalid(text) => ApiError::new(StatusCode::BAD_REQUEST, text),
        other => other.into(),
    })?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

/// The interval that a timetable of the user's own gives a run of that date.
async fn own_interval(
    state: &Arc<AppState>,
    dag_id: &str,
    date: Timestamp,
) -> Result<Option<(Timestamp, Timestamp)>, ApiError> {
    // Its code may take its time; no connection waits for that.
    let found = dags::get(&*state.database.get().await?, dag_id).await;
    let Ok(dag) = found else { return Ok(None) };
    let custom = dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.is_custom());
    let (true, Some(code)) = (custom, DagCode::of(state)) else { return Ok(None) };
    let interval = code.manual(dag.version_id, dag_id, date).await;
    let interval = interval.map_err(|error| ApiError::new(StatusCode::BAD_REQUEST, error))?;
    Ok(Some((interval.start, interval.end)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Patch {
    #[serde(default)]
    state: Option<RunState>,
    #[serde(default)]
    note: Option<String>,
}

pub async fn patch(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    params: Params,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let body: Patch = body_as(body)?;
    let mask = params.texts("update_mask");
    let counts = |field: &str| mask.is_empty() || mask.iter().any(|name| name == field);
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    if let Some(note) = body.note.filter(|_| counts("note")) {
        let note = (!note.is_empty()).then_some(note);
        runs::set_note(&transaction, &key, note.as_deref()).await.map_err(|error| missing(error, &key))?;
    }
    match body.state.filter(|_| counts("state")) {
        Some(RunState::Running) => {
            let message = "Input should be 'queued', 'success' or 'failed'";
            return Err(ApiError::unprocessable(&["body", "state"], "enum", message));
        }
        Some(new) => runs::set_state(&transaction, &key, new).await.map_err(|error| missing(error, &key))?,
        None => {}
    }
    let run = runs::get(&transaction, &key, ReadFor::Reading).await.map_err(|error| missing(error, &key))?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

pub async fn delete(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<StatusCode, ApiError> {
    let key = RunKey { dag_id, run_id };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    runs::delete(&transaction, &key).await.map_err(|error| missing(error, &key))?;
    transaction.commit().await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clear {
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default)]
    only_failed: bool,
    #[serde(default)]
    only_new: bool,
    /// A cleared run always takes the newest version here.
    #[serde(default, rename = "run_on_latest_version")]
    _run_on_latest_version: Option<bool>,
    #[serde(default)]
    note: Option<String>,
}

fn yes() -> bool {
    true
}

pub async fn clear(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let body: Clear = body_as(body)?;
    if body.only_new {
        return Err(ApiError::new(StatusCode::BAD_REQUEST, "only_new is not supported"));
    }
    let which = Selection { only_failed: body.only_failed, ..Selection::default() };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    runs::get(&transaction, &key, ReadFor::Reading).await.map_err(|error| missing(error, &key))?;
    if body.dry_run {
        let ids = clear::select(&transaction, &key, &which).await?;
        let found = instances_of(&transaction, &key, &ids).await?;
        return Ok(Json(json!({"task_instances": found, "total_entries": found.len()})));
    }
    if let Some(note) = &body.note {
        runs::set_note(&transaction, &key, Some(note)).await?;
    }
    clear::clear(&transaction, &key, &which).await?;
    let run = runs::get(&transaction, &key, ReadFor::Reading).await?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

/// The named instances of a run, as they are shown.
pub async fn instances_of(
    transaction: &Transaction<'_>,
    key: &RunKey,
    ids: &[(String, i32)],
) -> Result<Vec<Value>, ApiError> {
    Ok(instances::chosen(transaction, key, ids).await?.iter().map(views::instance).collect())
}

//! Task instances, how they are cleared, and their XComs, with Airflow's names and shapes.

use super::dag_runs::{check_states, instances_of, unless_all};
use super::views;
use crate::engine::keys::RunKey;
use crate::engine::state::TaskState;
use crate::engine::store::clear::{self, Selection};
use crate::engine::store::dags;
use crate::engine::store::instances::{self, NOT_MAPPED, Which};
use crate::engine::store::runs;
use crate::engine::store::secrets;
use crate::engine::store::xcoms;
use crate::engine::store::{Order, ReadFor, StoreError};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

pub const COLUMNS: &[(&str, &str)] = &[
    ("id", "ti.task_id"),
    ("state", "ti.state"),
    ("start_date", "ti.start_date"),
    ("end_date", "ti.end_date"),
    ("map_index", "ti.map_index"),
    ("try_number", "ti.try_number"),
    ("logical_date", "r.logical_date"),
    ("run_after", "r.run_after"),
    ("operator", "ti.operator"),
];

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut page = params.page("task_display_name_pattern", COLUMNS)?;
    if page.order.is_empty() {
        page.order = vec![Order { column: "ti.map_index", descending: false }];
    }
    let mut states = params.texts("state");
    check_states(&states, &TaskState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    // Two words for one thing.
    states.iter_mut().filter(|state| *state == "no_status").for_each(|state| *state = "none".to_owned());
    let client = state.database.get().await?;
    let (dag, run) = (unless_all(&dag_id), unless_all(&run_id));
    match (dag, run) {
        (None, Some(_)) => {
            let detail = "dag_id is required when dag_run_id is specified";
            return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
        }
        (Some(dag_id), Some(run_id)) => {
            let key = RunKey { dag_id: dag_id.to_owned(), run_id: run_id.to_owned() };
            runs::get(&*client, &key, ReadFor::Reading).await.map_err(|error| match error {
                StoreError::NotFound { .. } => {
                    let detail = format!("DagRun with dag_id: `{dag_id}` and run_id: `{run_id}` was not found");
                    ApiError::new(StatusCode::NOT_FOUND, detail)
                }
                other => other.into(),
            })?;
        }
        (Some(dag_id), None) => drop(dags::get(&*client, dag_id).await?),
        (None, None) => {}
    }
    let which = Which { dag_id: dag, run_id: run, states: &states, ..Which::default() };
    let (found, total) = instances::list(&*client, which, &page).await?;
    let found: Vec<Value> = found.iter().map(views::instance).collect();
    Ok(Json(json!({
        "task_instances": found, "total_entries": total,
        "total_entries_limit": null, "next_cursor": null, "previous_cursor": null,
    })))
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let client = state.database.get().await?;
    let found = instances::get(&*client, &key, &task_id, NOT_MAPPED).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let RunKey { dag_id, run_id } = &key;
            let detail = format!(
                "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}` and task_id: `{task_id}` was not found"
            );
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    Ok(Json(views::instance(&found)))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Clear {
    #[serde(default = "yes")]
    dry_run: bool,
    #[serde(default = "yes")]
    only_failed: bool,
    #[serde(default)]
    task_ids: Option<Vec<Value>>,
    #[serde(default)]
    dag_run_id: Option<String>,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    /// What follows is accepted as far as it changes nothing.
    #[serde(default)]
    only_running: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    include_past: bool,
    #[serde(default = "yes")]
    reset_dag_runs: bool,
    #[serde(default, rename = "run_on_latest_version")]
    _run_on_latest_version: Option<bool>,
}

fn yes() -> bool {
    true
}

pub async fn clear(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let body: Clear = body_as(body)?;
    if body.include_future || body.include_past || !body.reset_dag_runs {
        let detail = "include_future, include_past and reset_dag_runs=false are not supported";
        return Err(ApiError::new(StatusCode::BAD_REQUEST, detail));
    }
    let invalid = |message: &str| ApiError::unprocessable(&["body"], "value_error", message);
    let run_id = body.dag_run_id.ok_or_else(|| invalid("Value error, dag_run_id must be provided"))?;
    let tasks = match &body.task_ids {
        Some(list) if list.is_empty() => {
            return Err(invalid("Value error, task_ids list should have at least 1 element."));
        }
        Some(list) => list.iter().map(named).collect::<Option<Vec<_>>>().ok_or_else(|| invalid("task_ids"))?,
        None => Vec::new(),
    };
    let which = Selection {
        tasks,
        upstream: body.include_upstream,
        downstream: body.include_downstream,
        only_failed: body.only_failed && !body.only_running,
        only_running: body.only_running,
    };
    let key = RunKey { dag_id, run_id };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::get(&transaction, &key.dag_id).await?;
    runs::get(&transaction, &key, ReadFor::Reading).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let detail = format!("Dag Run id {} not found in dag {}", key.run_id, key.dag_id);
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    let ids = clear::select(&transaction, &key, &which).await?;
    if !body.dry_run {
        clear::clear(&transaction, &key, &which).await?;
    }
    let found = instances_of(&transaction, &key, &ids).await?;
    transaction.commit().await?;
    Ok(Json(json!({
        "task_instances": found, "total_entries": found.len(),
        "total_entries_limit": null, "next_cursor": null, "previous_cursor": null,
    })))
}

/// A task's id, or a pair of it and a map index.
fn named(value: &Value) -> Option<(String, Option<i32>)> {
    match value {
        Value::String(id) => Some((id.clone(), None)),
        Value::Array(pair) => {
            let index = pair.get(1).map(|index| index.as_i64().and_then(|index| i32::try_from(index).ok()));
            let index = match index {
                Some(None) => return None,
                Some(index) => index,
                None => None,
            };
            Some((pair.first()?.as_str()?.to_owned(), index))
        }
        _ => None,
    }
}

const XCOM_COLUMNS: &[(&str, &str)] = &[
    ("key", "x.key"),
    ("dag_id", "x.dag_id"),
    ("run_id", "x.run_id"),
    ("task_id", "x.task_id"),
    ("map_index", "x.map_index"),
    ("timestamp", "x.created_at"),
];

pub async fn xcom_list(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut page = params.page("xcom_key_pattern", XCOM_COLUMNS)?;
    if page.order.is_empty() {
        page.order = ["x.dag_id", "x.task_id", "x.run_id", "x.map_index"]
            .map(|column| Order { column, descending: false })
            .to_vec();
    }
    let client = state.database.get().await?;
    let (dag, run, task) = (unless_all(&dag_id), unless_all(&run_id), unless_all(&task_id));
    let map_index = params.whole("map_index")?.map(|index| i32::try_from(index).unwrap_or(i32::MAX));
    let (found, total) = xcoms::list(&*client, dag, run, task, map_index, &page).await?;
    let found: Vec<Value> = found.iter().map(views::xcom).collect();
    Ok(Json(json!({"xcom_entries": found, "total_entries": total})))
}

pub async fn xcom_get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let map_index = params.whole("map_index")?.unwrap_or(-1);
    let map_index = i32::try_from(map_index).unwrap_or(i32::MAX);
    let client = state.database.get().await?;
    let found = xcoms::get(&*client, &RunKey { dag_id, run_id }, &task_id, map_index, &key).await?;
    let value = found.value.as_deref().unwrap_or("null");
    let mut value: Value = serde_json::from_str(value).map_err(|error| ApiError::internal(&error))?;
    secrets::stored(&*client, &state.cipher).await?.mask_json(&mut value);
    let mut whole = views::xcom(&found);
    whole["value"] = value;
    Ok(Json(whole))
}

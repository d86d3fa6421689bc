//! The tries of task instances, with Airflow's names and shapes.

use super::task_instances::missing;
use super::views::{self, stamp};
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::StoreError;
use crate::engine::store::instances::{self, Instance, NOT_MAPPED};
use crate::engine::store::try_lists::{self, Try};
use crate::server::api_error::ApiError;
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// What Airflow tells of a try and not of an instance is nothing.
const OF_INSTANCES: &[&str] =
    &["id", "logical_date", "run_after", "note", "rendered_map_index", "rendered_fields", "trigger", "triggerer_job"];

/// The instance as it was in that try; `None`: as it is, before its next try begins.
fn view(of: &Instance, one: Option<&Try>) -> Value {
    let mut whole = views::instance(of);
    if let Some(fields) = whole.as_object_mut() {
        fields.retain(|name, _| !OF_INSTANCES.contains(&name.as_str()));
    }
    if let Some(one) = one {
        // The newest may wait for another after this one, or be running again.
        let is_newest = one.number == of.try_number;
        whole["try_number"] = one.number.into();
        whole["start_date"] = stamp(one.start_date).into();
        whole["end_date"] = views::maybe(one.end_date);
        whole["duration"] = views::duration(Some(one.start_date), one.end_date);
        whole["pid"] = one.pid.into();
        if !is_newest {
            whole["state"] = one.state.as_str().into();
        }
    }
    whole
}

struct Found {
    instance: Instance,
    tries: Vec<Try>,
}

async fn find(state: &AppState, run: &RunKey, task_id: &str, map_index: i32) -> Result<Found, ApiError> {
    let client = state.database.get().await?;
    let instance = instances::get(&*client, run, task_id, map_index).await.map_err(|error| match error {
        StoreError::NotFound { .. } => missing(run, task_id, Some(map_index)),
        other => other.into(),
    })?;
    let tries = try_lists::of_instance(&*client, run, task_id, map_index).await?;
    Ok(Found { instance, tries })
}

async fn all(state: &AppState, run: &RunKey, task_id: &str, map_index: i32) -> Result<Json<Value>, ApiError> {
    let Found { instance, tries } = find(state, run, task_id, map_index).await?;
    let mut shown: Vec<Value> = tries.iter().map(|one| view(&instance, Some(one))).collect();
    // One that waits to be tried again is no try of its own.
    let has_begun = tries.last().is_some_and(|newest| newest.number >= instance.try_number);
    if !has_begun && instance.state.as_deref() != Some("up_for_retry") {
        shown.push(view(&instance, None));
    }
    Ok(Json(json!({"total_entries": shown.len(), "task_instances": shown})))
}

/// As it was, or is, in that try.
pub async fn one(state: &AppState, of: &TryKey) -> Result<Value, ApiError> {
    let TryKey { run, task_id, map_index, try_number } = of;
    let Found { instance, tries } = find(state, run, task_id, *map_index).await?;
    if let Some(found) = tries.iter().find(|one| one.number == *try_number) {
        return Ok(view(&instance, Some(found)));
    }
    if instance.try_number == *try_number {
        return Ok(view(&instance, None));
    }
    let RunKey { dag_id, run_id } = run;
    let detail = format!(
        "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}`, try_number: `{try_number}` \
         and map_index: `{map_index}` was not found"
    );
    Err(ApiError::new(StatusCode::NOT_FOUND, detail))
}

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    all(&state, &RunKey { dag_id, run_id }, &task_id, params.map_index()?.unwrap_or(NOT_MAPPED)).await
}

pub async fn list_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index)): Segments<(String, String, String, i32)>,
) -> Result<Json<Value>, ApiError> {
    all(&state, &RunKey { dag_id, run_id }, &task_id, map_index).await
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, try_number)): Segments<(String, String, String, i32)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let map_index = params.map_index()?.unwrap_or(NOT_MAPPED);
    let of = TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number };
    one(&state, &of).await.map(Json)
}

pub async fn get_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index, try_number)): Segments<(String, String, String, i32, i32)>,
) -> Result<Json<Value>, ApiError> {
    one(&state, &TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number }).await.map(Json)
}

//! The tries of task instances, with Airflow's names and shapes.

use super::instance_views::{TaskInstanceHistoryCollectionResponse, TaskInstanceHistoryResponse, in_try};
use super::task_instances::{AtIndex, missing};
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::StoreError;
use crate::engine::store::instances::{self, Instance, NOT_MAPPED};
use crate::engine::store::try_lists::{self, Try};
use crate::server::api_error::ApiError;
use crate::server::query::Asked;
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

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

type AllTries = Result<Json<TaskInstanceHistoryCollectionResponse>, ApiError>;

async fn all(state: &AppState, run: &RunKey, task_id: &str, map_index: i32) -> AllTries {
    let Found { instance, tries } = find(state, run, task_id, map_index).await?;
    let mut shown: Vec<_> = tries.iter().map(|one| in_try(instance.clone(), Some(one))).collect();
    // One that waits to be tried again is no try of its own.
    let has_begun = tries.last().is_some_and(|newest| newest.number >= instance.try_number);
    if !has_begun && instance.state.as_deref() != Some("up_for_retry") {
        shown.push(in_try(instance, None));
    }
    Ok(Json(shown.into_iter().collect()))
}

/// As it was, or is, in that try.
pub async fn one(state: &AppState, of: &TryKey) -> Result<TaskInstanceHistoryResponse, ApiError> {
    let TryKey { run, task_id, map_index, try_number } = of;
    let Found { instance, tries } = find(state, run, task_id, *map_index).await?;
    if let Some(found) = tries.iter().find(|one| one.number == *try_number) {
        return Ok(in_try(instance, Some(found)));
    }
    if instance.try_number == *try_number {
        return Ok(in_try(instance, None));
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
    params: Asked<AtIndex>,
) -> AllTries {
    all(&state, &RunKey { dag_id, run_id }, &task_id, params.map_index()?.unwrap_or(NOT_MAPPED)).await
}

pub async fn list_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index)): Segments<(String, String, String, i32)>,
) -> AllTries {
    all(&state, &RunKey { dag_id, run_id }, &task_id, map_index).await
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, try_number)): Segments<(String, String, String, i32)>,
    params: Asked<AtIndex>,
) -> Result<Json<TaskInstanceHistoryResponse>, ApiError> {
    let map_index = params.map_index()?.unwrap_or(NOT_MAPPED);
    let of = TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number };
    one(&state, &of).await.map(Json)
}

pub async fn get_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index, try_number)): Segments<(String, String, String, i32, i32)>,
) -> Result<Json<TaskInstanceHistoryResponse>, ApiError> {
    one(&state, &TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number }).await.map(Json)
}

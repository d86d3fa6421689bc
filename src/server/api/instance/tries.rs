//! Tries of task instances, with Airflow's names and shapes.

use super::instance_views::{TaskInstanceHistoryCollectionResponse, TaskInstanceHistoryResponse, response_for_try};
use super::task_instances::{MapIndexQuery, instance_not_found};
use crate::api::instance_path::{MappedInstance, MappedTry, instance_key_from_query};
use crate::api::prelude::*;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::instance::instances::{self, Instance, Try};

/// A task instance and the tries that started.
struct InstanceTries {
    instance: Instance,
    tries: Vec<Try>,
}

async fn load_tries(state: &AppState, key: &InstanceKey) -> ApiResult<InstanceTries> {
    let client = state.core.database.get().await?;
    let instance = instances::get(&*client, key).await.map_err(instance_not_found(key))?;
    let tries = instances::tries(&*client, key).await?;
    Ok(InstanceTries { instance, tries })
}

type AllTries = JsonResult<TaskInstanceHistoryCollectionResponse>;

/// Lists all tries, including the current one before it starts.
async fn all_tries(state: &AppState, key: &InstanceKey) -> AllTries {
    let InstanceTries { instance, tries } = load_tries(state, key).await?;
    let mut responses: Vec<_> =
        tries.iter().map(|task_try| response_for_try(instance.clone(), Some(task_try))).collect();
    // An instance that waits for its retry has not started another try.
    let has_begun = tries.last().is_some_and(|newest| newest.number >= instance.try_number);
    if !has_begun && instance.state != Some(TaskState::UpForRetry) {
        responses.push(response_for_try(instance, None));
    }
    Ok(Json(responses.into_iter().collect()))
}

/// Returns the instance as of the try; 404 if there is no such try.
pub async fn load_try(state: &AppState, try_key: &TryKey) -> ApiResult<TaskInstanceHistoryResponse> {
    let TryKey { instance: key, try_number } = try_key;
    let InstanceTries { instance, tries } = load_tries(state, key).await?;
    if let Some(task_try) = tries.iter().find(|task_try| task_try.number == *try_number) {
        return Ok(response_for_try(instance, Some(task_try)));
    }
    if instance.try_number == *try_number {
        return Ok(response_for_try(instance, None));
    }
    let InstanceKey { run: RunKey { dag_id, run_id }, task_id, position } = key;
    let map_index = position.map_index();
    let detail = format!(
        "The Task Instance with dag_id: `{dag_id}`, run_id: `{run_id}`, task_id: `{task_id}`, try_number: `{try_number}` \
         and map_index: `{map_index}` was not found"
    );
    Err(ApiError::not_found(detail))
}

pub async fn list(
    State(state): Shared,
    Segments(path): Segments<TaskPath>,
    params: QueryParams<MapIndexQuery>,
) -> AllTries {
    all_tries(&state, &instance_key_from_query(path, &params)?).await
}

pub async fn list_mapped(State(state): Shared, MappedInstance(key): MappedInstance) -> AllTries {
    all_tries(&state, &key).await
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, try_number)): Segments<(String, String, String, i32)>,
    params: QueryParams<MapIndexQuery>,
) -> JsonResult<TaskInstanceHistoryResponse> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    load_try(&state, &TryKey { instance, try_number }).await.map(Json)
}

pub async fn get_mapped(State(state): Shared, MappedTry(key): MappedTry) -> JsonResult<TaskInstanceHistoryResponse> {
    load_try(&state, &key).await.map(Json)
}

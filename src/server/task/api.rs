//! Requests of running tasks over the Unix socket: Variables, XComs, the name of a mapped instance, and uv. A task
//! authenticates with its own token, which expires with the try, and a DAG's callback with that of its process. Triggers
//! use some of these handlers without a token.

use super::{Body, JsonAnswer};
use crate::app_state::Shared;
use crate::environments::CodeError;
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use crate::http::request::Id;
use crate::login::tokens::bearer;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use axum::{Extension, Json};
use leoflow_engine::model::keys::{Position, RunKey, TryKey};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::environments;
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::instance::xcoms;
use leoflow_engine::store::secret::variables::{self, Variable};
use serde::{Deserialize, Serialize};
use serde_json::json;
use std::sync::Arc;

/// Marks a request of a DAG's callback.
#[derive(Clone, Copy)]
struct FromCallback;

/// Requires the token of a running try, or of a DAG's callback that is running: 401 otherwise.
pub async fn require_try(State(state): Shared, mut request: Request, next: Next) -> Result<Response, ApiError> {
    let refused = || ApiError::new(StatusCode::UNAUTHORIZED, "This try of the task has ended or never started");
    let token = bearer(request.headers()).ok_or_else(refused)?.to_owned();
    let key = match state.core.callback_tokens.find(&token) {
        Some(key) => {
            request.extensions_mut().insert(FromCallback);
            key
        }
        None => {
            let client = state.core.database.get().await?;
            tries::find_by_token(&*client, &token).await?.ok_or_else(refused)?
        }
    };
    request.extensions_mut().insert(key);
    Ok(next.run(request).await)
}

/// Refuses callbacks of DAGs: 403. As in Airflow, they read, and change only Variables.
pub async fn refuse_callbacks(request: Request, next: Next) -> Result<Response, ApiError> {
    if request.extensions().get::<FromCallback>().is_some() {
        let detail = "Only a task can do this: a callback of a DAG reads, and changes only Variables";
        return Err(ApiError::forbidden(detail));
    }
    Ok(next.run(request).await)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SetVariable {
    value: String,
    description: Option<String>,
}

pub async fn set_variable(
    State(state): Shared,
    Id(key): Id,
    Body(SetVariable { value, description }): Body<SetVariable>,
) -> Result<StatusCode, ApiError> {
    let client = state.core.database.get().await?;
    variables::set(&*client, &state.core.cipher, &Variable { key, value, description }).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Deletes a variable. Succeeds if it is missing, because the request may be a repetition.
pub async fn delete_variable(Datastore(client): Datastore, Id(key): Id) -> Result<StatusCode, ApiError> {
    match variables::delete(&*client, &key).await {
        Ok(()) | Err(StoreError::NotFound { .. }) => Ok(StatusCode::NO_CONTENT),
        Err(error) => Err(error.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Name {
    name: String,
}

/// Names the task's mapped instance while it runs.
pub async fn set_map_index_name(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Name { name }): Body<Name>,
) -> Result<StatusCode, ApiError> {
    tries::set_rendered_map_index(&*client, &try_key, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Push {
    key: String,
    /// The value as JSON text, so that numbers keep the task's notation.
    value_json: String,
}

pub async fn push_xcom(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Push { key, value_json }): Body<Push>,
) -> Result<StatusCode, ApiError> {
    xcoms::push(&*client, &try_key.instance, &key, &value_json).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Pull {
    dag_id: String,
    run_id: String,
    task_ids: Vec<String>,
    key: String,
    /// `None` selects all instances.
    map_indexes: Option<Vec<i32>>,
    /// Selects the instances in this iteration of the loop of the tasks.
    iteration: Option<i32>,
    #[serde(default)]
    include_prior_dates: bool,
    #[serde(default)]
    offset: i64,
    limit: Option<i64>,
}

#[derive(Serialize)]
pub struct PulledXCom {
    task_id: String,
    map_index: i32,
    value_json: String,
}

pub async fn pull_xcoms(
    Datastore(client): Datastore,
    Body(Pull { dag_id, run_id, task_ids, key, map_indexes, iteration, include_prior_dates, offset, limit }): Body<
        Pull,
    >,
) -> Result<Json<Vec<PulledXCom>>, ApiError> {
    let positions: Option<Vec<Position>> = map_indexes
        .map(|indexes| indexes.into_iter().filter_map(|index| Position::checked(iteration, index)).collect());
    let pull = xcoms::Pull {
        run: &RunKey { dag_id, run_id },
        task_ids: &task_ids,
        key: &key,
        positions: positions.as_deref(),
        iteration,
        include_prior_dates,
        offset,
        limit,
    };
    let xcoms = xcoms::pull(&*client, &pull).await?;
    // Typed, because `json!` would copy the values, which may have megabytes.
    let entry = |(task_id, position, value_json): (String, Position, String)| PulledXCom {
        task_id,
        map_index: position.map_index(),
        value_json,
    };
    Ok(Json(xcoms.into_iter().map(entry).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CountXComs {
    dag_id: String,
    run_id: String,
    task_id: String,
    key: String,
    /// As for a pull.
    iteration: Option<i32>,
}

pub async fn count_xcoms(Datastore(client): Datastore, Body(body): Body<CountXComs>) -> JsonAnswer {
    let CountXComs { dag_id, run_id, task_id, key, iteration } = body;
    let count = xcoms::count(&*client, &RunKey { dag_id, run_id }, &task_id, &key, iteration).await?;
    Ok(Json(json!({"count": count})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DeleteXCom {
    key: String,
}

pub async fn delete_xcom(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(DeleteXCom { key }): Body<DeleteXCom>,
) -> Result<StatusCode, ApiError> {
    xcoms::delete(&*client, &try_key.instance, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// Returns whether the newest version of the task's DAG has a package, if the run has an older version.
pub async fn has_newer_package(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Name { name }): Body<Name>,
) -> JsonAnswer {
    let RunKey { dag_id, run_id } = &try_key.instance.run;
    let lock = environments::newer_than_run(&*client, &try_key.instance.run).await?;
    let exists = lock.is_some_and(|lock| lock.has_package(&name));
    Ok(Json(json!({"exists": exists, "dag_id": dag_id, "run_id": run_id})))
}

/// Returns the path of uv; `null` while it is being downloaded.
pub async fn uv(State(state): Shared) -> JsonAnswer {
    let failed = |error: Arc<CodeError>| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string());
    let program = state.environments.uv().await.map_err(failed)?;
    Ok(Json(json!({"program": program})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct VariableKeys {
    prefix: Option<String>,
    limit: i64,
    offset: i64,
}

pub async fn variable_keys(
    Datastore(client): Datastore,
    Body(VariableKeys { prefix, limit, offset }): Body<VariableKeys>,
) -> JsonAnswer {
    let (keys, total) = variables::keys(&*client, prefix.as_deref(), limit.clamp(1, 10_000), offset.max(0)).await?;
    Ok(Json(json!({"keys": keys, "total_entries": total})))
}

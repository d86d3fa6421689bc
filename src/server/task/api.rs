//! Requests of running tasks over the Unix socket: Variables, XComs, the name of a mapped instance, and uv. A task
//! authenticates with its own token, which expires with the try, and a DAG's callback with that of its process. Triggers
//! use some of these handlers without a token.

use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::body::body_as;
use crate::http::datastore::Datastore;
use crate::http::request::Id;
use crate::login::tokens::bearer;
use axum::extract::rejection::JsonRejection;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use leoflow_engine::model::keys::{RunKey, TryKey};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::environments;
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::instance::xcoms;
use leoflow_engine::store::secret::variables::{self, Variable};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

type Body = Result<Json<Value>, JsonRejection>;

/// Marks a request of a DAG's callback.
#[derive(Clone, Copy)]
struct FromCallback;

/// Requires the token of a running try, or of a DAG's callback that is running: 401 otherwise.
pub async fn require_try(State(state): Shared, mut request: Request, next: Next) -> Response {
    let token = bearer(request.headers()).map(str::to_owned);
    if let Some(key) = token.as_deref().and_then(|token| state.core.callback_tokens.find(token)) {
        request.extensions_mut().insert(key);
        request.extensions_mut().insert(FromCallback);
        return next.run(request).await;
    }
    match find_try(&state, token).await {
        Ok(Some(key)) => {
            request.extensions_mut().insert(key);
            next.run(request).await
        }
        Ok(None) => {
            let detail = "This try of the task has ended or never started";
            ApiError::new(StatusCode::UNAUTHORIZED, detail).into_response()
        }
        Err(error) => error.into_response(),
    }
}

/// Refuses callbacks of DAGs: 403. As in Airflow, they read, and change only Variables.
pub async fn refuse_callbacks(request: Request, next: Next) -> Response {
    if request.extensions().get::<FromCallback>().is_some() {
        let detail = "Only a task can do this: a callback of a DAG reads, and changes only Variables";
        return ApiError::forbidden(detail).into_response();
    }
    next.run(request).await
}

/// Returns the running try that a token belongs to.
async fn find_try(state: &AppState, token: Option<String>) -> Result<Option<TryKey>, ApiError> {
    let Some(token) = token else { return Ok(None) };
    let client = state.core.database.get().await?;
    Ok(tries::find_by_token(&*client, &token).await?)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct SetVariable {
    value: String,
    description: Option<String>,
}

pub async fn set_variable(State(state): Shared, Id(key): Id, body: Body) -> Result<StatusCode, ApiError> {
    let SetVariable { value, description } = body_as(body)?;
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
struct MapIndexName {
    name: String,
}

/// Names the task's mapped instance while it runs.
pub async fn set_map_index_name(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let MapIndexName { name } = body_as(body)?;
    tries::set_rendered_map_index(&*client, &try_key, &name).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Push {
    key: String,
    /// The value as JSON text, so that numbers keep the task's notation.
    value_json: String,
}

pub async fn push_xcom(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let Push { key, value_json } = body_as(body)?;
    xcoms::push(&*client, &try_key.instance, &key, &value_json).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Pull {
    dag_id: String,
    run_id: String,
    task_ids: Vec<String>,
    key: String,
    /// `None` selects all instances.
    #[serde(default)]
    map_indexes: Option<Vec<i32>>,
    #[serde(default)]
    include_prior_dates: bool,
    #[serde(default)]
    offset: i64,
    #[serde(default)]
    limit: Option<i64>,
}

#[derive(Serialize)]
pub struct PulledXCom {
    task_id: String,
    map_index: i32,
    value_json: String,
}

pub async fn pull_xcoms(Datastore(client): Datastore, body: Body) -> Result<Json<Vec<PulledXCom>>, ApiError> {
    let Pull { dag_id, run_id, task_ids, key, map_indexes, include_prior_dates, offset, limit } = body_as(body)?;
    let pull = xcoms::Pull {
        run: &RunKey { dag_id, run_id },
        task_ids: &task_ids,
        key: &key,
        map_indexes: map_indexes.as_deref(),
        include_prior_dates,
        offset,
        limit,
    };
    let xcoms = xcoms::pull(&*client, &pull).await?;
    // Typed, because `json!` would copy the values, which may have megabytes.
    let entry = |(task_id, map_index, value_json)| PulledXCom { task_id, map_index, value_json };
    Ok(Json(xcoms.into_iter().map(entry).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct CountXComs {
    dag_id: String,
    run_id: String,
    task_id: String,
    key: String,
}

pub async fn count_xcoms(Datastore(client): Datastore, body: Body) -> Result<Json<Value>, ApiError> {
    let CountXComs { dag_id, run_id, task_id, key } = body_as(body)?;
    let count = xcoms::count(&*client, &RunKey { dag_id, run_id }, &task_id, &key).await?;
    Ok(Json(json!({"count": count})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DeleteXCom {
    key: String,
}

pub async fn delete_xcom(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let DeleteXCom { key } = body_as(body)?;
    xcoms::delete(&*client, &try_key.instance, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewerPackage {
    name: String,
}

/// Returns whether the newest version of the task's DAG has a package, if the run has an older version.
pub async fn has_newer_package(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let NewerPackage { name } = body_as(body)?;
    let RunKey { dag_id, run_id } = &try_key.instance.run;
    let lock = environments::newer_than_run(&*client, &try_key.instance.run).await?;
    let exists = lock.is_some_and(|lock| lock.has_package(&name));
    Ok(Json(json!({"exists": exists, "dag_id": dag_id, "run_id": run_id})))
}

/// Returns the path of uv; `null` while it is being downloaded.
pub async fn uv(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let program =
        state.environments.uv().await.map_err(|reason| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, reason))?;
    Ok(Json(json!({"program": program})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct VariableKeys {
    prefix: Option<String>,
    limit: i64,
    offset: i64,
}

pub async fn variable_keys(Datastore(client): Datastore, body: Body) -> Result<Json<Value>, ApiError> {
    let VariableKeys { prefix, limit, offset } = body_as(body)?;
    let (keys, total) = variables::keys(&*client, prefix.as_deref(), limit.clamp(1, 10_000), offset.max(0)).await?;
    Ok(Json(json!({"keys": keys, "total_entries": total})))
}

//! XComs, with Airflow's names and shapes.

use super::dag_runs::unless_all;
use super::views;
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::instances;
use crate::engine::store::listing::Column;
use crate::engine::store::{StoreError, secrets, xcoms};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::listing::{Fields, page};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use deadpool_postgres::ClientWrapper;
use serde::Deserialize;
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

const FIELDS: Fields = Fields {
    order: &[
        ("key", Column::text("x.key")),
        ("dag_id", Column::text("x.dag_id")),
        ("run_id", Column::text("x.run_id")),
        ("task_id", Column::text("x.task_id")),
        ("map_index", Column::whole("x.map_index")),
        ("timestamp", Column::time("x.created_at")),
        ("run_after", Column::time("r.run_after")),
        ("logical_date", Column::time("r.logical_date")),
    ],
    patterns: &[
        ("xcom_key", "x.key"),
        ("dag_display_name", "x.dag_id"),
        ("run_id", "x.run_id"),
        ("task_id", "x.task_id"),
    ],
    ranges: &[("logical_date", Column::time("r.logical_date")), ("run_after", Column::time("r.run_after"))],
    exact: &[
        ("xcom_key", Column::text("x.key")),
        ("map_index", Column::whole("x.map_index")),
        ("map_index_filter", Column::whole("x.map_index")),
    ],
};

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    let client = state.database.get().await?;
    for (sql, id) in [("x.dag_id = {}", &dag_id), ("x.run_id = {}", &run_id), ("x.task_id = {}", &task_id)] {
        listing.conditions.maybe(sql, unless_all(id).map(str::to_owned));
    }
    let found = xcoms::list(&*client, listing).await?;
    Ok(Json(page("xcom_entries", found.rows.iter().map(views::xcom).collect(), found.total)))
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let of = instance(dag_id, run_id, task_id, params.map_index()?);
    let is_text = params.flag("stringify")?.unwrap_or(false);
    let client = state.database.get().await?;
    let Json(mut whole) = shown(&state, &client, &of, &key).await?;
    if is_text && !whole["value"].is_string() {
        whole["value"] = whole["value"].to_string().into();
    }
    Ok(Json(whole))
}

async fn shown(state: &AppState, client: &ClientWrapper, of: &TryKey, key: &str) -> Result<Json<Value>, ApiError> {
    let found = xcoms::get(client, &of.run, &of.task_id, of.map_index, key).await?;
    let value = found.value.as_deref().unwrap_or("null");
    let mut value: Value = serde_json::from_str(value).map_err(|error| ApiError::internal(&error))?;
    secrets::stored(client, &state.cipher).await?.mask_json(&mut value);
    let mut whole = views::xcom(&found);
    whole["value"] = value;
    Ok(Json(whole))
}

/// `map_index` is Airflow's -1 where nobody says another.
fn instance(dag_id: String, run_id: String, task_id: String, map_index: Option<i32>) -> TryKey {
    let map_index = map_index.unwrap_or(instances::NOT_MAPPED);
    TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number: 0 }
}

fn missing(key: &str) -> ApiError {
    let detail = format!("The XCom with key: `{key}` with mentioned task instance doesn't exist.");
    ApiError::new(StatusCode::NOT_FOUND, detail)
}

/// Whether there is one.
async fn is_there(client: &ClientWrapper, of: &TryKey, key: &str) -> Result<bool, ApiError> {
    match xcoms::get(client, &of.run, &of.task_id, of.map_index, key).await {
        Ok(_) => Ok(true),
        Err(StoreError::NotFound { .. }) => Ok(false),
        Err(error) => Err(error.into()),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct New {
    key: String,
    value: Value,
    #[serde(default)]
    map_index: Option<i32>,
}

pub async fn create(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    body: Body,
) -> Result<(StatusCode, Json<Value>), ApiError> {
    let New { key, value, map_index } = body_as(body)?;
    let of = instance(dag_id, run_id, task_id, map_index);
    let client = state.database.get().await?;
    instances::get(&*client, &of.run, &of.task_id, of.map_index).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            let (task_id, RunKey { dag_id, run_id }) = (&of.task_id, &of.run);
            let detail = format!("Task with ID: `{task_id}` not found in run `{run_id}` of dag: `{dag_id}`");
            ApiError::new(StatusCode::NOT_FOUND, detail)
        }
        other => other.into(),
    })?;
    if is_there(&client, &of, &key).await? {
        let detail = format!("The XCom with key: `{key}` with mentioned task instance already exists.");
        return Err(ApiError::new(StatusCode::CONFLICT, detail));
    }
    xcoms::push(&*client, &of, &key, &value.to_string()).await?;
    Ok((StatusCode::CREATED, shown(&state, &client, &of, &key).await?))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Update {
    value: Value,
    #[serde(default)]
    map_index: Option<i32>,
}

pub async fn update(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let Update { value, map_index } = body_as(body)?;
    let of = instance(dag_id, run_id, task_id, map_index);
    let client = state.database.get().await?;
    if !is_there(&client, &of, &key).await? {
        return Err(missing(&key));
    }
    xcoms::push(&*client, &of, &key, &value.to_string()).await?;
    shown(&state, &client, &of, &key).await
}

pub async fn delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let of = instance(dag_id, run_id, task_id, params.map_index()?);
    let client = state.database.get().await?;
    if !is_there(&client, &of, &key).await? {
        return Err(missing(&key));
    }
    xcoms::delete(&*client, &of, &key).await?;
    Ok(StatusCode::NO_CONTENT)
}

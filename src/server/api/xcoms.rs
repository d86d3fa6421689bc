//! XComs, with Airflow's names and shapes.

use super::dag_run_lists::unless_all;
use super::views::Stamp;
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::instances;
use crate::engine::store::listing::Column;
use crate::engine::store::xcoms::{self, XCom};
use crate::engine::store::{StoreError, secrets};
use crate::server::api_error::ApiError;
use crate::server::body::Body;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::openapi::answers::{Created, NoContent};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use deadpool_postgres::ClientWrapper;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

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
    usual: &["dag_id", "task_id", "run_id", "map_index", "key"],
    patterns: &[
        ("xcom_key", "x.key"),
        ("dag_display_name", "x.dag_id"),
        ("run_id", "x.run_id"),
        ("task_id", "x.task_id"),
    ],
    ranges: &[("logical_date", Column::time("r.logical_date")), ("run_after", Column::time("r.run_after"))],
    exact: &[("xcom_key", Column::text("x.key")), ("map_index_filter", Column::whole("x.map_index"))],
    ..NOTHING
};

pub struct OfEntries;

impl Query for OfEntries {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[Parameter::new("map_index", Kind::MapIndex)];
}

/// An XCom, and with more what it says.
#[derive(Serialize, JsonSchema)]
pub struct XComResponse {
    key: String,
    timestamp: Stamp,
    logical_date: Option<Stamp>,
    map_index: i32,
    task_id: String,
    dag_id: String,
    run_id: String,
    dag_display_name: String,
    task_display_name: String,
    run_after: Stamp,
}

collection! { XComCollectionResponse { xcom_entries: XComResponse } }

#[derive(Serialize, JsonSchema)]
pub struct XComResponseNative {
    #[serde(flatten)]
    entry: XComResponse,
    value: Value,
}

#[derive(Serialize, JsonSchema)]
pub struct XComResponseString {
    #[serde(flatten)]
    entry: XComResponse,
    value: Option<String>,
}

/// The value as it is, or as a text.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Shown {
    Native(XComResponseNative),
    Text(XComResponseString),
}

fn view(found: XCom) -> XComResponse {
    XComResponse {
        key: found.key,
        timestamp: Stamp(found.created_at),
        logical_date: found.logical_date.map(Stamp),
        map_index: found.map_index,
        task_display_name: found.task_id.clone(),
        task_id: found.task_id,
        dag_display_name: found.run.dag_id.clone(),
        dag_id: found.run.dag_id,
        run_id: found.run.run_id,
        run_after: Stamp(found.run_after),
    }
}

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Asked<OfEntries>,
) -> Result<Json<XComCollectionResponse>, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    listing.conditions.maybe("x.map_index = {}", params.map_index()?);
    let client = state.database.get().await?;
    for (sql, id) in [("x.dag_id = {}", &dag_id), ("x.run_id = {}", &run_id), ("x.task_id = {}", &task_id)] {
        listing.conditions.maybe(sql, unless_all(id).map(str::to_owned));
    }
    let found = xcoms::list(&*client, listing).await?;
    Ok(Json(found.map(view).into()))
}

const MAP_INDEX: Parameter = Parameter::new("map_index", Kind::MapIndex).or("-1");

pub struct OfEntry;

impl Query for OfEntry {
    const OTHERS: &'static [Parameter] = &[
        MAP_INDEX,
        // A value is kept as JSON, which needs no more to be read.
        Parameter::new("deserialize", Kind::Flag).or("false"),
        Parameter::new("stringify", Kind::Flag).or("false"),
    ];
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: Asked<OfEntry>,
) -> Result<Json<Shown>, ApiError> {
    let of = instance(dag_id, run_id, task_id, params.map_index()?);
    let is_text = params.flag("stringify")?.unwrap_or(false);
    let client = state.database.get().await?;
    let found = shown(&state, &client, &of, &key).await?;
    if !is_text {
        return Ok(Json(Shown::Native(found)));
    }
    let text = match found.value {
        Value::String(text) => text,
        other => other.to_string(),
    };
    Ok(Json(Shown::Text(XComResponseString { entry: found.entry, value: Some(text) })))
}

async fn shown(
    state: &AppState,
    client: &ClientWrapper,
    of: &TryKey,
    key: &str,
) -> Result<XComResponseNative, ApiError> {
    let found = xcoms::get(client, &of.run, &of.task_id, of.map_index, key).await?;
    let value = found.value.as_deref().unwrap_or("null");
    let mut value: Value = serde_json::from_str(value).map_err(|error| ApiError::internal(&error))?;
    secrets::stored(client, &state.cipher).await?.mask_json(&mut value);
    Ok(XComResponseNative { entry: view(found), value })
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

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XComCreateBody {
    key: String,
    value: Value,
    #[serde(default = "not_mapped")]
    map_index: i32,
}

fn not_mapped() -> i32 {
    instances::NOT_MAPPED
}

pub async fn create(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    Body(body): Body<XComCreateBody>,
) -> Result<Created<XComResponseNative>, ApiError> {
    let XComCreateBody { key, value, map_index } = body;
    let of = instance(dag_id, run_id, task_id, Some(map_index));
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
    Ok(Created(shown(&state, &client, &of, &key).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XComUpdateBody {
    value: Value,
    #[serde(default = "not_mapped")]
    map_index: i32,
}

pub async fn update(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    Body(body): Body<XComUpdateBody>,
) -> Result<Json<XComResponseNative>, ApiError> {
    let XComUpdateBody { value, map_index } = body;
    let of = instance(dag_id, run_id, task_id, Some(map_index));
    let client = state.database.get().await?;
    if !is_there(&client, &of, &key).await? {
        return Err(missing(&key));
    }
    xcoms::push(&*client, &of, &key, &value.to_string()).await?;
    Ok(Json(shown(&state, &client, &of, &key).await?))
}

pub struct OfDeleted;

impl Query for OfDeleted {
    const OTHERS: &'static [Parameter] = &[MAP_INDEX];
}

pub async fn delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: Asked<OfDeleted>,
) -> Result<NoContent, ApiError> {
    let of = instance(dag_id, run_id, task_id, params.map_index()?);
    let client = state.database.get().await?;
    if !is_there(&client, &of, &key).await? {
        return Err(missing(&key));
    }
    xcoms::delete(&*client, &of, &key).await?;
    Ok(NoContent)
}

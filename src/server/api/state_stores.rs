//! What tasks keep for themselves and for assets, with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::asset_lists;
use crate::engine::store::instances;
use crate::engine::store::listing::Listing;
use crate::engine::store::states::{self, Kept};
use crate::server::api_error::ApiError;
use crate::server::body::Body;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::openapi::answers::NoContent;
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Instance = Segments<(String, String, String)>;
type InstanceAndKey = Segments<(String, String, String, String)>;

/// Airflow's `[state_store] default_retention_days`.
const RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Airflow's `[state_store] max_value_storage_bytes`.
const MOST_BYTES: usize = 65_535;
/// Of nobody's try.
const API: &str = "";

fn key_missing(what: &str, key: &str) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("{what} state store key '{key}' not found"))
}

/// A moment, the word for what is usual, or null for never.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "what is none of these is refused in Airflow's words")]
enum Expiry {
    At(Timestamp),
    Usual(Usual),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum Usual {
    Default,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskStateStoreBody {
    value: Value,
    #[serde(default = "usual")]
    #[schemars(with = "Option<Expiry>")]
    expires_at: Value,
}

fn usual() -> Value {
    "default".into()
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskStateStorePatchBody {
    value: Value,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AssetStateStoreBody {
    value: Value,
}

/// As JSON. Airflow keeps no null.
fn checked(value: &Value) -> Result<String, ApiError> {
    if value.is_null() {
        return Err(ApiError::unprocessable(&["body", "value"], "value_error", "Value error, value cannot be null"));
    }
    let text = value.to_string();
    if text.len() > MOST_BYTES {
        let message = format!("Value error, value exceeds max_value_storage_bytes ({MOST_BYTES})");
        return Err(ApiError::unprocessable(&["body", "value"], "value_error", message));
    }
    Ok(text)
}

fn expiry(value: &Value) -> Result<Option<Timestamp>, ApiError> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) if word == "default" => Ok(Some(Timestamp::now() + RETENTION)),
        other => other.as_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            let message = "Input should be a date with a time zone, null or 'default'";
            ApiError::unprocessable(&["body", "expires_at"], "timezone_aware", message)
        }),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct TaskStateStoreResponse {
    key: String,
    value: Value,
    updated_at: Stamp,
    expires_at: Option<Stamp>,
}

collection! { TaskStateStoreCollectionResponse { task_state_store: TaskStateStoreResponse } }

fn of_task(one: Kept) -> TaskStateStoreResponse {
    TaskStateStoreResponse {
        key: one.key,
        value: one.value,
        updated_at: Stamp(one.updated_at),
        expires_at: one.expires_at.map(Stamp),
    }
}

/// Who may have written to the store of an asset.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AssetStateStoreWriterKind {
    Task,
    #[expect(dead_code, reason = "watchers have no store yet")]
    Watcher,
    Api,
}

#[derive(Serialize, JsonSchema)]
struct AssetStateStoreLastUpdatedBy {
    kind: AssetStateStoreWriterKind,
    dag_id: Option<String>,
    run_id: Option<String>,
    task_id: Option<String>,
    map_index: Option<i32>,
}

#[derive(Serialize, JsonSchema)]
pub struct AssetStateStoreResponse {
    key: String,
    value: Value,
    updated_at: Stamp,
    last_updated_by: Option<AssetStateStoreLastUpdatedBy>,
}

collection! { AssetStateStoreCollectionResponse { asset_state_store: AssetStateStoreResponse } }

fn of_asset(one: Kept) -> AssetStateStoreResponse {
    let by = |by: TryKey| {
        let is_api = by.run.dag_id == API;
        let unless_api = |id: String| (!is_api).then_some(id);
        AssetStateStoreLastUpdatedBy {
            kind: if is_api { AssetStateStoreWriterKind::Api } else { AssetStateStoreWriterKind::Task },
            dag_id: unless_api(by.run.dag_id),
            run_id: unless_api(by.run.run_id),
            task_id: unless_api(by.task_id),
            map_index: (!is_api).then_some(by.map_index),
        }
    };
    AssetStateStoreResponse {
        key: one.key,
        value: one.value,
        updated_at: Stamp(one.updated_at),
        last_updated_by: one.by.map(by),
    }
}

const MAP_INDEX: Parameter = Parameter::new("map_index", Kind::MapIndex).or("-1");

pub struct OfInstance;

impl Query for OfInstance {
    const OTHERS: &'static [Parameter] = &[MAP_INDEX];
}

pub struct OfTaskStore;

impl Query for OfTaskStore {
    const LIST: Option<&'static Fields> = Some(&NOTHING);
    const OTHERS: &'static [Parameter] = &[MAP_INDEX];
}

pub struct OfCleared;

impl Query for OfCleared {
    const OTHERS: &'static [Parameter] = &[MAP_INDEX, Parameter::new("all_map_indices", Kind::Flag).or("false")];
}

pub struct OfAssetStore;

impl Query for OfAssetStore {
    const LIST: Option<&'static Fields> = Some(&NOTHING);
}

fn instance(ids: (String, String, String), params: &Params) -> Result<TryKey, ApiError> {
    let (dag_id, run_id, task_id) = ids;
    let map_index = params.map_index()?.unwrap_or(instances::NOT_MAPPED);
    Ok(TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, try_number: 0 })
}

async fn with_instance(state: &AppState, of: &TryKey, every_index: bool) -> Result<(), ApiError> {
    let client = state.database.get().await?;
    if !states::has_instance(&*client, of, every_index).await? {
        let TryKey { run: RunKey { dag_id, run_id }, task_id, map_index, .. } = of;
        let by = if every_index { "all_map_indices=True".to_owned() } else { format!("map_index={map_index}") };
        let detail =
            format!("Task instance not found for dag_id='{dag_id}', run_id='{run_id}', task_id='{task_id}', {by}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    Ok(())
}

pub async fn task_list(
    State(state): Shared,
    Segments(ids): Instance,
    params: Asked<OfTaskStore>,
) -> Result<Json<TaskStateStoreCollectionResponse>, ApiError> {
    let (of, listing) = (instance(ids, &params)?, params.listing(&NOTHING)?);
    let found = states::list_of_task(&*state.database.get().await?, &of, listing).await?;
    Ok(Json(found.map(of_task).into()))
}

async fn kept_of_task(state: &AppState, of: &TryKey, key: &str) -> Result<Kept, ApiError> {
    let mut listing = Listing::default();
    listing.conditions.with("s.key = {}", key.to_owned());
    let found = states::list_of_task(&*state.database.get().await?, of, listing).await?;
    found.rows.into_iter().next().ok_or_else(|| key_missing("Task", key))
}

pub async fn task_get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Asked<OfInstance>,
) -> Result<Json<TaskStateStoreResponse>, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    Ok(Json(of_task(kept_of_task(&state, &of, &key).await?)))
}

pub async fn task_set(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Asked<OfInstance>,
    Body(body): Body<TaskStateStoreBody>,
) -> Result<NoContent, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    let TaskStateStoreBody { value, expires_at } = body;
    let (value, expires_at) = (checked(&value)?, expiry(&expires_at)?);
    with_instance(&state, &of, false).await?;
    states::set_of_task(&*state.database.get().await?, &of, &key, &value, expires_at).await?;
    Ok(NoContent)
}

pub async fn task_patch(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Asked<OfInstance>,
    Body(TaskStateStorePatchBody { value }): Body<TaskStateStorePatchBody>,
) -> Result<Json<Value>, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    let value = checked(&value)?;
    with_instance(&state, &of, false).await?;
    let before = kept_of_task(&state, &of, &key).await?;
    states::set_of_task(&*state.database.get().await?, &of, &key, &value, before.expires_at).await?;
    Ok(Json(Value::Null))
}

pub async fn task_delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Asked<OfInstance>,
) -> Result<NoContent, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    with_instance(&state, &of, false).await?;
    states::delete_of_task(&*state.database.get().await?, &of, Some(&key)).await?;
    Ok(NoContent)
}

pub async fn task_clear(
    State(state): Shared,
    Segments(ids): Instance,
    params: Asked<OfCleared>,
) -> Result<NoContent, ApiError> {
    let of = instance(ids, &params)?;
    let every_index = params.flag("all_map_indices")?.unwrap_or(false);
    with_instance(&state, &of, every_index).await?;
    let client = state.database.get().await?;
    if every_index {
        states::delete_of_all_indexes(&*client, &of).await?;
    } else {
        states::delete_of_task(&*client, &of, None).await?;
    }
    Ok(NoContent)
}

async fn with_asset(state: &AppState, id: i64) -> Result<(), ApiError> {
    let found = asset_lists::get(&*state.database.get().await?, id).await?;
    found.map(drop).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("Asset with id {id} not found")))
}

pub async fn asset_list(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: Asked<OfAssetStore>,
) -> Result<Json<AssetStateStoreCollectionResponse>, ApiError> {
    let listing = params.listing(&NOTHING)?;
    with_asset(&state, id).await?;
    let found = states::list_of_asset(&*state.database.get().await?, id, listing).await?;
    Ok(Json(found.map(of_asset).into()))
}

pub async fn asset_get(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
) -> Result<Json<AssetStateStoreResponse>, ApiError> {
    with_asset(&state, id).await?;
    let mut listing = Listing::default();
    listing.conditions.with("s.key = {}", key.clone());
    let found = states::list_of_asset(&*state.database.get().await?, id, listing).await?;
    Ok(Json(of_asset(found.rows.into_iter().next().ok_or_else(|| key_missing("Asset", &key))?)))
}

pub async fn asset_set(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
    Body(AssetStateStoreBody { value }): Body<AssetStateStoreBody>,
) -> Result<NoContent, ApiError> {
    let value = checked(&value)?;
    with_asset(&state, id).await?;
    let run = RunKey { dag_id: API.to_owned(), run_id: API.to_owned() };
    let by = TryKey { run, task_id: API.to_owned(), map_index: instances::NOT_MAPPED, try_number: 0 };
    states::set_of_asset(&*state.database.get().await?, id, &key, &value, &by).await?;
    Ok(NoContent)
}

pub async fn asset_delete(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
) -> Result<NoContent, ApiError> {
    with_asset(&state, id).await?;
    states::delete_of_asset(&*state.database.get().await?, id, Some(&key)).await?;
    Ok(NoContent)
}

pub async fn asset_clear(State(state): Shared, Segments(id): Segments<i64>) -> Result<NoContent, ApiError> {
    with_asset(&state, id).await?;
    states::delete_of_asset(&*state.database.get().await?, id, None).await?;
    Ok(NoContent)
}

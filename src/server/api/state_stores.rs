//! What tasks keep for themselves and for assets, with Airflow's names and shapes.

use super::views::{maybe, stamp};
use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::asset_lists;
use crate::engine::store::instances;
use crate::engine::store::listing::Listing;
use crate::engine::store::states::{self, Kept};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::listing::{NOTHING, page};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use jiff::{SignedDuration, Timestamp};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;
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

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewValue {
    value: Value,
    #[serde(default = "usual")]
    expires_at: Value,
}

fn usual() -> Value {
    "default".into()
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct ValueAlone {
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

fn of_task(one: &Kept) -> Value {
    json!({
        "key": one.key, "value": one.value, "updated_at": stamp(one.updated_at), "expires_at": maybe(one.expires_at),
    })
}

fn of_asset(one: &Kept) -> Value {
    let by = one.by.as_ref().map(|by| match by.run.dag_id.as_str() {
        API => json!({"kind": "api"}),
        dag_id => json!({
            "kind": "task", "dag_id": dag_id, "run_id": by.run.run_id, "task_id": by.task_id, "map_index": by.map_index,
        }),
    });
    json!({"key": one.key, "value": one.value, "updated_at": stamp(one.updated_at), "last_updated_by": by})
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

pub async fn task_list(State(state): Shared, Segments(ids): Instance, params: Params) -> Result<Json<Value>, ApiError> {
    let (of, listing) = (instance(ids, &params)?, params.listing(&NOTHING)?);
    let found = states::list_of_task(&*state.database.get().await?, &of, listing).await?;
    Ok(Json(page("task_state_store", found.rows.iter().map(of_task).collect(), found.total)))
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
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    Ok(Json(of_task(&kept_of_task(&state, &of, &key).await?)))
}

pub async fn task_set(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Params,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    let NewValue { value, expires_at } = body_as(body)?;
    let (value, expires_at) = (checked(&value)?, expiry(&expires_at)?);
    with_instance(&state, &of, false).await?;
    states::set_of_task(&*state.database.get().await?, &of, &key, &value, expires_at).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn task_patch(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Params,
    body: Body,
) -> Result<Json<Value>, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    let ValueAlone { value } = body_as(body)?;
    let value = checked(&value)?;
    with_instance(&state, &of, false).await?;
    let before = kept_of_task(&state, &of, &key).await?;
    states::set_of_task(&*state.database.get().await?, &of, &key, &value, before.expires_at).await?;
    Ok(Json(Value::Null))
}

pub async fn task_delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: Params,
) -> Result<StatusCode, ApiError> {
    let of = instance((dag_id, run_id, task_id), &params)?;
    with_instance(&state, &of, false).await?;
    states::delete_of_task(&*state.database.get().await?, &of, Some(&key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn task_clear(State(state): Shared, Segments(ids): Instance, params: Params) -> Result<StatusCode, ApiError> {
    let of = instance(ids, &params)?;
    let every_index = params.flag("all_map_indices")?.unwrap_or(false);
    with_instance(&state, &of, every_index).await?;
    let client = state.database.get().await?;
    if every_index {
        states::delete_of_all_indexes(&*client, &of).await?;
    } else {
        states::delete_of_task(&*client, &of, None).await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

async fn with_asset(state: &AppState, id: i64) -> Result<(), ApiError> {
    let found = asset_lists::get(&*state.database.get().await?, id).await?;
    found.map(drop).ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("Asset with id {id} not found")))
}

pub async fn asset_list(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&NOTHING)?;
    with_asset(&state, id).await?;
    let found = states::list_of_asset(&*state.database.get().await?, id, listing).await?;
    Ok(Json(page("asset_state_store", found.rows.iter().map(of_asset).collect(), found.total)))
}

pub async fn asset_get(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
) -> Result<Json<Value>, ApiError> {
    with_asset(&state, id).await?;
    let mut listing = Listing::default();
    listing.conditions.with("s.key = {}", key.clone());
    let found = states::list_of_asset(&*state.database.get().await?, id, listing).await?;
    Ok(Json(of_asset(found.rows.first().ok_or_else(|| key_missing("Asset", &key))?)))
}

pub async fn asset_set(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
    body: Body,
) -> Result<StatusCode, ApiError> {
    let ValueAlone { value } = body_as(body)?;
    let value = checked(&value)?;
    with_asset(&state, id).await?;
    let run = RunKey { dag_id: API.to_owned(), run_id: API.to_owned() };
    let by = TryKey { run, task_id: API.to_owned(), map_index: instances::NOT_MAPPED, try_number: 0 };
    states::set_of_asset(&*state.database.get().await?, id, &key, &value, &by).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn asset_delete(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
) -> Result<StatusCode, ApiError> {
    with_asset(&state, id).await?;
    states::delete_of_asset(&*state.database.get().await?, id, Some(&key)).await?;
    Ok(StatusCode::NO_CONTENT)
}

pub async fn asset_clear(State(state): Shared, Segments(id): Segments<i64>) -> Result<StatusCode, ApiError> {
    with_asset(&state, id).await?;
    states::delete_of_asset(&*state.database.get().await?, id, None).await?;
    Ok(StatusCode::NO_CONTENT)
}

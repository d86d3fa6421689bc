//! State stores of tasks and assets, with Airflow's names and shapes.

use crate::api::instance_path::instance_key_from_query;
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::views::Uuid;
use crate::http::query::Paging;
use jiff::SignedDuration;
use leoflow_engine::store::asset::asset_lists;
use leoflow_engine::store::instance::states::{self, MapIndexes, StateEntry, StateFilter};

type Instance = Segments<TaskPath>;
type InstanceAndKey = Segments<(String, String, String, String)>;

/// Airflow's `[state_store] default_retention_days`.
const DEFAULT_RETENTION: SignedDuration = SignedDuration::from_hours(30 * 24);
/// Airflow's `[state_store] max_value_storage_bytes`.
const MAX_VALUE_BYTES: usize = 65_535;

fn key_not_found(store_kind: &str, key: &str) -> ApiError {
    ApiError::not_found(format!("{store_kind} state store key '{key}' not found"))
}

/// A time, `"default"`, or null for never.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "only for the JSON schema; `expiry` parses the value")]
enum Expiry {
    At(Timestamp),
    DefaultExpiry(DefaultExpiry),
}

#[derive(Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
enum DefaultExpiry {
    Default,
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct TaskStateStoreBody {
    value: Value,
    #[serde(default = "default_expiry")]
    #[schemars(with = "Option<Expiry>")]
    expires_at: Value,
}

fn default_expiry() -> Value {
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

/// Serializes the value. Airflow rejects null.
fn to_stored_value(value: &Value) -> ApiResult<String> {
    if value.is_null() {
        return Err(ApiError::unprocessable(&["body", "value"], "value_error", "Value error, value cannot be null"));
    }
    let text = value.to_string();
    if text.len() > MAX_VALUE_BYTES {
        let message = format!("Value error, value exceeds max_value_storage_bytes ({MAX_VALUE_BYTES})");
        return Err(ApiError::unprocessable(&["body", "value"], "value_error", message));
    }
    Ok(text)
}

/// Parses the time at which a value expires; `None` for never.
fn expiry(value: &Value) -> ApiResult<Option<Timestamp>> {
    match value {
        Value::Null => Ok(None),
        Value::String(word) if word == "default" => Ok(Some(Timestamp::now() + DEFAULT_RETENTION)),
        other => other.as_str().and_then(|text| text.parse().ok()).map(Some).ok_or_else(|| {
            let message = "Input should be a date with a time zone, null or 'default'";
            ApiError::unprocessable(&["body", "expires_at"], "timezone_aware", message)
        }),
    }
}

view! {
    pub struct TaskStateStoreResponse;
    fn task_response(entry: StateEntry) {
        key: String,
        value: Value,
        updated_at: Stamp = Stamp(entry.updated_at),
        expires_at: Option<Stamp> = entry.expires_at.map(Stamp),
    }
}

collection! { TaskStateStoreCollectionResponse { task_state_store: TaskStateStoreResponse } }

/// Kinds of writers to an asset's store.
#[derive(Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
enum AssetStateStoreWriterKind {
    Task,
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
    #[schemars(with = "Option<Uuid>")]
    task_instance_id: Option<String>,
    #[schemars(with = "Uuid")]
    region_id: String,
    region_index: i32,
    try_number: Option<i32>,
}

fn last_updated_by(writer: InstanceKey) -> AssetStateStoreLastUpdatedBy {
    let kind = match &writer {
        writer if *writer == states::key_of_writer(states::API) => AssetStateStoreWriterKind::Api,
        writer if *writer == states::key_of_writer(states::WATCHER) => AssetStateStoreWriterKind::Watcher,
        _ => AssetStateStoreWriterKind::Task,
    };
    let (region_id, region_index) = regions::of_instance(&writer);
    let is_task = matches!(kind, AssetStateStoreWriterKind::Task);
    let of_task = |id: String| is_task.then_some(id);
    AssetStateStoreLastUpdatedBy {
        kind,
        dag_id: of_task(writer.run.dag_id),
        run_id: of_task(writer.run.run_id),
        task_id: of_task(writer.task_id),
        map_index: is_task.then_some(writer.position.map_index()),
        task_instance_id: None,
        region_id,
        region_index,
        try_number: None,
    }
}

view! {
    pub struct AssetStateStoreResponse;
    fn asset_response(entry: StateEntry) {
        key: String,
        value: Value,
        updated_at: Stamp = Stamp(entry.updated_at),
        last_updated_by: Option<AssetStateStoreLastUpdatedBy> = Some(last_updated_by(entry.by)),
    }
}

collection! { AssetStateStoreCollectionResponse { asset_state_store: AssetStateStoreResponse } }

const MAP_INDEX: Parameter = Parameter::new("map_index", Kind::Whole).or("-1");

query! { pub InstanceQuery { MAP_INDEX } }

query! { pub TaskStoreQuery(Paging) { MAP_INDEX } }

query! { pub ClearQuery { Parameter::new("map_index", Kind::MapIndex).or("-1"), Parameter::new("all_map_indices", Kind::Flag).or("false") } }

query! { pub AssetStoreQuery(Paging) }

/// 404 unless the instance exists, or with `MapIndexes::All` any instance of the task.
async fn require_instance(state: &AppState, instance: &InstanceKey, map_indexes: MapIndexes) -> ApiResult<()> {
    let client = state.core.database.get().await?;
    if !states::has_instance(&*client, instance, map_indexes).await? {
        let InstanceKey { run: RunKey { dag_id, run_id }, task_id, position } = instance;
        let map_index = position.map_index();
        let index_text = match map_indexes {
            MapIndexes::All => "all_map_indices=True".to_owned(),
            MapIndexes::Given => format!("map_index={map_index}"),
        };
        let detail = format!(
            "Task instance not found for dag_id='{dag_id}', run_id='{run_id}', task_id='{task_id}', {index_text}"
        );
        return Err(ApiError::not_found(detail));
    }
    Ok(())
}

pub async fn task_list(
    State(state): Shared,
    Segments(ids): Instance,
    params: QueryParams<TaskStoreQuery>,
) -> JsonResult<TaskStateStoreCollectionResponse> {
    let (instance, listing) = (instance_key_from_query(ids, &params)?, Listing::default().with_page(params.page()?));
    let page = states::list_of_task(&*state.core.database.get().await?, &instance, listing).await?;
    Ok(Json(page.map(task_response).into()))
}

async fn task_entry(state: &AppState, instance: &InstanceKey, key: &str) -> ApiResult<StateEntry> {
    let listing = Listing::of(StateFilter::of_key(key));
    let page = states::list_of_task(&*state.core.database.get().await?, instance, listing).await?;
    page.rows.into_iter().next().ok_or_else(|| key_not_found("Task", key))
}

pub async fn task_get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: QueryParams<InstanceQuery>,
) -> JsonResult<TaskStateStoreResponse> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    Ok(Json(task_response(task_entry(&state, &instance, &key).await?)))
}

pub async fn task_set(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: QueryParams<InstanceQuery>,
    Body(body): Body<TaskStateStoreBody>,
) -> ApiResult<NoContent> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    let TaskStateStoreBody { value, expires_at } = body;
    let (value, expires_at) = (to_stored_value(&value)?, expiry(&expires_at)?);
    require_instance(&state, &instance, MapIndexes::Given).await?;
    states::set_of_task(&*state.core.database.get().await?, &instance, &key, &value, expires_at).await?;
    Ok(NoContent)
}

pub async fn task_patch(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: QueryParams<InstanceQuery>,
    Body(TaskStateStorePatchBody { value }): Body<TaskStateStorePatchBody>,
) -> JsonResult<Value> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    let value = to_stored_value(&value)?;
    require_instance(&state, &instance, MapIndexes::Given).await?;
    let stored = task_entry(&state, &instance, &key).await?;
    states::set_of_task(&*state.core.database.get().await?, &instance, &key, &value, stored.expires_at).await?;
    Ok(Json(Value::Null))
}

pub async fn task_delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): InstanceAndKey,
    params: QueryParams<InstanceQuery>,
) -> ApiResult<NoContent> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    require_instance(&state, &instance, MapIndexes::Given).await?;
    states::delete_of_task(&*state.core.database.get().await?, &instance, Some(&key)).await?;
    Ok(NoContent)
}

pub async fn task_clear(
    State(state): Shared,
    Segments(ids): Instance,
    params: QueryParams<ClearQuery>,
) -> ApiResult<NoContent> {
    let instance = instance_key_from_query(ids, &params)?;
    let is_every_index = params.flag("all_map_indices")?.unwrap_or(false);
    require_instance(&state, &instance, if is_every_index { MapIndexes::All } else { MapIndexes::Given }).await?;
    let client = state.core.database.get().await?;
    if is_every_index {
        states::delete_of_all_indexes(&*client, &instance).await?;
    } else {
        states::delete_of_task(&*client, &instance, None).await?;
    }
    Ok(NoContent)
}

/// 404 unless the asset exists.
async fn require_asset(state: &AppState, id: i64) -> ApiResult<()> {
    let asset = asset_lists::get(&*state.core.database.get().await?, id).await?;
    asset.map(drop).ok_or_else(|| ApiError::not_found(format!("Asset with id {id} not found")))
}

pub async fn asset_list(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: QueryParams<AssetStoreQuery>,
) -> JsonResult<AssetStateStoreCollectionResponse> {
    let listing = Listing::default().with_page(params.page()?);
    require_asset(&state, id).await?;
    let page = states::list_of_asset(&*state.core.database.get().await?, id, listing).await?;
    Ok(Json(page.map(asset_response).into()))
}

pub async fn asset_get(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
) -> JsonResult<AssetStateStoreResponse> {
    require_asset(&state, id).await?;
    let listing = Listing::of(StateFilter::of_key(&key));
    let page = states::list_of_asset(&*state.core.database.get().await?, id, listing).await?;
    Ok(Json(asset_response(page.rows.into_iter().next().ok_or_else(|| key_not_found("Asset", &key))?)))
}

pub async fn asset_set(
    State(state): Shared,
    Segments((id, key)): Segments<(i64, String)>,
    Body(AssetStateStoreBody { value }): Body<AssetStateStoreBody>,
) -> ApiResult<NoContent> {
    let value = to_stored_value(&value)?;
    require_asset(&state, id).await?;
    let writer = states::key_of_writer(states::API);
    states::set_of_asset(&*state.core.database.get().await?, id, &key, &value, &writer).await?;
    Ok(NoContent)
}

pub async fn asset_delete(State(state): Shared, Segments((id, key)): Segments<(i64, String)>) -> ApiResult<NoContent> {
    require_asset(&state, id).await?;
    states::delete_of_asset(&*state.core.database.get().await?, id, Some(&key)).await?;
    Ok(NoContent)
}

pub async fn asset_clear(State(state): Shared, Segments(id): Segments<i64>) -> ApiResult<NoContent> {
    require_asset(&state, id).await?;
    states::delete_of_asset(&*state.core.database.get().await?, id, None).await?;
    Ok(NoContent)
}

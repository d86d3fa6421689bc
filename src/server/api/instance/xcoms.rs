//! XComs, with Airflow's names and shapes.

use crate::api::instance_path::instance_key_from_query;
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::run::dag_run_lists::specific_id;
use crate::api::views::Uuid;
use crate::http::openapi::answers::Written;
use axum::body::Bytes;
use deadpool_postgres::ClientWrapper;
use leoflow_engine::model::keys::{InstanceKey, NOT_MAPPED, Position, RunKey};
use leoflow_engine::store::instance::instances;
use leoflow_engine::store::instance::xcoms::{self, XCom, XComField, XComFilter};
use leoflow_engine::store::secret::secrets;

const FIELDS: Fields<XComField> = Fields {
    order: &[
        ("key", XComField::Key),
        ("dag_id", XComField::DagId),
        ("run_id", XComField::RunId),
        ("task_id", XComField::TaskId),
        ("map_index", XComField::MapIndex),
        // All are in one region.
        ("region_id", XComField::DagId),
        ("region_index", XComField::MapIndex),
        ("timestamp", XComField::CreatedAt),
        ("run_after", XComField::RunAfter),
        ("logical_date", XComField::LogicalDate),
    ],
    default_order: &["dag_id", "task_id", "run_id", "region_id", "region_index", "key"],
    patterns: &[
        ("xcom_key", XComField::Key),
        ("dag_display_name", XComField::DagId),
        ("run_id", XComField::RunId),
        ("task_id", XComField::TaskId),
    ],
    ranges: &[("logical_date", XComField::LogicalDate), ("run_after", XComField::RunAfter)],
    exact: &[("xcom_key", XComField::Key), ("map_index_filter", XComField::MapIndex)],
    ..Fields::NONE
};

query! {
    pub EntriesQuery(FIELDS) {
        Parameter::new("map_index", Kind::MapIndex),
        // Those of loops, which do not exist.
        Parameter::new("exclude_internal_keys", Kind::Flag).or("false"),
        Parameter::new("teams", Kind::Texts),
    }
}

view! {
    /// An XCom entry without its value.
    pub struct XComResponse;
    fn response(xcom: XCom) {
        key: String,
        timestamp: Stamp = Stamp(xcom.created_at),
        logical_date: Option<Stamp> = xcom.logical_date.map(Stamp),
        map_index: i32 = xcom.instance.position.map_index(),
        #[schemars(with = "Uuid")]
        region_id: String = regions::of_instance(&xcom.instance).0,
        region_index: i32 = regions::of_instance(&xcom.instance).1,
        team_name: Option<String> = None,
        task_id: String = xcom.instance.task_id.clone(),
        dag_id: String = xcom.instance.run.dag_id.clone(),
        run_id: String = xcom.instance.run.run_id,
        dag_display_name: String = xcom.instance.run.dag_id,
        task_display_name: String = xcom.instance.task_id,
        run_after: Stamp = Stamp(xcom.run_after),
    }
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

/// The value as JSON, or as text.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "describes the response, which `get` writes without it")]
pub enum GetXComResponse {
    Native(XComResponseNative),
    Text(XComResponseString),
}

pub async fn list(
    Datastore(client): Datastore,
    Segments((dag_id, run_id, task_id)): Segments<TaskPath>,
    params: QueryParams<EntriesQuery>,
) -> JsonResult<XComCollectionResponse> {
    let mut listing = params.listing(&FIELDS)?;
    listing.filter = XComFilter {
        dag_id: specific_id(&dag_id).map(str::to_owned),
        run_id: specific_id(&run_id).map(str::to_owned),
        task_id: specific_id(&task_id).map(str::to_owned),
        position: params.position()?,
    };
    let page = xcoms::list(&*client, listing).await?;
    Ok(Json(page.map(response).into()))
}

const MAP_INDEX: Parameter = Parameter::new("map_index", Kind::Whole).or("-1");

query! {
    pub EntryQuery {
        MAP_INDEX,
        // Values are stored as JSON, so there is nothing to deserialize.
        Parameter::new("deserialize", Kind::Flag).or("false"),
        Parameter::new("stringify", Kind::Flag).or("false"),
    }
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: QueryParams<EntryQuery>,
) -> ApiResult<Written<GetXComResponse>> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    let is_text = params.flag("stringify")?.unwrap_or(false);
    let client = state.core.database.get().await?;
    let (entry, json) = load_entry(&state, &client, &instance, &key).await?;
    drop(client);
    let json = if is_text { json_string(json)? } else { json };
    Written::with_field(entry, "value", json).map_err(|error| ApiError::internal(&error))
}

/// Reads an XCom and its value as JSON text, in which secrets are masked.
async fn load_entry(
    state: &AppState,
    client: &ClientWrapper,
    instance: &InstanceKey,
    key: &str,
) -> ApiResult<(XComResponse, Bytes)> {
    let (xcom, text) = xcoms::get(client, instance, key).await?;
    let masked = secrets::stored(client, &state.core.cipher).await?.mask_json_text(text.as_str());
    Ok((response(xcom), masked.map_or_else(|| Bytes::from_owner(text), Bytes::from)))
}

/// Returns JSON as a JSON string that contains it, without blanks between its parts; a string as it is.
fn json_string(json: Bytes) -> ApiResult<Bytes> {
    if json.trim_ascii_start().starts_with(b"\"") {
        return Ok(json);
    }
    let value = parse_json(&json)?.to_string();
    Ok(serde_json::to_string(&value).map_err(|error| ApiError::internal(&error))?.into())
}

fn parse_json(json: &[u8]) -> ApiResult<Value> {
    serde_json::from_slice(json).map_err(|error| ApiError::internal(&error))
}

/// Reads an XCom that was written.
async fn written_entry(
    state: &AppState,
    client: &ClientWrapper,
    instance: &InstanceKey,
    key: &str,
) -> ApiResult<XComResponseNative> {
    let (entry, json) = load_entry(state, client, instance, key).await?;
    Ok(XComResponseNative { entry, value: parse_json(&json)? })
}

fn not_found(key: &str) -> ApiError {
    let detail = format!("The XCom with key: `{key}` with mentioned task instance doesn't exist.");
    ApiError::not_found(detail)
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XComCreateBody {
    key: String,
    value: Value,
    #[serde(default)]
    #[schemars(with = "i32", default = "not_mapped")]
    map_index: Option<i32>,
    #[serde(default)]
    #[schemars(with = "Option<Uuid>")]
    region_id: Option<String>,
    #[serde(default)]
    #[schemars(range(min = -1))]
    region_index: Option<i32>,
}

fn not_mapped() -> i32 {
    NOT_MAPPED
}

pub async fn create(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<TaskPath>,
    Body(body): Body<XComCreateBody>,
) -> ApiResult<Created<XComResponseNative>> {
    let XComCreateBody { key, value, map_index, region_id, region_index } = body;
    let position = regions::position("body", region_id.as_deref(), region_index, map_index)?.unwrap_or(Position::ONLY);
    let instance = InstanceKey::new(RunKey { dag_id, run_id }, &task_id, position);
    let client = state.core.database.get().await?;
    let not_found = ApiError::or_not_found(|| {
        let (task_id, RunKey { dag_id, run_id }) = (&instance.task_id, &instance.run);
        format!("Task with ID: `{task_id}` not found in run `{run_id}` of dag: `{dag_id}`")
    });
    instances::get(&*client, &instance).await.map_err(not_found)?;
    if xcoms::exists(&*client, &instance, &key).await? {
        let detail = format!("The XCom with key: `{key}` with mentioned task instance already exists.");
        return Err(ApiError::conflict(detail));
    }
    xcoms::push(&*client, &instance, &key, &value.to_string()).await?;
    Ok(Created(written_entry(&state, &client, &instance, &key).await?))
}

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct XComUpdateBody {
    value: Value,
    #[serde(default)]
    #[schemars(with = "i32", default = "not_mapped")]
    map_index: Option<i32>,
    #[serde(default)]
    #[schemars(with = "Option<Uuid>")]
    region_id: Option<String>,
    #[serde(default)]
    #[schemars(range(min = -1))]
    region_index: Option<i32>,
}

pub async fn update(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    Body(body): Body<XComUpdateBody>,
) -> JsonResult<XComResponseNative> {
    let XComUpdateBody { value, map_index, region_id, region_index } = body;
    let position = regions::position("body", region_id.as_deref(), region_index, map_index)?.unwrap_or(Position::ONLY);
    let instance = InstanceKey::new(RunKey { dag_id, run_id }, &task_id, position);
    let client = state.core.database.get().await?;
    if !xcoms::exists(&*client, &instance, &key).await? {
        return Err(not_found(&key));
    }
    xcoms::push(&*client, &instance, &key, &value.to_string()).await?;
    Ok(Json(written_entry(&state, &client, &instance, &key).await?))
}

query! { pub DeleteQuery { MAP_INDEX } }

pub async fn delete(
    Datastore(client): Datastore,
    Segments((dag_id, run_id, task_id, key)): Segments<(String, String, String, String)>,
    params: QueryParams<DeleteQuery>,
) -> ApiResult<NoContent> {
    let instance = instance_key_from_query((dag_id, run_id, task_id), &params)?;
    if !xcoms::exists(&*client, &instance, &key).await? {
        return Err(not_found(&key));
    }
    xcoms::delete(&*client, &instance, &key).await?;
    Ok(NoContent)
}

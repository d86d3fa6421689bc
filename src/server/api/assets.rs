//! `/api/v2/assets`, with Airflow's names and shapes.

use super::views::{self, stamp};
use crate::engine::keys::RunKey;
use crate::engine::schedule::partition_key;
use crate::engine::schedule::timetable::Partition;
use crate::engine::store::asset_lists::{self, Asset, AssetEvent, AssetUse};
use crate::engine::store::assets::{self, Source};
use crate::engine::store::listing::{Column, Listing};
use crate::engine::store::new_run::isoformat;
use crate::engine::store::runs::{self, Trigger};
use crate::postgres::GenericClient;
use crate::server::api_error::ApiError;
use crate::server::body::{OptionalBody, body_as};
use crate::server::listing::{Fields, NOTHING, page};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

fn view(asset: &Asset) -> Value {
    let of = |role: &str| -> Vec<Value> {
        let with_task = |user: &AssetUse| {
            let mut one = json!({"dag_id": user.dag_id, "created_at": user.created_at, "updated_at": user.created_at});
            if role != "schedule" {
                one["task_id"] = user.task_id.as_str().into();
            }
            one
        };
        asset.uses.iter().filter(|user| user.role == role).map(with_task).collect()
    };
    let (event_id, happened_at) = asset.last_event.unzip();
    json!({
        "id": asset.id,
        "name": asset.name,
        "uri": asset.uri,
        "group": asset.group,
        "extra": asset.extra,
        "created_at": stamp(asset.created_at),
        "updated_at": stamp(asset.updated_at),
        "scheduled_dags": of("schedule"),
        "producing_tasks": of("outlet"),
        "consuming_tasks": of("inlet"),
        "aliases": asset.aliases,
        "watchers": [],
        "last_asset_event": {"id": event_id, "timestamp": happened_at.map(stamp)},
    })
}

const ASSET_FIELDS: Fields = Fields {
    order: &[
        ("id", Column::whole("a.id")),
        ("name", Column::text("a.name")),
        ("uri", Column::text("a.uri")),
        ("created_at", Column::time("a.created_at")),
        ("updated_at", Column::time("a.updated_at")),
    ],
    patterns: &[("name", "a.name"), ("uri", "a.uri")],
    ..NOTHING
};
/// The asset is named by a DAG of these, or by one of its tasks.
const OF_DAGS: &str = "EXISTS (
    SELECT FROM dag_asset d WHERE d.dag_id = ANY ({}::text[])
       AND (d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri OR d.kind = 'name' AND d.name = a.name
            OR d.kind = 'uri' AND d.uri = a.uri))";
/// Some DAG that there is still names it.
const IS_ACTIVE: &str = "EXISTS (
    SELECT FROM dag_asset d JOIN dag USING (dag_id) WHERE dag.is_active
       AND (d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri OR d.kind = 'name' AND d.name = a.name
            OR d.kind = 'uri' AND d.uri = a.uri))";

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&ASSET_FIELDS)?;
    let dag_ids: Vec<String> = params.all("dag_ids").flat_map(|list| list.split(',')).map(str::to_owned).collect();
    if !dag_ids.is_empty() {
        listing.conditions.with(OF_DAGS, dag_ids);
    }
    if params.flag("only_active")?.unwrap_or(true) {
        listing.conditions.add(IS_ACTIVE, Vec::new());
    }
    let client = state.database.get().await?;
    let found = asset_lists::list(&*client, listing).await?;
    Ok(Json(page("assets", found.rows.iter().map(view).collect(), found.total)))
}

const ALIAS_FIELDS: Fields = Fields {
    order: &[("id", Column::whole("n.id")), ("name", Column::text("n.name"))],
    patterns: &[("name", "n.name")],
    ..NOTHING
};

fn alias_view((id, name, group): &(i64, String, String)) -> Value {
    json!({"id": id, "name": name, "group": group})
}

pub async fn aliases(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&ALIAS_FIELDS)?;
    let found = asset_lists::aliases(&*state.database.get().await?, listing).await?;
    Ok(Json(page("asset_aliases", found.rows.iter().map(alias_view).collect(), found.total)))
}

pub async fn alias(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let mut listing = Listing::default();
    listing.conditions.with("n.id = {}", id);
    let found = asset_lists::aliases(&*state.database.get().await?, listing).await?;
    let missing = || ApiError::new(StatusCode::NOT_FOUND, format!("The Asset Alias with ID: `{id}` was not found"));
    Ok(Json(alias_view(found.rows.first().ok_or_else(missing)?)))
}

fn not_found(id: i64) -> ApiError {
    ApiError::new(StatusCode::NOT_FOUND, format!("The Asset with ID: `{id}` was not found"))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let asset = asset_lists::get(&*client, id).await?;
    Ok(Json(view(&asset.ok_or_else(|| not_found(id))?)))
}

fn event_view(event: &AssetEvent) -> Value {
    json!({
        "id": event.id,
        "asset_id": event.asset_id,
        "uri": event.uri,
        "name": event.name,
        "group": event.group,
        "extra": event.extra,
        "source_task_id": event.source_task_id,
        "source_dag_id": event.source_dag_id,
        "source_run_id": event.source_run_id,
        "source_map_index": event.source_map_index,
        "created_dagruns": event.created_runs,
        "timestamp": stamp(event.happened_at),
        "partition_key": event.partition_key,
    })
}

fn event_list(events: &[AssetEvent], total: i64) -> Json<Value> {
    Json(json!({"asset_events": events.iter().map(event_view).collect::<Vec<_>>(), "total_entries": total}))
}

const HAPPENED_AT: Column = Column::time("e.happened_at");
const EVENT_FIELDS: Fields = Fields {
    order: &[
        ("id", Column::whole("e.id")),
        ("timestamp", HAPPENED_AT),
        ("asset_id", Column::whole("e.asset_id")),
        ("source_dag_id", Column::text("e.source_dag_id")),
        ("source_task_id", Column::text("e.source_task_id")),
        ("source_run_id", Column::text("e.source_run_id")),
        ("source_map_index", Column::whole("e.source_map_index")),
    ],
    patterns: &[("name", "a.name")],
    ranges: &[("timestamp", HAPPENED_AT)],
    exact: &[
        ("asset_id", Column::whole("e.asset_id")),
        ("source_dag_id", Column::text("e.source_dag_id")),
        ("source_task_id", Column::text("e.source_task_id")),
        ("source_run_id", Column::text("e.source_run_id")),
        ("source_map_index", Column::whole("e.source_map_index")),
    ],
};

pub async fn events(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&EVENT_FIELDS)?;
    listing.usually(HAPPENED_AT);
    let client = state.database.get().await?;
    let found = asset_lists::events(&*client, listing).await?;
    Ok(event_list(&found.rows, found.total))
}

/// The events that a run was made for.
pub async fn upstream(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let events = asset_lists::events_of_run(&*client, &RunKey { dag_id, run_id }, true).await?;
    let total = i64::try_from(events.len()).unwrap_or(i64::MAX);
    Ok(event_list(&events, total))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct NewEvent {
    asset_id: i64,
    #[serde(default)]
    extra: Map<String, Value>,
    #[serde(default)]
    partition_key: Option<String>,
}

pub async fn create_event(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let NewEvent { asset_id, mut extra, partition_key } = body_as(body)?;
    if let Some(problem) = partition_key.as_deref().and_then(|key| partition_key::check(key).err()) {
        return Err(ApiError::unprocessable(&["body", "partition_key"], "value_error", &problem));
    }
    let partition = partition_key.map(|key| Partition { key, date: None });
    extra.insert("from_rest_api".to_owned(), true.into());
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    if asset_lists::get(&transaction, asset_id).await?.is_none() {
        let detail = format!("Asset with ID: `{asset_id}` was not found");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let source = Source { run: None, task_id: None, map_index: -1 };
    let id = assets::add_event(&transaction, asset_id, &extra.into(), &source, &[], partition.as_ref()).await?;
    let event = asset_lists::event(&transaction, id).await?;
    transaction.commit().await?;
    Ok(Json(event_view(&event)))
}

/// What a run that makes an asset is given.
#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Materialize {
    #[serde(default)]
    conf: Option<Map<String, Value>>,
    #[serde(default)]
    note: Option<String>,
    #[serde(default)]
    partition_key: Option<String>,
}

/// Starts the one DAG that makes an asset.
pub async fn materialize(
    State(state): Shared,
    Segments(id): Segments<i64>,
    OptionalBody(body): OptionalBody<Materialize>,
) -> Result<Json<Value>, ApiError> {
    let Materialize { conf, note, partition_key } = body.unwrap_or_default();
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let dag_id = producer(&transaction, id).await?;
    let with = Trigger {
        run_id: Some(format!("asset_materialization_{}", isoformat(Timestamp::now()))),
        logical_date: None,
        data_interval: None,
        run_after: None,
        conf: conf.unwrap_or_default(),
        note,
        triggered_by: "rest_api",
        user: state.secrets().admin_email.clone(),
        run_type: Some("asset_materialization"),
        partition_key,
    };
    let run = runs::trigger(&transaction, &dag_id, &with).await?;
    transaction.commit().await?;
    Ok(Json(views::run(&run)))
}

async fn producer(client: &impl GenericClient, id: i64) -> Result<String, ApiError> {
    let mut dag_ids = asset_lists::producers(client, id).await?.into_iter();
    match (dag_ids.next(), dag_ids.next()) {
        (Some(one), None) => Ok(one),
        (None, _) => Err(ApiError::new(StatusCode::NOT_FOUND, format!("No Dag materializes asset with ID: {id}"))),
        _ => Err(ApiError::new(StatusCode::CONFLICT, format!("More than one Dag materializes asset with ID: {id}"))),
    }
}

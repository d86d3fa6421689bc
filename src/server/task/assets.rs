//! What a running task asks about assets: `/task/assets/…` over `run/api.sock`.

use crate::engine::keys::TryKey;
use crate::engine::schedule::asset_condition;
use crate::engine::store::asset_lists::{self, AssetEvent, NamedAsset};
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::state::AppState;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

fn event(event: &AssetEvent) -> Value {
    json!({
        "id": event.id, "name": event.name, "uri": event.uri, "group": event.group, "extra": event.extra,
        "timestamp": event.happened_at, "source_dag_id": event.source_dag_id, "source_task_id": event.source_task_id,
        "source_run_id": event.source_run_id, "source_map_index": event.source_map_index, "aliases": event.aliases,
        "partition_key": event.partition_key,
    })
}

/// The events that the task's own run was made for.
pub async fn triggering(State(state): Shared, Extension(of): Extension<TryKey>) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let events = asset_lists::events_of_run(&*client, &of.run, false).await?;
    Ok(Json(events.iter().map(event).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct One {
    #[serde(default)]
    name: Option<String>,
    #[serde(default)]
    uri: Option<String>,
}

/// The asset of a name or a URI; of several, the one that was declared last.
pub async fn one(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let One { name, uri } = body_as(body)?;
    let client = state.database.get().await?;
    let asset = asset_lists::named(&*client, name.as_deref(), uri.as_deref()).await?;
    let what = match (&name, &uri) {
        (Some(name), _) => format!("named {name:?}"),
        (None, uri) => format!("with the URI {:?}", uri.as_deref().unwrap_or_default()),
    };
    let asset = asset.ok_or_else(|| ApiError::new(StatusCode::NOT_FOUND, format!("there is no asset {what}")))?;
    Ok(Json(described(&asset)))
}

fn described(asset: &NamedAsset) -> Value {
    json!({"name": asset.name, "uri": asset.uri, "group": asset.group, "extra": asset.extra})
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct OfAlias {
    alias: String,
}

/// The assets that tasks have made events of by way of an alias.
pub async fn of_alias(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let OfAlias { alias } = body_as(body)?;
    let client = state.database.get().await?;
    Ok(Json(asset_lists::of_alias(&*client, &alias).await?.iter().map(described).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct EventsOf {
    of: Value,
}

/// All events of what a task reads.
pub async fn events(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let EventsOf { of } = body_as(body)?;
    let Some(reference) = asset_condition::reference(&of) else { return Ok(Json(json!([]))) };
    let client = state.database.get().await?;
    let events = asset_lists::events_of(&*client, &reference).await?;
    Ok(Json(events.iter().map(event).collect()))
}

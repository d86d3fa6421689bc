//! Requests of tasks and triggers about assets: `/task/assets/…` and `/local/triggers/assets/…` over the Unix socket.

use super::{Body, JsonAnswer};
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use axum::{Extension, Json};
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::schedule::asset_condition;
use leoflow_engine::store::asset::asset_lists::{self, AssetEvent, CreatedRuns, NamedAsset};
use serde::Deserialize;
use serde_json::{Value, json};

fn event_json(event: &AssetEvent) -> Value {
    json!({
        "id": event.id, "name": event.name, "uri": event.uri, "group": event.group, "extra": event.extra,
        "timestamp": event.happened_at, "source_dag_id": event.source_dag_id, "source_task_id": event.source_task_id,
        "source_run_id": event.source_run_id, "source_map_index": event.source_position.map_index(), "aliases": event.aliases,
        "partition_key": event.partition_key,
    })
}

/// Lists the events that triggered the task's own run.
pub async fn list_triggering_events(Datastore(client): Datastore, Extension(try_key): Extension<TryKey>) -> JsonAnswer {
    let events = asset_lists::events_of_run(&*client, &try_key.instance.run, CreatedRuns::LeaveOut).await?;
    Ok(Json(events.iter().map(event_json).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AssetQuery {
    name: Option<String>,
    uri: Option<String>,
}

/// Returns the asset with a name or URI; of several, the one updated last.
pub async fn get(Datastore(client): Datastore, Body(AssetQuery { name, uri }): Body<AssetQuery>) -> JsonAnswer {
    let asset = asset_lists::named(&*client, name.as_deref(), uri.as_deref()).await?;
    let description = match (&name, &uri) {
        (Some(name), _) => format!("named {name:?}"),
        (None, uri) => format!("with the URI {:?}", uri.as_deref().unwrap_or_default()),
    };
    let asset = asset.ok_or_else(|| ApiError::not_found(format!("no asset {description} exists")))?;
    Ok(Json(asset_json(&asset)))
}

fn asset_json(asset: &NamedAsset) -> Value {
    json!({"name": asset.name, "uri": asset.uri, "group": asset.group, "extra": asset.extra})
}

/// Lists the task's inlets and outlets that are not active: another asset has their name or URI.
pub async fn list_inactive(Datastore(client): Datastore, Extension(try_key): Extension<TryKey>) -> JsonAnswer {
    let instance = &try_key.instance;
    let inactive = asset_lists::inactive_of_task(&*client, &instance.run.dag_id, &instance.task_id).await?;
    Ok(Json(inactive.iter().map(|(name, uri)| json!({"name": name, "uri": uri})).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AliasQuery {
    alias: String,
}

/// Lists assets for which tasks emitted events through an alias.
pub async fn list_assets_of_alias(
    Datastore(client): Datastore,
    Body(AliasQuery { alias }): Body<AliasQuery>,
) -> JsonAnswer {
    Ok(Json(asset_lists::of_alias(&*client, &alias).await?.iter().map(asset_json).collect()))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EventsQuery {
    of: Value,
}

/// Lists all events of an inlet: of an asset, or of a reference to assets.
pub async fn events(Datastore(client): Datastore, Body(EventsQuery { of: inlet }): Body<EventsQuery>) -> JsonAnswer {
    let Some(reference) = asset_condition::reference(&inlet) else { return Ok(Json(json!([]))) };
    let events = asset_lists::events_of(&*client, &reference).await?;
    Ok(Json(events.iter().map(event_json).collect()))
}

//! A running task's requests to the state stores: `/task/state/…` over the Unix socket.

use super::{Body, JsonAnswer};
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use axum::http::StatusCode;
use axum::{Extension, Json};
use jiff::Timestamp;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::asset::asset_lists;
use leoflow_engine::store::instance::states;
use leoflow_postgres::GenericClient;
use serde::Deserialize;
use serde_json::json;

/// The asset whose state store is used. Requests without one use the task's own store.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Asset {
    name: Option<String>,
    uri: Option<String>,
}

impl Asset {
    /// Returns the asset's id; `None` when there is no such asset.
    async fn find(&self, client: &impl GenericClient) -> Result<Option<i64>, ApiError> {
        let asset = asset_lists::named(client, self.name.as_deref(), self.uri.as_deref()).await?;
        Ok(asset.map(|asset| asset.id))
    }

    /// Like `find`; 404 when there is no such asset.
    async fn id(&self, client: &impl GenericClient) -> Result<i64, ApiError> {
        let asset_name = self.name.as_deref().or(self.uri.as_deref()).unwrap_or_default();
        let unknown = || ApiError::not_found(format!("no asset {asset_name:?} exists"));
        self.find(client).await?.ok_or_else(unknown)
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Get {
    key: String,
    asset: Option<Asset>,
}

/// Returns the value as JSON text, or `null`.
pub async fn get(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Get { key, asset }): Body<Get>,
) -> JsonAnswer {
    let value = match asset {
        Some(asset) => match asset.find(&*client).await? {
            Some(id) => states::of_asset(&*client, id, &key).await?,
            None => None,
        },
        None => states::of_task(&*client, &try_key.instance, &key).await?,
    };
    Ok(Json(json!({"value_json": value})))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Set {
    key: String,
    /// The value as JSON text, so that numbers keep the task's notation.
    value_json: String,
    /// Expiry of a task's own state.
    expires_at: Option<Timestamp>,
    asset: Option<Asset>,
}

pub async fn set(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Set { key, value_json, expires_at, asset }): Body<Set>,
) -> Result<StatusCode, ApiError> {
    match asset {
        Some(asset) => {
            let id = asset.id(&*client).await?;
            states::set_of_asset(&*client, id, &key, &value_json, &try_key.instance).await?;
        }
        None => states::set_of_task(&*client, &try_key.instance, &key, &value_json, expires_at).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Delete {
    /// `None` deletes all keys.
    key: Option<String>,
    asset: Option<Asset>,
}

pub async fn delete(
    Datastore(client): Datastore,
    Extension(try_key): Extension<TryKey>,
    Body(Delete { key, asset }): Body<Delete>,
) -> Result<StatusCode, ApiError> {
    match asset {
        Some(asset) => states::delete_of_asset(&*client, asset.id(&*client).await?, key.as_deref()).await?,
        None => states::delete_of_task(&*client, &try_key.instance, key.as_deref()).await?,
    }
    Ok(StatusCode::NO_CONTENT)
}

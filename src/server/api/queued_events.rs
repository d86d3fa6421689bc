//! Updates of assets that wait for the others that a DAG needs, with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::store::asset_lists::{self, Queued};
use crate::server::api_error::ApiError;
use crate::server::listing::collection;
use crate::server::openapi::answers::NoContent;
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// Whose are asked for; what is not named does not matter.
#[derive(Default)]
struct Whose {
    dag_id: Option<String>,
    asset_id: Option<i64>,
}

impl Whose {
    fn missing(&self) -> ApiError {
        let dag = self.dag_id.as_ref().map(|id| format!("dag_id: `{id}`"));
        let asset = self.asset_id.map(|id| format!("asset_id: `{id}`"));
        let named: Vec<String> = dag.into_iter().chain(asset).collect();
        ApiError::new(StatusCode::NOT_FOUND, format!("Queued event with {} was not found", named.join(" and ")))
    }

    fn before(params: &Params) -> Result<Option<Timestamp>, ApiError> {
        params.time("before")
    }

    async fn found(&self, state: &AppState, params: &Params) -> Result<Vec<Queued>, ApiError> {
        let client = state.database.get().await?;
        let before = Self::before(params)?;
        Ok(asset_lists::queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await?)
    }

    async fn list(&self, state: &AppState, params: &Params) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
        Ok(Json(self.found(state, params).await?.into_iter().map(view).collect()))
    }

    async fn delete(&self, state: &AppState, params: &Params) -> Result<NoContent, ApiError> {
        let client = state.database.get().await?;
        let before = Self::before(params)?;
        match asset_lists::forget_queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await? {
            0 => Err(self.missing()),
            _ => Ok(NoContent),
        }
    }
}

pub struct OfEvents;

impl Query for OfEvents {
    const OTHERS: &'static [Parameter] = &[Parameter::new("before", Kind::Text)];
}

#[derive(Serialize, JsonSchema)]
pub struct QueuedEventResponse {
    dag_id: String,
    asset_id: i64,
    created_at: Stamp,
    dag_display_name: String,
}

collection! { QueuedEventCollectionResponse { queued_events: QueuedEventResponse } }

fn view(one: Queued) -> QueuedEventResponse {
    QueuedEventResponse {
        dag_display_name: one.dag_id.clone(),
        dag_id: one.dag_id,
        asset_id: one.asset_id,
        created_at: Stamp(one.created_at),
    }
}

pub async fn of_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: Asked<OfEvents>,
) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
    Whose { dag_id: Some(id), ..Whose::default() }.list(&state, &params).await
}

pub async fn delete_of_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: Asked<OfEvents>,
) -> Result<NoContent, ApiError> {
    Whose { dag_id: Some(id), ..Whose::default() }.delete(&state, &params).await
}

pub async fn of_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: Asked<OfEvents>,
) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
    Whose { asset_id: Some(id), ..Whose::default() }.list(&state, &params).await
}

pub async fn delete_of_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: Asked<OfEvents>,
) -> Result<NoContent, ApiError> {
    Whose { asset_id: Some(id), ..Whose::default() }.delete(&state, &params).await
}

pub async fn one(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: Asked<OfEvents>,
) -> Result<Json<QueuedEventResponse>, ApiError> {
    let whose = Whose { dag_id: Some(dag_id), asset_id: Some(asset_id) };
    let found = whose.found(&state, &params).await?;
    Ok(Json(found.into_iter().next().map(view).ok_or_else(|| whose.missing())?))
}

pub async fn delete_one(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: Asked<OfEvents>,
) -> Result<NoContent, ApiError> {
    Whose { dag_id: Some(dag_id), asset_id: Some(asset_id) }.delete(&state, &params).await
}

//! Queued asset events: updates that wait for the other assets a DAG needs. With Airflow's names and shapes.

use crate::api::views::Stamp;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::listing::collection;
use crate::http::openapi::answers::NoContent;
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::http::request::{Params, Segments};
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use leoflow_engine::store::asset::asset_lists::{self, QueuedUpdate};
use schemars::JsonSchema;
use serde::Serialize;

/// Selects queued events; `None` matches any.
#[derive(Default)]
struct QueueSelector {
    dag_id: Option<String>,
    asset_id: Option<i64>,
}

impl QueueSelector {
    fn not_found(&self) -> ApiError {
        let dag = self.dag_id.as_ref().map(|id| format!("dag_id: `{id}`"));
        let asset = self.asset_id.map(|id| format!("asset_id: `{id}`"));
        let selectors: Vec<String> = dag.into_iter().chain(asset).collect();
        ApiError::not_found(format!("Queued event with {} was not found", selectors.join(" and ")))
    }

    fn parse_before(params: &Params) -> Result<Option<Timestamp>, ApiError> {
        params.time("before")
    }

    async fn load(&self, state: &AppState, params: &Params) -> Result<Vec<QueuedUpdate>, ApiError> {
        let client = state.core.database.get().await?;
        let before = Self::parse_before(params)?;
        Ok(asset_lists::queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await?)
    }

    async fn list(&self, state: &AppState, params: &Params) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
        Ok(Json(self.load(state, params).await?.into_iter().map(view).collect()))
    }

    async fn delete(&self, state: &AppState, params: &Params) -> Result<NoContent, ApiError> {
        let client = state.core.database.get().await?;
        let before = Self::parse_before(params)?;
        match asset_lists::forget_queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await? {
            0 => Err(self.not_found()),
            _ => Ok(NoContent),
        }
    }
}

pub struct QueuedEventsQuery;

impl Query for QueuedEventsQuery {
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

fn view(event: QueuedUpdate) -> QueuedEventResponse {
    QueuedEventResponse {
        dag_display_name: event.dag_id.clone(),
        dag_id: event.dag_id,
        asset_id: event.asset_id,
        created_at: Stamp(event.created_at),
    }
}

pub async fn list_for_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
    QueueSelector { dag_id: Some(id), ..QueueSelector::default() }.list(&state, &params).await
}

pub async fn delete_for_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<NoContent, ApiError> {
    QueueSelector { dag_id: Some(id), ..QueueSelector::default() }.delete(&state, &params).await
}

pub async fn list_for_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<Json<QueuedEventCollectionResponse>, ApiError> {
    QueueSelector { asset_id: Some(id), ..QueueSelector::default() }.list(&state, &params).await
}

pub async fn delete_for_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<NoContent, ApiError> {
    QueueSelector { asset_id: Some(id), ..QueueSelector::default() }.delete(&state, &params).await
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<Json<QueuedEventResponse>, ApiError> {
    let selector = QueueSelector { dag_id: Some(dag_id), asset_id: Some(asset_id) };
    let events = selector.load(&state, &params).await?;
    Ok(Json(events.into_iter().next().map(view).ok_or_else(|| selector.not_found())?))
}

pub async fn delete_one(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: QueryParams<QueuedEventsQuery>,
) -> Result<NoContent, ApiError> {
    QueueSelector { dag_id: Some(dag_id), asset_id: Some(asset_id) }.delete(&state, &params).await
}

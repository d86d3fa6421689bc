//! Queued asset events: updates that wait for the other assets a DAG needs. With Airflow's names and shapes.

use crate::api::prelude::*;
use leoflow_engine::store::asset::asset_lists::{self, QueuedUpdate};

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

    fn parse_before(params: &Params) -> ApiResult<Option<Timestamp>> {
        params.time("before")
    }

    async fn load(&self, state: &AppState, params: &Params) -> ApiResult<Vec<QueuedUpdate>> {
        let client = state.core.database.get().await?;
        let before = Self::parse_before(params)?;
        Ok(asset_lists::queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await?)
    }

    async fn list(&self, state: &AppState, params: &Params) -> JsonResult<QueuedEventCollectionResponse> {
        Ok(Json(self.load(state, params).await?.into_iter().map(response).collect()))
    }

    async fn delete(&self, state: &AppState, params: &Params) -> ApiResult<NoContent> {
        let client = state.core.database.get().await?;
        let before = Self::parse_before(params)?;
        match asset_lists::forget_queued(&*client, self.dag_id.as_deref(), self.asset_id, before).await? {
            0 => Err(self.not_found()),
            _ => Ok(NoContent),
        }
    }
}

query! { pub QueuedEventsQuery { Parameter::new("before", Kind::Text) } }

view! {
    pub struct QueuedEventResponse;
    fn response(event: QueuedUpdate) {
        dag_id: String = event.dag_id.clone(),
        asset_id: i64,
        created_at: Stamp = Stamp(event.created_at),
        dag_display_name: String = event.dag_id,
    }
}

collection! { QueuedEventCollectionResponse { queued_events: QueuedEventResponse } }

pub async fn list_for_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: QueryParams<QueuedEventsQuery>,
) -> JsonResult<QueuedEventCollectionResponse> {
    QueueSelector { dag_id: Some(id), ..QueueSelector::default() }.list(&state, &params).await
}

pub async fn delete_for_dag(
    State(state): Shared,
    Segments(id): Segments<String>,
    params: QueryParams<QueuedEventsQuery>,
) -> ApiResult<NoContent> {
    QueueSelector { dag_id: Some(id), ..QueueSelector::default() }.delete(&state, &params).await
}

pub async fn list_for_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: QueryParams<QueuedEventsQuery>,
) -> JsonResult<QueuedEventCollectionResponse> {
    QueueSelector { asset_id: Some(id), ..QueueSelector::default() }.list(&state, &params).await
}

pub async fn delete_for_asset(
    State(state): Shared,
    Segments(id): Segments<i64>,
    params: QueryParams<QueuedEventsQuery>,
) -> ApiResult<NoContent> {
    QueueSelector { asset_id: Some(id), ..QueueSelector::default() }.delete(&state, &params).await
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: QueryParams<QueuedEventsQuery>,
) -> JsonResult<QueuedEventResponse> {
    let selector = QueueSelector { dag_id: Some(dag_id), asset_id: Some(asset_id) };
    let events = selector.load(&state, &params).await?;
    Ok(Json(events.into_iter().next().map(response).ok_or_else(|| selector.not_found())?))
}

pub async fn delete_one(
    State(state): Shared,
    Segments((dag_id, asset_id)): Segments<(String, i64)>,
    params: QueryParams<QueuedEventsQuery>,
) -> ApiResult<NoContent> {
    QueueSelector { dag_id: Some(dag_id), asset_id: Some(asset_id) }.delete(&state, &params).await
}

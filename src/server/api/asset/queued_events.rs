//! Queued asset events: updates that wait for the other assets a DAG needs. With Airflow's names and shapes.

use crate::api::prelude::*;
use leoflow_engine::store::asset::asset_lists::{self, QueuedUpdate};

/// Selects queued events; `None` matches any.
pub struct QueueSelector {
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

    async fn load(&self, client: &impl GenericClient, params: &Params) -> ApiResult<Vec<QueuedUpdate>> {
        let before = params.time("before")?;
        Ok(asset_lists::queued(client, self.dag_id.as_deref(), self.asset_id, before).await?)
    }
}

impl From<String> for QueueSelector {
    fn from(dag_id: String) -> Self {
        Self { dag_id: Some(dag_id), asset_id: None }
    }
}

impl From<i64> for QueueSelector {
    fn from(asset_id: i64) -> Self {
        Self { dag_id: None, asset_id: Some(asset_id) }
    }
}

impl From<(String, i64)> for QueueSelector {
    fn from((dag_id, asset_id): (String, i64)) -> Self {
        Self { dag_id: Some(dag_id), asset_id: Some(asset_id) }
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

/// `P` is the DAG's or the asset's id.
pub async fn list<P: Into<QueueSelector>>(
    Segments(path): Segments<P>,
    params: QueryParams<QueuedEventsQuery>,
    Datastore(client): Datastore,
) -> JsonResult<QueuedEventCollectionResponse> {
    Ok(Json(path.into().load(&*client, &params).await?.into_iter().map(response).collect()))
}

pub async fn get(
    Segments(path): Segments<(String, i64)>,
    params: QueryParams<QueuedEventsQuery>,
    Datastore(client): Datastore,
) -> JsonResult<QueuedEventResponse> {
    let selector = QueueSelector::from(path);
    let events = selector.load(&*client, &params).await?;
    Ok(Json(events.into_iter().next().map(response).ok_or_else(|| selector.not_found())?))
}

/// `P` is the DAG's or the asset's id, or both.
pub async fn delete<P: Into<QueueSelector>>(
    Segments(path): Segments<P>,
    params: QueryParams<QueuedEventsQuery>,
    Datastore(client): Datastore,
) -> ApiResult<NoContent> {
    let selector: QueueSelector = path.into();
    let before = params.time("before")?;
    match asset_lists::forget_queued(&*client, selector.dag_id.as_deref(), selector.asset_id, before).await? {
        0 => Err(selector.not_found()),
        _ => Ok(NoContent),
    }
}

//! `/api/v2/eventLogs`: who changed what, with Airflow's names and shapes.

use super::views::{maybe, stamp};
use crate::engine::store::StoreError;
use crate::engine::store::event_log::{self, LoggedEvent};
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, page};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const ID: Column = Column::whole("id");
const CREATED_AT: Column = Column::time("created_at");
const FIELDS: Fields = Fields {
    order: &[
        ("id", ID),
        ("event_log_id", ID),
        ("dttm", CREATED_AT),
        ("when", CREATED_AT),
        ("dag_id", Column::text("dag_id")),
        ("task_id", Column::text("task_id")),
        ("run_id", Column::text("run_id")),
        ("event", Column::text("event")),
        ("logical_date", Column::time("logical_date")),
        ("owner", Column::text("owner")),
        ("extra", Column::text("extra")),
    ],
    patterns: &[
        ("dag_id", "dag_id"),
        ("task_id", "task_id"),
        ("run_id", "run_id"),
        ("owner", "owner"),
        ("event", "event"),
    ],
    ranges: &[],
    exact: &[
        ("dag_id", Column::text("dag_id")),
        ("task_id", Column::text("task_id")),
        ("run_id", Column::text("run_id")),
        ("map_index", Column::whole("map_index")),
        // What is done to a task is done to all of its tries.
        ("try_number", Column::whole("NULL::integer")),
        ("owner", Column::text("owner")),
        ("event", Column::text("event")),
        ("included_events", Column::text("event")),
    ],
};

fn view(logged: &LoggedEvent) -> Value {
    let what = &logged.what;
    json!({
        "event_log_id": logged.id,
        "when": stamp(logged.created_at),
        "dag_id": what.dag_id,
        "task_id": what.task_id,
        "run_id": what.run_id,
        "map_index": what.map_index,
        "try_number": null,
        "event": what.event,
        "logical_date": maybe(what.logical_date),
        "owner": what.owner,
        "extra": what.extra,
        "dag_display_name": what.dag_id,
        "task_display_name": what.task_id,
    })
}

pub async fn list(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    listing.usually(ID);
    let conditions = &mut listing.conditions;
    let excluded = params.texts("excluded_events");
    if !excluded.is_empty() {
        conditions.with("event <> ALL ({})", excluded);
    }
    conditions.maybe("created_at < {}", params.time("before")?);
    conditions.maybe("created_at > {}", params.time("after")?);
    let found = event_log::list(&*state.database.get().await?, listing).await?;
    Ok(Json(page("event_logs", found.rows.iter().map(view).collect(), found.total)))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<Value>, ApiError> {
    let found = event_log::get(&*state.database.get().await?, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("The Event Log with id: `{id}` not found"))
        }
        other => other.into(),
    })?;
    Ok(Json(view(&found)))
}

//! `/api/v2/eventLogs`: who changed what, with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::store::StoreError;
use crate::engine::store::event_log::{self, LoggedEvent};
use crate::engine::store::listing::Column;
use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use schemars::JsonSchema;
use serde::Serialize;
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
    exact: &[
        ("dag_id", Column::text("dag_id")),
        ("task_id", Column::text("task_id")),
        ("run_id", Column::text("run_id")),
        ("map_index", Column::whole("map_index")),
        // What is done to a task is done to all of its tries.
        ("try_number", Column::whole("NULL::integer")),
        ("owner", Column::text("owner")),
        ("event", Column::text("event")),
    ],
    one_of: &[("included_events", Column::text("event"))],
    ..NOTHING
};

pub struct OfEvents;

impl Query for OfEvents {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[
        Parameter::new("excluded_events", Kind::Texts),
        Parameter::new("before", Kind::Time),
        Parameter::new("after", Kind::Time),
    ];
}

#[derive(Serialize, JsonSchema)]
pub struct EventLogResponse {
    event_log_id: i64,
    when: Stamp,
    dag_id: Option<String>,
    task_id: Option<String>,
    run_id: Option<String>,
    map_index: Option<i32>,
    try_number: Option<i32>,
    event: String,
    logical_date: Option<Stamp>,
    owner: Option<String>,
    extra: Option<String>,
    dag_display_name: Option<String>,
    task_display_name: Option<String>,
}

collection! { EventLogCollectionResponse { event_logs: EventLogResponse } }

fn view(logged: LoggedEvent) -> EventLogResponse {
    let what = logged.what;
    EventLogResponse {
        event_log_id: logged.id,
        when: Stamp(logged.created_at),
        dag_display_name: what.dag_id.clone(),
        dag_id: what.dag_id,
        task_display_name: what.task_id.clone(),
        task_id: what.task_id,
        run_id: what.run_id,
        map_index: what.map_index,
        try_number: None,
        event: what.event,
        logical_date: what.logical_date.map(Stamp),
        owner: what.owner,
        extra: what.extra,
    }
}

pub async fn list(State(state): Shared, params: Asked<OfEvents>) -> Result<Json<EventLogCollectionResponse>, ApiError> {
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
    Ok(Json(found.map(view).into()))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<EventLogResponse>, ApiError> {
    let found = event_log::get(&*state.database.get().await?, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("The Event Log with id: `{id}` not found"))
        }
        other => other.into(),
    })?;
    Ok(Json(view(found)))
}

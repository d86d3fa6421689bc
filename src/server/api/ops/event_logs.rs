//! `/api/v2/eventLogs`: the audit log, with Airflow's names and shapes.

use crate::api::views::Stamp;
use crate::http::api_error::ApiError;
use crate::http::listing::{Fields, NO_FIELDS, collection};
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::http::request::Segments;
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::event_log::{self, LoggedEvent};
use leoflow_engine::store::list::listing::Column;
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
        // Events about a task apply to all of its tries.
        ("try_number", Column::whole("NULL::integer")),
        ("owner", Column::text("owner")),
        ("event", Column::text("event")),
    ],
    one_of: &[("included_events", Column::text("event"))],
    ..NO_FIELDS
};

pub struct EventLogsQuery;

impl Query for EventLogsQuery {
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
    let record = logged.what;
    EventLogResponse {
        event_log_id: logged.id,
        when: Stamp(logged.created_at),
        dag_display_name: record.dag_id.clone(),
        dag_id: record.dag_id,
        task_display_name: record.task_id.clone(),
        task_id: record.task_id,
        run_id: record.run_id,
        map_index: record.map_index,
        try_number: None,
        event: record.event,
        logical_date: record.logical_date.map(Stamp),
        owner: record.owner,
        extra: record.extra,
    }
}

pub async fn list(
    State(state): Shared,
    params: QueryParams<EventLogsQuery>,
) -> Result<Json<EventLogCollectionResponse>, ApiError> {
    let mut listing = params.listing(&FIELDS)?;
    listing.order_by_default(ID);
    let conditions = &mut listing.conditions;
    let excluded = params.texts("excluded_events");
    if !excluded.is_empty() {
        conditions.with("event <> ALL ({})", excluded);
    }
    conditions.maybe("created_at < {}", params.time("before")?);
    conditions.maybe("created_at > {}", params.time("after")?);
    let page = event_log::list(&*state.database.get().await?, listing).await?;
    Ok(Json(page.map(view).into()))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> Result<Json<EventLogResponse>, ApiError> {
    let event = event_log::get(&*state.database.get().await?, id).await.map_err(|error| match error {
        StoreError::NotFound { .. } => {
            ApiError::new(StatusCode::NOT_FOUND, format!("The Event Log with id: `{id}` not found"))
        }
        other => other.into(),
    })?;
    Ok(Json(view(event)))
}

//! `/api/v2/eventLogs`: the audit log, with Airflow's names and shapes.

use crate::api::prelude::*;
use crate::api::views::Uuid;
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::event_log::{self, EventField, EventFilter, LoggedEvent};
use leoflow_engine::store::list::column::Order;

const FIELDS: Fields<EventField> = Fields {
    order: &[
        ("id", EventField::Id),
        ("event_log_id", EventField::Id),
        ("dttm", EventField::CreatedAt),
        ("when", EventField::CreatedAt),
        ("dag_id", EventField::DagId),
        ("task_id", EventField::TaskId),
        ("run_id", EventField::RunId),
        ("event", EventField::Event),
        ("logical_date", EventField::LogicalDate),
        ("owner", EventField::Owner),
        ("extra", EventField::Extra),
    ],
    patterns: &[
        ("dag_id", EventField::DagId),
        ("task_id", EventField::TaskId),
        ("run_id", EventField::RunId),
        ("owner", EventField::Owner),
        ("event", EventField::Event),
    ],
    exact: &[
        ("dag_id", EventField::DagId),
        ("task_id", EventField::TaskId),
        ("run_id", EventField::RunId),
        ("map_index", EventField::MapIndex),
        ("try_number", EventField::TryNumber),
        ("owner", EventField::Owner),
        ("event", EventField::Event),
    ],
    one_of: &[("included_events", EventField::Event)],
    ..Fields::NONE
};

query! {
    pub EventLogsQuery(FIELDS) {
        Parameter::new("excluded_events", Kind::Texts),
        Parameter::new("before", Kind::Time),
        Parameter::new("after", Kind::Time),
        Parameter::new("task_instance_id", Kind::Uuid),
        Parameter::new("owner_display_name_pattern", Kind::Text),
        Parameter::new("owner_display_name_prefix_pattern", Kind::Text),
        Parameter::new("teams", Kind::Texts),
    }
}

view! {
    pub struct EventLogResponse;
    fn response(logged: LoggedEvent) {
        event_log_id: i64 = logged.id,
        when: Stamp = Stamp(logged.created_at),
        #[schemars(with = "Option<Uuid>")]
        task_instance_id: Option<String> = None,
        dag_id: Option<String> = logged.what.dag_id.clone(),
        task_id: Option<String> = logged.what.task_id.clone(),
        run_id: Option<String> = logged.what.run_id,
        map_index: Option<i32> = logged.what.position.map(Position::map_index),
        try_number: Option<i32> = None,
        event: String = logged.what.event,
        logical_date: Option<Stamp> = logged.what.logical_date.map(Stamp),
        owner: Option<String> = logged.what.owner,
        extra: Option<String> = logged.what.extra,
        dag_display_name: Option<String> = logged.what.dag_id,
        task_display_name: Option<String> = logged.what.task_id,
        owner_display_name: Option<String> = None,
        team_name: Option<String> = None,
    }
}

collection! { EventLogCollectionResponse { event_logs: EventLogResponse } }

pub async fn list(State(state): Shared, params: QueryParams<EventLogsQuery>) -> JsonResult<EventLogCollectionResponse> {
    let mut listing = params.listing(&FIELDS)?;
    listing.order_by_default(Order::ascending(EventField::Id));
    // Events name no attempt, and owners have no other name.
    let unknown = ["task_instance_id", "owner_display_name_pattern", "owner_display_name_prefix_pattern"];
    if unknown.iter().any(|name| params.text(name).is_some()) {
        listing.select_none();
    }
    listing.filter = EventFilter {
        excluded_events: params.texts("excluded_events"),
        before: params.time("before")?,
        after: params.time("after")?,
    };
    let page = event_log::list(&*state.core.database.get().await?, listing).await?;
    Ok(Json(page.map(response).into()))
}

pub async fn get(State(state): Shared, Segments(id): Segments<i64>) -> JsonResult<EventLogResponse> {
    let event = event_log::get(&*state.core.database.get().await?, id)
        .await
        .map_err(ApiError::or_not_found(|| format!("The Event Log with id: `{id}` not found")))?;
    Ok(Json(response(event)))
}

//! `/jobs`: the components that Airflow runs as jobs, with Airflow's names and shapes.

use crate::api::views::Stamp;
use crate::http::api_error::ApiError;
use crate::http::listing::{Fields, NO_FIELDS, collection};
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::http::request::Params;
use crate::process::health::{self, Component};
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
use leoflow_base::sys::user;
use leoflow_engine::store::list::listing::{Column, Order};
use schemars::JsonSchema;
use serde::Serialize;
use std::cmp::Ordering;
use std::sync::Arc;

const ORDERS: &[(&str, Column)] = &[
    ("id", Column::text("id")),
    ("dag_id", Column::text("dag_id")),
    ("state", Column::text("state")),
    ("job_type", Column::text("job_type")),
    ("start_date", Column::text("start_date")),
    ("end_date", Column::text("end_date")),
    ("latest_heartbeat", Column::text("latest_heartbeat")),
    ("executor_class", Column::text("executor_class")),
    ("hostname", Column::text("hostname")),
    ("unixname", Column::text("unixname")),
];
/// Jobs are filtered in memory, not in the datastore.
const NO_COLUMN: Column = Column::time("NULL");
const FIELDS: Fields =
    Fields { order: ORDERS, ranges: &[("start_date", NO_COLUMN), ("end_date", NO_COLUMN)], ..NO_FIELDS };

pub struct JobsQuery;

impl Query for JobsQuery {
    const LIST: Option<&'static Fields> = Some(&FIELDS);
    const OTHERS: &'static [Parameter] = &[
        Parameter::new("is_alive", Kind::Flag),
        Parameter::new("job_state", Kind::Text),
        Parameter::new("job_type", Kind::Text),
        Parameter::new("hostname", Kind::Text),
        Parameter::new("executor_class", Kind::Text),
    ];
}

#[derive(Serialize, JsonSchema)]
pub struct JobResponse {
    id: usize,
    dag_id: Option<String>,
    state: Option<&'static str>,
    job_type: Option<&'static str>,
    start_date: Option<Stamp>,
    end_date: Option<Stamp>,
    latest_heartbeat: Option<Stamp>,
    executor_class: Option<&'static str>,
    hostname: Option<String>,
    unixname: Option<String>,
    dag_display_name: Option<String>,
}

collection! { JobCollectionResponse { jobs: JobResponse } }

/// Lists the components of this instance that are jobs in Airflow: one of each, since the server started.
pub async fn jobs(
    State(state): State<Arc<AppState>>,
    params: QueryParams<JobsQuery>,
) -> Result<Json<JobCollectionResponse>, ApiError> {
    let listing = params.listing(&FIELDS)?;
    let components = health::components(&state).await;
    let job_types = [
        ("SchedulerJob", components.scheduler),
        ("DagProcessorJob", components.dag_processor),
        ("TriggererJob", components.triggerer),
    ];
    let host_name = user::host_name();
    let matches_filters = |kind: &str, component: &Component| {
        params.text("job_type").is_none_or(|value| value == kind)
            && params.text("job_state").is_none_or(|value| value == job_state(component))
            && params.text("hostname").is_none_or(|value| value == host_name)
            && params.text("executor_class").is_none_or(|value| value == EXECUTOR)
    };
    let is_alive = params.flag("is_alive")?;
    let began = state.started_at;
    let is_in_range = is_within(&params, "start_date", began)? && is_within(&params, "end_date", Timestamp::now())?;
    let mut jobs: Vec<JobResponse> = job_types
        .iter()
        .enumerate()
        .filter(|(_, (kind, component))| {
            is_in_range
                && matches_filters(kind, component)
                && is_alive.is_none_or(|is_alive| is_alive == component.is_alive)
        })
        .map(|(index, (kind, component))| JobResponse {
            id: index + 1,
            dag_id: None,
            state: Some(job_state(component)),
            job_type: Some(kind),
            start_date: Some(Stamp(began)),
            end_date: None,
            latest_heartbeat: component.heartbeat.map(Stamp),
            executor_class: Some(EXECUTOR),
            hostname: Some(host_name.clone()),
            unixname: None,
            dag_display_name: None,
        })
        .collect();
    // The first key decides, so it is sorted last.
    for order in listing.order.iter().rev() {
        sort(&mut jobs, *order);
    }
    Ok(Json(listing.page_of(jobs).into()))
}

/// Sorts by one column. Columns other than these are equal for all jobs.
fn sort(jobs: &mut [JobResponse], order: Order) {
    jobs.sort_by(|first, second| {
        let (first, second) = if order.descending { (second, first) } else { (first, second) };
        match order.column.sql {
            "id" => first.id.cmp(&second.id),
            "state" => first.state.cmp(&second.state),
            "job_type" => first.job_type.cmp(&second.job_type),
            _ => Ordering::Equal,
        }
    });
}

/// Checks a time against the bounds in the query. Jobs that have not ended count as ending now.
fn is_within(params: &Params, name: &str, time: Timestamp) -> Result<bool, ApiError> {
    let bound = |suffix: &str| params.time(&format!("{name}_{suffix}"));
    Ok(bound("gte")?.is_none_or(|from| time >= from)
        && bound("gt")?.is_none_or(|from| time > from)
        && bound("lte")?.is_none_or(|to| time <= to)
        && bound("lt")?.is_none_or(|to| time < to))
}

const EXECUTOR: &str = "LocalExecutor";

fn job_state(component: &Component) -> &'static str {
    if component.is_alive { "running" } else { "failed" }
}

//! What runs beside DAGs, with Airflow's names and shapes.

use super::views::Stamp;
use crate::engine::store::listing::{Column, Order};
use crate::server::api_error::ApiError;
use crate::server::health::{self, Part};
use crate::server::listing::{Fields, NOTHING, collection};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::request::Params;
use crate::server::state::AppState;
use crate::sys::user;
use axum::Json;
use axum::extract::State;
use jiff::Timestamp;
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
/// None of a job is looked for in the datastore.
const NO_COLUMN: Column = Column::time("NULL");
const FIELDS: Fields =
    Fields { order: ORDERS, ranges: &[("start_date", NO_COLUMN), ("end_date", NO_COLUMN)], ..NOTHING };

pub struct OfJobs;

impl Query for OfJobs {
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

/// The parts of this instance that are jobs on Airflow. There is one of each, since it was started.
pub async fn jobs(
    State(state): State<Arc<AppState>>,
    params: Asked<OfJobs>,
) -> Result<Json<JobCollectionResponse>, ApiError> {
    let listing = params.listing(&FIELDS)?;
    let parts = health::parts(&state).await;
    let kinds = [
        ("SchedulerJob", parts.scheduler),
        ("DagProcessorJob", parts.dag_processor),
        ("TriggererJob", parts.triggerer),
    ];
    let host_name = user::host_name();
    let is_wanted = |kind: &str, part: &Part| {
        params.text("job_type").is_none_or(|wanted| wanted == kind)
            && params.text("job_state").is_none_or(|wanted| wanted == state_of(part))
            && params.text("hostname").is_none_or(|wanted| wanted == host_name)
            && params.text("executor_class").is_none_or(|wanted| wanted == EXECUTOR)
    };
    let is_alive = params.flag("is_alive")?;
    let began = state.started_at;
    let in_time = is_within(&params, "start_date", began)? && is_within(&params, "end_date", Timestamp::now())?;
    let mut jobs: Vec<JobResponse> = kinds
        .iter()
        .enumerate()
        .filter(|(_, (kind, part))| in_time && is_wanted(kind, part) && is_alive.is_none_or(|is| is == part.is_alive))
        .map(|(at, (kind, part))| JobResponse {
            id: at + 1,
            dag_id: None,
            state: Some(state_of(part)),
            job_type: Some(kind),
            start_date: Some(Stamp(began)),
            end_date: None,
            latest_heartbeat: part.heartbeat.map(Stamp),
            executor_class: Some(EXECUTOR),
            hostname: Some(host_name.clone()),
            unixname: None,
            dag_display_name: None,
        })
        .collect();
    // The first decides, hence it is the last to sort by.
    for order in listing.order.iter().rev() {
        sort(&mut jobs, *order);
    }
    Ok(Json(listing.page_of(jobs).into()))
}

/// By the column's name; in all else they are alike.
fn sort(jobs: &mut [JobResponse], order: Order) {
    jobs.sort_by(|one, other| {
        let (one, other) = if order.descending { (other, one) } else { (one, other) };
        match order.column.sql {
            "id" => one.id.cmp(&other.id),
            "state" => one.state.cmp(&other.state),
            "job_type" => one.job_type.cmp(&other.job_type),
            _ => Ordering::Equal,
        }
    });
}

/// Whether a moment is within the bounds that a query has of it. What has not ended does so now, or later.
fn is_within(params: &Params, name: &str, at: Timestamp) -> Result<bool, ApiError> {
    let bound = |suffix: &str| params.time(&format!("{name}_{suffix}"));
    Ok(bound("gte")?.is_none_or(|from| at >= from)
        && bound("gt")?.is_none_or(|from| at > from)
        && bound("lte")?.is_none_or(|to| at <= to)
        && bound("lt")?.is_none_or(|to| at < to))
}

const EXECUTOR: &str = "LocalExecutor";

fn state_of(part: &Part) -> &'static str {
    if part.is_alive { "running" } else { "failed" }
}

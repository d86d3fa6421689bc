//! `/jobs`: the components that Airflow runs as jobs, with Airflow's names and shapes.

use crate::api::ops::health::{self, Component};
use crate::api::prelude::*;
use crate::api::views::BUNDLE;
use crate::http::query::Paging;
use leoflow_base::sys::user;
use std::cmp::Ordering;

/// Fields that jobs are ordered by.
#[derive(Clone, Copy)]
enum JobField {
    Id,
    State,
    JobType,
    /// A field that does not order jobs, because it is equal or almost equal for all of them.
    Constant,
}

const ORDERS: &[(&str, JobField)] = &[
    ("id", JobField::Id),
    ("dag_id", JobField::Constant),
    ("state", JobField::State),
    ("job_type", JobField::JobType),
    ("start_date", JobField::Constant),
    ("end_date", JobField::Constant),
    ("latest_heartbeat", JobField::Constant),
    ("executor_class", JobField::Constant),
    ("hostname", JobField::Constant),
    ("unixname", JobField::Constant),
];

query! {
    pub JobsQuery(Paging) {
        Parameter::new("order_by", Kind::Texts).or(r#"["id"]"#),
        Parameter::new("start_date_gte", Kind::Time),
        Parameter::new("start_date_gt", Kind::Time),
        Parameter::new("start_date_lte", Kind::Time),
        Parameter::new("start_date_lt", Kind::Time),
        Parameter::new("end_date_gte", Kind::Time),
        Parameter::new("end_date_gt", Kind::Time),
        Parameter::new("end_date_lte", Kind::Time),
        Parameter::new("end_date_lt", Kind::Time),
        Parameter::new("is_alive", Kind::Flag),
        Parameter::new("job_state", Kind::Text),
        Parameter::new("job_type", Kind::Text),
        Parameter::new("hostname", Kind::Text),
        Parameter::new("executor_class", Kind::Text),
        Parameter::new("dag_id", Kind::Text),
        Parameter::new("teams", Kind::Texts),
    }
}

view! {
    pub struct JobResponse;
    fn response(component: &Component, id: usize, job_type: &'static str, hostname: &str, began: Timestamp) {
        id: usize = id,
        dag_id: Option<String> = None,
        state: Option<&'static str> = Some(job_state(component)),
        job_type: Option<&'static str> = Some(job_type),
        start_date: Option<Stamp> = Some(Stamp(began)),
        end_date: Option<Stamp> = None,
        latest_heartbeat: Option<Stamp> = component.heartbeat.map(Stamp),
        executor_class: Option<&'static str> = Some(EXECUTOR),
        hostname: Option<String> = Some(hostname.to_owned()),
        unixname: Option<String> = None,
        dag_display_name: Option<String> = None,
        team_names: Vec<String> = Vec::new(),
        bundle_names: Option<Vec<&'static str>> = (job_type == "DagProcessorJob").then(|| vec![BUNDLE]),
    }
}

collection! { JobCollectionResponse { jobs: JobResponse } }

/// Lists the components of this instance that are jobs in Airflow: one of each, since the server started.
pub async fn jobs(State(state): Shared, params: QueryParams<JobsQuery>) -> JsonResult<JobCollectionResponse> {
    let order = params.order(ORDERS)?;
    let (started, ended) = (params.times("start_date")?, params.times("end_date")?);
    let page = params.page()?;
    let components = health::components(&state.core).await;
    let job_types = [
        ("SchedulerJob", components.scheduler),
        ("DagProcessorJob", components.dag_processor),
        ("TriggererJob", components.triggerer),
    ];
    let host_name = user::host_name();
    let matches_filters = |kind: &str, component: &Component| {
        params.text("dag_id").is_none()
            && params.text("job_type").is_none_or(|value| value == kind)
            && params.text("job_state").is_none_or(|value| value == job_state(component))
            && params.text("hostname").is_none_or(|value| value == host_name)
            && params.text("executor_class").is_none_or(|value| value == EXECUTOR)
    };
    let is_alive = params.flag("is_alive")?;
    let began = state.core.phase.started_at;
    // Jobs that have not ended count as ending now.
    let is_in_range = started.contains(&began) && ended.contains(&Timestamp::now());
    let mut jobs: Vec<JobResponse> = job_types
        .iter()
        .enumerate()
        .filter(|(_, (kind, component))| {
            is_in_range
                && matches_filters(kind, component)
                && is_alive.is_none_or(|is_alive| is_alive == component.is_alive)
        })
        .map(|(index, (kind, component))| response(component, index + 1, kind, &host_name, began))
        .collect();
    // The sort is stable, so sorting by the first field last makes it decide.
    for order in order.iter().rev() {
        jobs.sort_by(|first, second| order.compare(|field| compare(field, first, second)));
    }
    Ok(Json(page.of(jobs).into()))
}

fn compare(field: JobField, first: &JobResponse, second: &JobResponse) -> Ordering {
    match field {
        JobField::Id => first.id.cmp(&second.id),
        JobField::State => first.state.cmp(&second.state),
        JobField::JobType => first.job_type.cmp(&second.job_type),
        JobField::Constant => Ordering::Equal,
    }
}

const EXECUTOR: &str = "LocalExecutor";

fn job_state(component: &Component) -> &'static str {
    if component.is_alive { "running" } else { "failed" }
}

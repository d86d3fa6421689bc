//! What runs beside DAGs, with Airflow's names and shapes.

use super::views::{maybe, stamp};
use crate::server::api_error::ApiError;
use crate::server::health::{self, Part};
use crate::server::listing::NOTHING;
use crate::server::request::Params;
use crate::server::state::AppState;
use crate::sys::user;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::sync::Arc;

/// One, which brings our own pages into the menu of Airflow's web UI; those of a project are of its own processes.
pub async fn plugins(params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&NOTHING)?;
    let what_runs = json!({
        "name": "What runs", "href": "/lite/", "url_route": "leoflow", "destination": "nav", "nav_top_level": false,
        "category": null, "icon": "/lite/static/icon.svg", "icon_dark_mode": "/lite/static/icon.svg",
    });
    let leoflow = json!({
        "name": "leoflow", "source": "Leoflow", "external_views": [what_runs], "macros": [], "flask_blueprints": [],
        "fastapi_apps": [], "fastapi_root_middlewares": [], "react_apps": [], "appbuilder_views": [],
        "appbuilder_menu_items": [], "global_operator_extra_links": [], "operator_extra_links": [], "listeners": [],
        "timetables": [],
    });
    let is_shown = listing.offset == 0 && listing.limit != Some(0);
    let shown: Vec<Value> = is_shown.then_some(leoflow).into_iter().collect();
    Ok(Json(json!({"plugins": shown, "total_entries": 1})))
}

pub async fn plugin_errors() -> Json<Value> {
    Json(json!({"import_errors": [], "total_entries": 0}))
}

/// The parts of this instance that are jobs on Airflow. There is one of each, since it was started.
pub async fn jobs(State(state): State<Arc<AppState>>, params: Params) -> Result<Json<Value>, ApiError> {
    let listing = params.listing(&NOTHING)?;
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
    let (from, to) = (params.time("start_date_gte")?, params.time("start_date_lte")?);
    let ended_before = params.time("end_date_gte")?.or(params.time("end_date_lte")?).is_some();
    let in_time = from.is_none_or(|from| began >= from) && to.is_none_or(|to| began <= to) && !ended_before;
    let jobs: Vec<Value> = kinds
        .iter()
        .enumerate()
        .filter(|(_, (kind, part))| in_time && is_wanted(kind, part) && is_alive.is_none_or(|is| is == part.is_alive))
        .map(|(at, (kind, part))| {
            json!({
                "id": at + 1,
                "dag_id": null,
                "state": state_of(part),
                "job_type": kind,
                "start_date": stamp(began),
                "end_date": null,
                "latest_heartbeat": maybe(part.heartbeat),
                "executor_class": EXECUTOR,
                "hostname": host_name,
                "unixname": null,
                "dag_display_name": null,
            })
        })
        .collect();
    let total = jobs.len();
    let (offset, limit) = (usize::try_from(listing.offset), listing.limit.map(usize::try_from));
    let (offset, limit) = (offset.unwrap_or(usize::MAX), limit.and_then(Result::ok).unwrap_or(usize::MAX));
    let jobs: Vec<Value> = jobs.into_iter().skip(offset).take(limit).collect();
    Ok(Json(json!({"jobs": jobs, "total_entries": total})))
}

const EXECUTOR: &str = "LocalExecutor";

fn state_of(part: &Part) -> &'static str {
    if part.is_alive { "running" } else { "failed" }
}

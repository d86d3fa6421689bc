//! Health checks for programs.

use crate::api::prelude::*;
use crate::state::Core;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_base::sys::blocking;
use leoflow_components::web_ui;
use std::time::Duration;

const DATASTORE_TIMEOUT: Duration = Duration::from_secs(2);

/// Answers 200 when requests can be served, or 503 with a reason when the datastore is unavailable.
pub async fn healthz(State(state): Shared) -> Response {
    match state.core.database.check(DATASTORE_TIMEOUT).await {
        Ok(()) => Json(json!({"ok": true, "version": state.release.version})).into_response(),
        Err(reason) => {
            // The supervisor knows why the datastore is down.
            let supervisor_reason = ask_supervisor(&state.core).await.ok().and_then(|status| status.reason);
            let reason = supervisor_reason.unwrap_or_else(|| format!("datastore: {reason}"));
            let body = json!({"ok": false, "version": state.release.version, "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], Json(body)).into_response()
        }
    }
}

/// Answers 200 while this process handles requests, also without a datastore: a restart would not help.
pub async fn livez() -> Json<Value> {
    Json(json!({"ok": true}))
}

#[derive(Serialize, JsonSchema)]
pub struct VersionInfo {
    version: String,
    git_version: Option<String>,
}

/// Returns the version of the Airflow API served, which clients adapt to, and Leoflow's own.
pub async fn version(State(state): Shared) -> Json<VersionInfo> {
    Json(VersionInfo { version: web_ui::version().to_owned(), git_version: Some(state.release.version.to_string()) })
}

/// Asks the supervisor for the status of the instance.
pub async fn ask_supervisor(core: &Core) -> ApiResult<InstanceStatus> {
    let home = core.home.clone();
    let asked = blocking::run(move || control::status_of(&home)).await;
    asked
        .map_err(|error| ApiError::internal(&error))?
        .ok_or_else(|| ApiError::retry_later("The supervisor does not answer"))
}

/// The health of a component that is a separate process in Airflow.
pub struct Component {
    pub is_alive: bool,
    pub heartbeat: Option<Timestamp>,
}

pub struct Components {
    pub scheduler: Component,
    pub dag_processor: Component,
    pub triggerer: Component,
}

/// Returns the health of the components. The scheduler and the DAG processor are tasks of this server, which exits if
/// the DAG processor ends; triggers run in the agent, another process of the supervisor.
pub async fn components(core: &Core) -> Components {
    let now = Timestamp::now();
    let (beat, is_alive) = (core.phase.scheduler_beat.last(), core.phase.scheduler_beat.is_alive());
    let agent = ask_supervisor(core).await.ok();
    let agent = agent.and_then(|status| status.processes.into_iter().find(|process| process.name == "agent"));
    let agent_runs = agent.is_some_and(|process| process.state == "running");
    Components {
        scheduler: Component { is_alive, heartbeat: beat },
        dag_processor: Component { is_alive: true, heartbeat: Some(now) },
        triggerer: Component { is_alive: agent_runs, heartbeat: agent_runs.then_some(now) },
    }
}

#[derive(Serialize, JsonSchema)]
struct BaseInfoResponse {
    status: Option<&'static str>,
}

view! {
    struct SchedulerInfoResponse;
    fn scheduler_info(component: &Component) {
        status: Option<&'static str> = status_text(component.is_alive),
        latest_scheduler_heartbeat: Option<String> = heartbeat_text(component),
    }
}

view! {
    struct TriggererInfoResponse;
    fn triggerer_info(component: &Component) {
        status: Option<&'static str> = status_text(component.is_alive),
        latest_triggerer_heartbeat: Option<String> = heartbeat_text(component),
    }
}

view! {
    struct DagProcessorInfoResponse;
    fn dag_processor_info(component: &Component) {
        status: Option<&'static str> = status_text(component.is_alive),
        latest_dag_processor_heartbeat: Option<String> = heartbeat_text(component),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct HealthInfoResponse {
    metadatabase: BaseInfoResponse,
    scheduler: SchedulerInfoResponse,
    triggerer: TriggererInfoResponse,
    dag_processor: Option<DagProcessorInfoResponse>,
}

fn status_text(is_healthy: bool) -> Option<&'static str> {
    Some(if is_healthy { "healthy" } else { "unhealthy" })
}

fn heartbeat_text(component: &Component) -> Option<String> {
    component.heartbeat.map(|time| time.to_string())
}

pub async fn monitor(State(state): Shared) -> Json<HealthInfoResponse> {
    let (status, components) = tokio::join!(state.core.database.check(DATASTORE_TIMEOUT), components(&state.core));
    Json(HealthInfoResponse {
        metadatabase: BaseInfoResponse { status: status_text(status.is_ok()) },
        scheduler: scheduler_info(&components.scheduler),
        triggerer: triggerer_info(&components.triggerer),
        dag_processor: Some(dag_processor_info(&components.dag_processor)),
    })
}

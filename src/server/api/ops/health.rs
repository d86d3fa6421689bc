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

#[derive(Serialize, JsonSchema)]
pub struct VersionInfo {
    version: String,
    git_version: Option<String>,
}

/// Returns the version of the Airflow API served, which clients adapt to, and Leoflow's own.
pub async fn version(State(state): Shared) -> Json<VersionInfo> {
    Json(VersionInfo { version: web_ui::VERSION.to_owned(), git_version: Some(state.release.version.to_string()) })
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

#[derive(Serialize, JsonSchema)]
struct SchedulerInfoResponse {
    status: Option<&'static str>,
    latest_scheduler_heartbeat: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct TriggererInfoResponse {
    status: Option<&'static str>,
    latest_triggerer_heartbeat: Option<String>,
}

#[derive(Serialize, JsonSchema)]
struct DagProcessorInfoResponse {
    status: Option<&'static str>,
    latest_dag_processor_heartbeat: Option<String>,
}

#[derive(Serialize, JsonSchema)]
pub struct HealthInfoResponse {
    metadatabase: BaseInfoResponse,
    scheduler: SchedulerInfoResponse,
    triggerer: TriggererInfoResponse,
    dag_processor: Option<DagProcessorInfoResponse>,
}

pub async fn monitor(State(state): Shared) -> Json<HealthInfoResponse> {
    let status_text = |healthy: bool| Some(if healthy { "healthy" } else { "unhealthy" });
    let (status, components) = tokio::join!(state.core.database.check(DATASTORE_TIMEOUT), components(&state.core));
    let heartbeat_text = |component: &Component| component.heartbeat.map(|time| time.to_string());
    let Components { scheduler, dag_processor, triggerer } = components;
    Json(HealthInfoResponse {
        metadatabase: BaseInfoResponse { status: status_text(status.is_ok()) },
        scheduler: SchedulerInfoResponse {
            status: status_text(scheduler.is_alive),
            latest_scheduler_heartbeat: heartbeat_text(&scheduler),
        },
        triggerer: TriggererInfoResponse {
            status: status_text(triggerer.is_alive),
            latest_triggerer_heartbeat: heartbeat_text(&triggerer),
        },
        dag_processor: Some(DagProcessorInfoResponse {
            status: status_text(dag_processor.is_alive),
            latest_dag_processor_heartbeat: heartbeat_text(&dag_processor),
        }),
    })
}

//! Health checks for programs.

use crate::api::prelude::*;
use crate::api::views::BUNDLE;
use crate::state::Core;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_base::sys::{blocking, user};
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
    Json(VersionInfo {
        version: state.release.web_ui.version.to_owned(),
        git_version: Some(state.release.version.to_string()),
    })
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

#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HealthStatus {
    Healthy,
    Unhealthy,
}

/// The health of all instances of a component. Here each component has one.
#[derive(Clone, Copy, Serialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[expect(dead_code, reason = "one instance is never degraded")]
pub enum DetailedHealthStatus {
    Healthy,
    Degraded,
    Down,
}

#[derive(Serialize, JsonSchema)]
struct BaseInfoResponse {
    status: Option<HealthStatus>,
}

view! {
    struct SchedulerInstanceInfoResponse;
    fn scheduler_instance(component: &Component) {
        hostname: Option<String> = Some(user::host_name()),
        latest_scheduler_heartbeat: Option<String> = heartbeat_text(component),
    }
}

view! {
    struct SchedulerInfoResponse;
    fn scheduler_info(component: &Component) {
        status: Option<HealthStatus> = Some(status(component.is_alive)),
        latest_scheduler_heartbeat: Option<String> = heartbeat_text(component),
        detailed_status: Option<DetailedHealthStatus> = Some(detailed_status(component)),
        instances: Option<Vec<SchedulerInstanceInfoResponse>> = Some(instances(component, scheduler_instance)),
    }
}

view! {
    struct TriggererInstanceInfoResponse;
    fn triggerer_instance(component: &Component) {
        hostname: Option<String> = Some(user::host_name()),
        latest_triggerer_heartbeat: Option<String> = heartbeat_text(component),
        team_names: Vec<String> = Vec::new(),
    }
}

view! {
    struct TriggererInfoResponse;
    fn triggerer_info(component: &Component) {
        status: Option<HealthStatus> = Some(status(component.is_alive)),
        latest_triggerer_heartbeat: Option<String> = heartbeat_text(component),
        detailed_status: Option<DetailedHealthStatus> = Some(detailed_status(component)),
        instances: Option<Vec<TriggererInstanceInfoResponse>> = Some(instances(component, triggerer_instance)),
    }
}

view! {
    struct DagProcessorInstanceInfoResponse;
    fn dag_processor_instance(component: &Component) {
        hostname: Option<String> = Some(user::host_name()),
        latest_dag_processor_heartbeat: Option<String> = heartbeat_text(component),
        bundle_names: Option<Vec<&'static str>> = Some(vec![BUNDLE]),
    }
}

view! {
    struct DagProcessorInfoResponse;
    fn dag_processor_info(component: &Component) {
        status: Option<HealthStatus> = Some(status(component.is_alive)),
        latest_dag_processor_heartbeat: Option<String> = heartbeat_text(component),
        detailed_status: Option<DetailedHealthStatus> = Some(detailed_status(component)),
        instances: Option<Vec<DagProcessorInstanceInfoResponse>> = Some(instances(component, dag_processor_instance)),
    }
}

#[derive(Serialize, JsonSchema)]
pub struct HealthInfoResponse {
    metadatabase: BaseInfoResponse,
    scheduler: SchedulerInfoResponse,
    triggerer: TriggererInfoResponse,
    dag_processor: Option<DagProcessorInfoResponse>,
}

fn status(is_healthy: bool) -> HealthStatus {
    if is_healthy { HealthStatus::Healthy } else { HealthStatus::Unhealthy }
}

fn detailed_status(component: &Component) -> DetailedHealthStatus {
    if component.is_alive { DetailedHealthStatus::Healthy } else { DetailedHealthStatus::Down }
}

/// The running instances of a component: one, or none.
fn instances<T>(component: &Component, describe: impl Fn(&Component) -> T) -> Vec<T> {
    component.is_alive.then(|| describe(component)).into_iter().collect()
}

fn heartbeat_text(component: &Component) -> Option<String> {
    component.heartbeat.map(|time| time.to_string())
}

pub async fn monitor(State(state): Shared) -> Json<HealthInfoResponse> {
    let (datastore, components) = tokio::join!(state.core.database.check(DATASTORE_TIMEOUT), components(&state.core));
    Json(HealthInfoResponse {
        metadatabase: BaseInfoResponse { status: Some(status(datastore.is_ok())) },
        scheduler: scheduler_info(&components.scheduler),
        triggerer: triggerer_info(&components.triggerer),
        dag_processor: Some(dag_processor_info(&components.dag_processor)),
    })
}

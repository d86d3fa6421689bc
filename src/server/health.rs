//! Whether it works, for programs.

use super::lite::pages;
use super::state::AppState;
use crate::web_ui;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::http::header::RETRY_AFTER;
use axum::response::{IntoResponse, Response};
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::sync::Arc;
use std::time::Duration;

const PATIENCE: Duration = Duration::from_secs(2);

/// 200 when requests can be served, 503 with a reason when the datastore is away.
pub async fn healthz(State(state): State<Arc<AppState>>) -> Response {
    match state.database.check(PATIENCE).await {
        Ok(()) => Json(json!({"ok": true, "version": state.version})).into_response(),
        Err(reason) => {
            // The supervisor knows why it does not run.
            let told = pages::ask_supervisor(&state).await.ok().and_then(|status| status.reason);
            let reason = told.unwrap_or_else(|| format!("datastore: {reason}"));
            let body = json!({"ok": false, "version": state.version, "reason": reason});
            (StatusCode::SERVICE_UNAVAILABLE, [(RETRY_AFTER, "1")], Json(body)).into_response()
        }
    }
}

#[derive(Serialize, JsonSchema)]
pub struct VersionInfo {
    version: String,
    git_version: Option<String>,
}

/// The version of the Airflow whose API is served, by which clients choose their dialect, and our own.
pub async fn version(State(state): State<Arc<AppState>>) -> Json<VersionInfo> {
    Json(VersionInfo { version: web_ui::VERSION.to_owned(), git_version: Some(state.version.to_string()) })
}

/// A part of the instance that is a process of its own on Airflow.
pub struct Part {
    pub is_alive: bool,
    pub heartbeat: Option<Timestamp>,
}

pub struct Parts {
    pub scheduler: Part,
    pub dag_processor: Part,
    pub triggerer: Part,
}

/// The scheduler and what looks at the files are tasks of this server; triggers are run by the agent, whom the
/// supervisor keeps alive.
pub async fn parts(state: &AppState) -> Parts {
    let now = Timestamp::now();
    let (beat, is_alive) = (state.scheduler_beat.last(), state.scheduler_beat.is_alive());
    let agent = pages::ask_supervisor(state).await.ok();
    let agent = agent.and_then(|status| status.processes.into_iter().find(|process| process.name == "agent"));
    let agent_runs = agent.is_some_and(|process| process.state == "running");
    Parts {
        scheduler: Part { is_alive, heartbeat: beat },
        dag_processor: Part { is_alive: true, heartbeat: Some(now) },
        triggerer: Part { is_alive: agent_runs, heartbeat: agent_runs.then_some(now) },
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

pub async fn monitor(State(state): State<Arc<AppState>>) -> Json<HealthInfoResponse> {
    let word = |healthy: bool| Some(if healthy { "healthy" } else { "unhealthy" });
    let (status, parts) = tokio::join!(state.database.check(PATIENCE), parts(&state));
    let beat = |part: &Part| part.heartbeat.map(|at| at.to_string());
    let Parts { scheduler, dag_processor, triggerer } = parts;
    Json(HealthInfoResponse {
        metadatabase: BaseInfoResponse { status: word(status.is_ok()) },
        scheduler: SchedulerInfoResponse {
            status: word(scheduler.is_alive),
            latest_scheduler_heartbeat: beat(&scheduler),
        },
        triggerer: TriggererInfoResponse {
            status: word(triggerer.is_alive),
            latest_triggerer_heartbeat: beat(&triggerer),
        },
        dag_processor: Some(DagProcessorInfoResponse {
            status: word(dag_processor.is_alive),
            latest_dag_processor_heartbeat: beat(&dag_processor),
        }),
    })
}

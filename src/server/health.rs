//! Whether it works, for programs.

use super::lite::pages;
use super::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use serde_json::{Value, json};
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
            (StatusCode::SERVICE_UNAVAILABLE, Json(body)).into_response()
        }
    }
}

pub async fn version(State(state): State<Arc<AppState>>) -> Json<Value> {
    Json(json!({"version": state.version, "git_version": null}))
}

/// Airflow's `HealthInfoResponse`. What Lite has no process of says null, as Airflow does.
pub async fn monitor(State(state): State<Arc<AppState>>) -> Json<Value> {
    let word = |healthy: bool| if healthy { "healthy" } else { "unhealthy" };
    let status = word(state.database.check(PATIENCE).await.is_ok());
    let (beat, alive) = (state.scheduler_beat.last(), word(state.scheduler_beat.is_alive()));
    Json(json!({
        "metadatabase": {"status": status},
        "scheduler": {"status": alive, "latest_scheduler_heartbeat": beat.map(|at| at.to_string())},
        "triggerer": {"status": null, "latest_triggerer_heartbeat": null},
        "dag_processor": {"status": null, "latest_dag_processor_heartbeat": null},
    }))
}

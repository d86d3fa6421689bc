//! The pages of our own: a login, what runs, and what stands in for Airflow's web UI.

use super::render::{file, page};
use crate::config;
use crate::home::upkeep;
use crate::protocol::control;
use crate::protocol::status::InstanceStatus;
use crate::server::api_error::ApiError;
use crate::server::state::AppState;
use crate::sys::blocking;
use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use jiff::Zoned;
use serde_json::{Value, json};
use std::sync::Arc;

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub async fn style() -> impl IntoResponse {
    file("pages/style.css", "text/css; charset=utf-8")
}

pub async fn status_script() -> impl IntoResponse {
    file("pages/status.js", SCRIPT)
}

pub async fn docs_script() -> impl IntoResponse {
    file("pages/docs.js", SCRIPT)
}

pub async fn operation_script() -> impl IntoResponse {
    file("pages/operation.js", SCRIPT)
}

pub async fn times_script() -> impl IntoResponse {
    file("pages/times.js", SCRIPT)
}

pub async fn icon() -> impl IntoResponse {
    file("pages/icon.svg", "image/svg+xml")
}

/// `12.3 MB`; nothing where nobody knows.
pub fn size_text(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The login form, with what was wrong the last time.
pub fn login(email: &str, error: Option<&str>) -> Result<Html<String>, ApiError> {
    page("login.html", &json!({"email": email, "error": error}))
}

/// In the place of Airflow's web UI, where that is not there: why not, or nothing while it is being fetched.
pub fn without_ui(reason: Option<&str>) -> Result<Html<String>, ApiError> {
    page("without_ui.html", &json!({"reason": reason}))
}

/// The processes, as the supervisor sees them.
pub async fn status_page(State(state): State<Arc<AppState>>) -> Result<Html<String>, ApiError> {
    let status = ask_supervisor(&state).await?;
    let processes: Vec<Value> = status
        .processes
        .iter()
        .map(|process| {
            json!({
                "name": process.name, "state": process.state, "state_text": process.state_text(), "pid": process.pid,
                "restarts": process.restarts, "memory": process.memory_text(),
            })
        })
        .collect();
    page(
        "processes.html",
        &json!({
            "state": status.state, "reason": status.reason, "version": status.version, "home": status.home,
            "schema_version": status.schema_version, "processes": processes, "problems": problems(&state),
        }),
    )
}

/// Problems of the scheduled jobs.
pub fn problems(state: &AppState) -> Vec<String> {
    let known = upkeep::read(&state.home);
    let mut problems = known.as_ref().map(upkeep::Upkeep::problems).unwrap_or_default();
    if let Ok(Some(loaded)) = config::load(&state.home.config()) {
        let overdue = loaded.config.backup.overdue(known.as_ref(), state.started_at, &Zoned::now());
        problems.extend(overdue.iter().map(ToString::to_string));
    }
    problems
}

/// The same for the page's script, which keeps it fresh.
pub async fn status(State(state): State<Arc<AppState>>) -> Result<Json<InstanceStatus>, ApiError> {
    ask_supervisor(&state).await.map(Json)
}

pub(in crate::server) async fn ask_supervisor(state: &AppState) -> Result<InstanceStatus, ApiError> {
    let home = state.home.clone();
    let asked = blocking::run(move || control::status_of(&home)).await;
    asked
        .map_err(|error| ApiError::internal(&error))?
        .ok_or_else(|| ApiError::unavailable(&"the supervisor does not answer"))
}

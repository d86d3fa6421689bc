//! Static files and functions that Leoflow's own pages share, the login page, and the page in place of a missing web
//! UI.

use super::render::{file, page};
use crate::http::api_error::ApiError;
use crate::process::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::{Html, IntoResponse};
use jiff::Zoned;
use leoflow_base::config::{self, Config};
use leoflow_base::home::upkeep;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceStatus;
use leoflow_base::sys::blocking;
use serde_json::json;
use std::sync::Arc;

const SCRIPT: &str = "text/javascript; charset=utf-8";

pub async fn style() -> impl IntoResponse {
    file("pages/style.css", "text/css; charset=utf-8")
}

pub async fn frame_script() -> impl IntoResponse {
    file("pages/frame.js", SCRIPT)
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

/// `12.3 MB`; empty if unknown.
pub fn size_text(bytes: Option<u64>) -> String {
    let Some(bytes) = bytes else { return String::new() };
    match bytes {
        0..1_000_000 => format!("{:.1} kB", bytes as f64 / 1e3),
        1_000_000..1_000_000_000 => format!("{:.1} MB", bytes as f64 / 1e6),
        _ => format!("{:.1} GB", bytes as f64 / 1e9),
    }
}

/// The configuration as it is now; `None` if it is missing or invalid.
pub fn own_config(state: &AppState) -> Option<Config> {
    config::load(&state.home.config()).ok().flatten().map(|loaded| loaded.config)
}

/// The name of this instance.
pub fn instance_name(state: &AppState) -> String {
    config::instance_name(own_config(state).as_ref()).to_owned()
}

/// Where a browser that has not logged in runs.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Visitor {
    Local,
    /// On another machine; the login form must not reveal the administrator's e-mail address.
    Remote,
}

/// The login form, with the error of the last attempt.
pub fn login(state: &AppState, visitor: Visitor, error: Option<&str>) -> Result<Html<String>, ApiError> {
    let email = match visitor {
        Visitor::Local => state.auth.admin_email(),
        Visitor::Remote => String::new(),
    };
    // No instance name: by default it is the machine's name, which only logged-in users may see.
    page("login.html", "", json!({"email": email, "error": error}))
}

/// The page shown while Airflow's web UI is not installed; it gives the reason, or says that the UI is being
/// installed.
pub fn without_ui(state: &AppState) -> Result<Html<String>, ApiError> {
    page("without_ui.html", &instance_name(state), json!({"reason": state.release.ui.reason()}))
}

/// Returns the problems of scheduled backups and verifications.
pub fn problems(state: &AppState) -> Vec<String> {
    let known = upkeep::read(&state.home);
    let mut problems = known.as_ref().map(upkeep::Upkeep::problems).unwrap_or_default();
    if let Some(config) = own_config(state) {
        let overdue = config.backup.overdue(known.as_ref(), state.phase.started_at, &Zoned::now());
        problems.extend(overdue.iter().map(ToString::to_string));
    }
    problems
}

/// `GET /api/lite/status`, also polled by the script of the status page.
pub async fn status(State(state): State<Arc<AppState>>) -> Result<Json<InstanceStatus>, ApiError> {
    ask_supervisor(&state).await.map(Json)
}

pub(crate) async fn ask_supervisor(state: &AppState) -> Result<InstanceStatus, ApiError> {
    let home = state.home.clone();
    let asked = blocking::run(move || control::status_of(&home)).await;
    asked
        .map_err(|error| ApiError::internal(&error))?
        .ok_or_else(|| ApiError::retry_later("The supervisor does not answer"))
}

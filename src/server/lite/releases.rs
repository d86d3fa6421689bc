//! Releases and the examination of this instance over HTTP: for programs below `/api/lite`, and for people pages.

use super::pages::size_text;
use super::render::page;
use crate::server::api_error::ApiError;
use crate::server::own_program::ask;
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use axum::response::Html;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

async fn asked(state: &AppState, arguments: &[&str]) -> Result<Json<Value>, ApiError> {
    let found = ask(&state.home, arguments).await;
    found.map(Json).map_err(|reason| ApiError::new(StatusCode::SERVICE_UNAVAILABLE, reason))
}

/// `GET /api/lite/releases`: those that are kept here, and how they followed one another.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    asked(&state, &["versions"]).await
}

/// `GET /api/lite/releases/plan`: what an upgrade would do.
pub async fn plan(State(state): Shared) -> Result<Json<Value>, ApiError> {
    asked(&state, &["upgrade", "--dry-run"]).await
}

/// `GET /api/lite/doctor`.
pub async fn examination(State(state): Shared) -> Result<Json<Value>, ApiError> {
    asked(&state, &["doctor"]).await
}

pub struct OfReleases;

impl Query for OfReleases {
    const OTHERS: &'static [Parameter] = &[Parameter::new("plan", Kind::Flag).or("false")];
}

/// `/lite/releases`; with `?plan=true` it looks for a newer one, which may take a network.
pub async fn releases_page(State(state): Shared, wanted: Asked<OfReleases>) -> Result<Html<String>, ApiError> {
    let found = ask(&state.home, &["versions"]).await;
    let (found, mut reason) = match found {
        Ok(found) => (found, None),
        Err(reason) => (Value::Null, Some(reason)),
    };
    let kept: Vec<Value> = found["versions"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            json!({
                "version": one["version"], "current": one["current"] == true, "schema_version": one["schema_version"],
                "size": size_text(one["size_bytes"].as_u64()),
            })
        })
        .collect();
    let mut history: Vec<Value> = found["history"].as_array().cloned().unwrap_or_default();
    history.reverse();
    let plan = match wanted.flag("plan")?.unwrap_or(false) {
        false => Value::Null,
        true => match ask(&state.home, &["upgrade", "--dry-run"]).await {
            Ok(plan) => shown(&plan),
            Err(why) => {
                reason = Some(why);
                Value::Null
            }
        },
    };
    page("releases.html", &json!({"versions": kept, "history": history, "plan": plan, "reason": reason}))
}

fn shown(plan: &Value) -> Value {
    let migrations: Vec<String> = plan["migrations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let undo = if one["reversible"] == true { "can be undone" } else { "cannot be undone by itself" };
            format!(
                "V{:04}__{} ({undo})",
                one["version"].as_i64().unwrap_or(0),
                one["name"].as_str().unwrap_or_default()
            )
        })
        .collect();
    let components: Vec<String> = plan["components"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let what = match one["action"]["fetch"]["size"].as_u64() {
                Some(size) => format!("is fetched, {}", size_text(Some(size))),
                None => "stays".to_owned(),
            };
            let text = |name: &str| one[name].as_str().unwrap_or_default();
            format!("{} {} {what}", text("name"), text("version"))
        })
        .collect();
    json!({
        "from": plan["from"], "to": plan["to"], "migrations": migrations, "components": components,
        "schema_from": plan["schema_from"], "schema_to": plan["schema_to"], "warnings": plan["warnings"],
        "notes": plan["notes"], "program": size_text(plan["program"]["size"].as_u64()),
        "disk": size_text(plan["needs_bytes"].as_u64()),
    })
}

/// `/lite/doctor`.
pub async fn doctor_page(State(state): Shared) -> Result<Html<String>, ApiError> {
    let (checks, reason) = match ask(&state.home, &["doctor"]).await {
        Ok(found) => (found["checks"].clone(), None),
        Err(reason) => (json!([]), Some(reason)),
    };
    let is_good = |one: &Value| one["verdict"] == "ok";
    let all_good = checks.as_array().is_some_and(|checks| checks.iter().all(is_good));
    page("doctor.html", &json!({"checks": checks, "all_good": all_good, "reason": reason}))
}

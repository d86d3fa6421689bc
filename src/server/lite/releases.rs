//! Releases and the examination of this instance over HTTP: for programs below `/api/lite`, and for people pages.

use super::pages::size_text;
use super::render::page;
use crate::home::operations::Operation;
use crate::server::api_error::ApiError;
use crate::server::own_program::{answer, ask, newest};
use crate::server::query::{Asked, Kind, Parameter, Query};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::Html;
use serde_json::{Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// `GET /api/lite/releases`: those that are kept here, and how they followed one another.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    answer(&state.home, &["versions"]).await.map(Json)
}

/// `GET /api/lite/releases/plan`: what an upgrade would do.
pub async fn plan(State(state): Shared) -> Result<Json<Value>, ApiError> {
    answer(&state.home, &["upgrade", "--dry-run"]).await.map(Json)
}

/// `GET /api/lite/doctor`.
pub async fn examination(State(state): Shared) -> Result<Json<Value>, ApiError> {
    answer(&state.home, &["doctor"]).await.map(Json)
}

pub struct OfReleases;

impl Query for OfReleases {
    const OTHERS: &'static [Parameter] = &[Parameter::new("plan", Kind::Flag).or("false")];
}

/// `/lite/releases`; with `?plan=true` it looks for a newer one, which may take a network.
pub async fn releases_page(State(state): Shared, wanted: Asked<OfReleases>) -> Result<Html<String>, ApiError> {
    let is_wanted = wanted.flag("plan")?.unwrap_or(false);
    let plan = async {
        match is_wanted {
            true => ask(&state.home, &["upgrade", "--dry-run"]).await.map(Some),
            false => Ok(None),
        }
    };
    let (kept, plan) = tokio::join!(ask(&state.home, &["versions"]), plan);
    rendered(kept, plan, newest(&state.home).await.as_ref())
}

/// The same page with why what was asked for is not done.
pub async fn page_with(state: &AppState, refused: &str) -> Result<Html<String>, ApiError> {
    let kept = ask(&state.home, &["versions"]).await.and(Err(refused.to_owned()));
    rendered(kept, Ok(None), newest(&state.home).await.as_ref())
}

fn rendered(
    kept: Result<Value, String>,
    plan: Result<Option<Value>, String>,
    operation: Option<&Operation>,
) -> Result<Html<String>, ApiError> {
    let reasons: Vec<&String> = [kept.as_ref().err(), plan.as_ref().err()].into_iter().flatten().collect();
    let reason = json!(reasons.first());
    let found = kept.unwrap_or_default();
    let row = |one: &Value| {
        json!({
            "version": one["version"], "current": one["current"] == true, "schema_version": one["schema_version"],
            "size": size_text(one["size_bytes"].as_u64()),
        })
    };
    let kept: Vec<Value> = found["versions"].as_array().into_iter().flatten().map(row).collect();
    let mut history: Vec<Value> = found["history"].as_array().cloned().unwrap_or_default();
    history.reverse();
    let plan = plan.ok().flatten().map(|plan| shown(&plan));
    page(
        "releases.html",
        &json!({"versions": kept, "history": history, "plan": plan, "reason": reason, "operation": operation}),
    )
}

/// Nothing to do, or what would be done.
fn shown(plan: &Value) -> Value {
    if plan["status"] == "up_to_date" {
        return json!({"newest": plan["version"]});
    }
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
        "newest": null, "from": plan["from"], "to": plan["to"], "migrations": migrations, "components": components,
        "schema_from": plan["schema_from"], "schema_to": plan["schema_to"], "warnings": plan["warnings"],
        "notes": plan["notes"], "program": size_text(plan["program"]["size"].as_u64()),
        "disk": size_text(plan["needs_bytes"].as_u64()),
    })
}

/// `/lite/doctor`.
pub async fn doctor_page(State(state): Shared) -> Result<Html<String>, ApiError> {
    examined(ask(&state.home, &["doctor"]).await)
}

fn examined(found: Result<Value, String>) -> Result<Html<String>, ApiError> {
    // A warning is no fault, here as in the terminal.
    let (verdict, said) = match &found {
        Ok(found) if found["ok"] == true => ("healthy", "all is well"),
        Ok(_) => ("failed", "something is wrong"),
        Err(_) => ("failed", "not known"),
    };
    let (checks, reason) = match found {
        Ok(found) => (found["checks"].clone(), None),
        Err(reason) => (json!([]), Some(reason)),
    };
    page("doctor.html", &json!({"checks": checks, "verdict": verdict, "said": said, "reason": reason}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_release_is_said_to_be_that() {
        let kept = json!({"versions": [{"version": "0.1.0", "current": true, "size_bytes": 5}], "history": []});
        let kept = || Ok(kept.clone());
        let Html(page) = rendered(kept(), Ok(Some(json!({"status": "up_to_date", "version": "0.1.0"}))), None).unwrap();
        assert!(page.contains("0.1.0 is the newest") && !page.contains("leoflow upgrade"), "{page}");
        let plan = json!({
            "from": "0.1.0", "to": "0.2.0", "schema_from": 1, "schema_to": 2, "needs_bytes": 3_000_000, "warnings": ["w"],
            "migrations": [{"version": 2, "name": "more", "reversible": true}], "notes": "N", "program": {"size": 7_000_000},
            "components": [{"name": "postgres", "version": "18", "action": {"fetch": {"size": 9_000_000}}}],
        });
        let Html(page) = rendered(kept(), Ok(Some(plan)), None).unwrap();
        for said in ["leoflow upgrade 0.2.0", "7.0 MB", "postgres 18 is fetched, 9.0 MB", "V0002__more (can be undone)"]
        {
            assert!(page.contains(said), "{said}: {page}");
        }
        let Html(page) = rendered(Err("no way".to_owned()), Ok(None), None).unwrap();
        assert!(page.contains("no way") && page.contains("Look for a newer release"), "{page}");
    }

    #[test]
    fn the_doctors_heading_is_the_doctors_verdict() {
        let check = json!({"name": "binary", "verdict": "warning", "detail": "d", "remedy": "r"});
        for (found, said) in [
            (Ok(json!({"ok": true, "checks": [check]})), "all is well"),
            (Ok(json!({"ok": false, "checks": [check]})), "something is wrong"),
            (Err("it cannot".to_owned()), "not known"),
        ] {
            let Html(page) = examined(found).unwrap();
            assert!(page.contains(said), "{said}: {page}");
        }
    }
}

//! Releases and diagnostics of this instance over HTTP: the API below `/api/lite`, and pages.

use super::storage::size_text;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::query::{Kind, Parameter, Query, QueryParams};
use crate::pages::{page, with_home};
use crate::release::own_program::{ask, newest};
use axum::Json;
use axum::extract::State;
use axum::response::Html;
use leoflow_base::config;
use leoflow_base::home::operations::Operation;
use serde_json::{Value, json};

/// `GET /api/lite/releases`: the installed releases, and the history of upgrades and rollbacks.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    ask(&state.core.home, &["versions"]).await.map(Json)
}

/// `GET /api/lite/releases/plan`: what an upgrade would do.
pub async fn plan(State(state): Shared) -> Result<Json<Value>, ApiError> {
    ask(&state.core.home, &["upgrade", "--dry-run"]).await.map(Json)
}

/// `GET /api/lite/doctor`.
pub async fn doctor(State(state): Shared) -> Result<Json<Value>, ApiError> {
    ask(&state.core.home, &["doctor"]).await.map(Json)
}

pub struct ReleasesQuery;

impl Query for ReleasesQuery {
    const OTHERS: &'static [Parameter] = &[Parameter::new("plan", Kind::Flag).or("false")];
}

/// `/lite/releases`; with `?plan=true` it looks for a newer release, which may use the network.
pub async fn releases_page(State(state): Shared, params: QueryParams<ReleasesQuery>) -> Result<Html<String>, ApiError> {
    let has_plan = params.flag("plan")?.unwrap_or(false);
    let plan = async {
        match has_plan {
            true => ask(&state.core.home, &["upgrade", "--dry-run"]).await.map(Some),
            false => Ok(None),
        }
    };
    show(&state, plan).await
}

/// Renders the page of releases with the reason why a request was refused.
pub async fn error_page(state: &AppState, refused: ApiError) -> Result<Html<String>, ApiError> {
    show(state, async { Err(refused) }).await
}

async fn show(
    state: &AppState,
    plan: impl Future<Output = Result<Option<Value>, ApiError>>,
) -> Result<Html<String>, ApiError> {
    let (versions, plan) = tokio::join!(ask(&state.core.home, &["versions"]), plan);
    let operation = newest(&state.core.home).await;
    let has_host = config::release_host(state.core.config().as_ref()).is_some();
    let page = render_releases(&state.core.instance_name(), versions, plan, operation.as_ref(), has_host)?;
    Ok(with_home(page, &state.core.home))
}

fn render_releases(
    instance: &str,
    versions: Result<Value, ApiError>,
    plan: Result<Option<Value>, ApiError>,
    operation: Option<&Operation>,
    has_release_host: bool,
) -> Result<Html<String>, ApiError> {
    let reason = versions.as_ref().err().or(plan.as_ref().err()).map(ApiError::message);
    let found = versions.unwrap_or_default();
    let row = |one: &Value| {
        json!({
            "version": one["version"], "current": one["current"] == true, "schema_version": one["schema_version"],
            "size": size_text(one["size_bytes"].as_u64()),
        })
    };
    let versions: Vec<Value> = found["versions"].as_array().into_iter().flatten().map(row).collect();
    let mut history: Vec<Value> = found["history"].as_array().cloned().unwrap_or_default();
    history.reverse();
    let plan = plan.ok().flatten().map(|plan| plan_view(&plan));
    page(
        "releases.html",
        instance,
        json!({
            "versions": versions, "history": history, "plan": plan, "reason": reason, "operation": operation,
            "has_release_host": has_release_host,
        }),
    )
}

/// An upgrade plan for the template; `newest` is set when there is nothing to do.
fn plan_view(plan: &Value) -> Value {
    if plan["status"] == "up_to_date" {
        return json!({"newest": plan["version"]});
    }
    let migrations: Vec<String> = plan["migrations"]
        .as_array()
        .into_iter()
        .flatten()
        .map(|one| {
            let undo = if one["reversible"] == true { "reversible" } else { "not reversible" };
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
            let action = match one["action"]["fetch"]["size"].as_u64() {
                Some(size) => format!("download, {}", size_text(Some(size))),
                None => "unchanged".to_owned(),
            };
            let text = |name: &str| one[name].as_str().unwrap_or_default();
            format!("{} {}: {action}", text("name"), text("version"))
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
    let page = render_doctor(&state.core.instance_name(), ask(&state.core.home, &["doctor"]).await)?;
    Ok(with_home(page, &state.core.home))
}

fn render_doctor(instance: &str, found: Result<Value, ApiError>) -> Result<Html<String>, ApiError> {
    // A warning is not a failure, as in the terminal.
    let (verdict, summary) = match &found {
        Ok(found) if found["ok"] == true => ("healthy", "all checks passed"),
        Ok(_) => ("failed", "problems found"),
        Err(_) => ("failed", "unknown"),
    };
    let (checks, reason) = match found {
        Ok(found) => (found["checks"].clone(), None),
        Err(error) => (json!([]), Some(error.message())),
    };
    page("doctor.html", instance, json!({"checks": checks, "verdict": verdict, "summary": summary, "reason": reason}))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shows_a_plan_or_that_the_release_is_the_newest() {
        let versions = json!({"versions": [{"version": "0.1.0", "current": true, "size_bytes": 5}], "history": []});
        let versions = || Ok(versions.clone());
        let up_to_date = Ok(Some(json!({"status": "up_to_date", "version": "0.1.0"})));
        let Html(page) = render_releases("one", versions(), up_to_date, None, true).unwrap();
        assert!(page.contains("0.1.0 is the newest") && !page.contains("leoflow upgrade"), "{page}");
        let plan = json!({
            "from": "0.1.0", "to": "0.2.0", "schema_from": 1, "schema_to": 2, "needs_bytes": 3_000_000, "warnings": ["w"],
            "migrations": [{"version": 2, "name": "more", "reversible": true}], "notes": "N", "program": {"size": 7_000_000},
            "components": [{"name": "postgres", "version": "18", "action": {"fetch": {"size": 9_000_000}}}],
        });
        let Html(page) = render_releases("one", versions(), Ok(Some(plan)), None, true).unwrap();
        for part in ["leoflow upgrade 0.2.0", "7.0 MB", "postgres 18: download, 9.0 MB", "V0002__more (reversible)"] {
            assert!(page.contains(part), "{part}: {page}");
        }
        for has_host in [true, false] {
            let versions = Err(ApiError::retry_later("no answer"));
            let Html(page) = render_releases("one", versions, Ok(None), None, has_host).unwrap();
            assert!(page.contains("no answer"), "{page}");
            assert_eq!(page.contains("Check for a newer release"), has_host, "{page}");
            assert_ne!(page.contains("No release host is configured"), has_host, "{page}");
        }
    }

    #[test]
    fn the_heading_shows_the_verdict() {
        let check = json!({"name": "binary", "verdict": "warning", "detail": "d", "remedy": "r"});
        for (found, summary) in [
            (Ok(json!({"ok": true, "checks": [check]})), "all checks passed"),
            (Ok(json!({"ok": false, "checks": [check]})), "problems found"),
            (Err(ApiError::retry_later("it cannot")), "unknown"),
        ] {
            let Html(page) = render_doctor("one", found).unwrap();
            assert!(page.contains(summary), "{summary}: {page}");
        }
    }
}

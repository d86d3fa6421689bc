//! What is changed over HTTP is written down: who, what, and with which words.

use super::api::redact;
use super::api_error::ApiError;
use super::body::LARGEST;
use super::state::AppState;
use crate::auth::masking::HIDDEN;
use crate::engine::store::event_log::{self, NewEvent};
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Request, State};
use axum::http::{Method, StatusCode};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde_json::{Map, Value};
use std::sync::Arc;
use tracing::warn;

/// Airflow's names of what changes something: method, path below `/api/v2`, name.
const EVENTS: &[(Method, &str, &str)] = &[
    (Method::POST, "/assets/events", "create_asset_event"),
    (Method::POST, "/assets/{}/materialize", "materialize_asset"),
    (Method::DELETE, "/assets/{}/queuedEvents", "delete_asset_queued_events"),
    (Method::DELETE, "/assets/{}/state-store", "clear_asset_state_store"),
    (Method::PUT, "/assets/{}/state-store/{}", "set_asset_state_store"),
    (Method::DELETE, "/assets/{}/state-store/{}", "delete_asset_state_store"),
    (Method::POST, "/backfills", "create_backfill"),
    (Method::PUT, "/backfills/{}/pause", "pause_backfill"),
    (Method::PUT, "/backfills/{}/unpause", "unpause_backfill"),
    (Method::PUT, "/backfills/{}/cancel", "cancel_backfill"),
    (Method::POST, "/connections", "post_connection"),
    (Method::PATCH, "/connections", "bulk_connections"),
    (Method::PATCH, "/connections/{}", "patch_connection"),
    (Method::DELETE, "/connections/{}", "delete_connection"),
    (Method::PATCH, "/dags", "patch_dags"),
    (Method::PATCH, "/dags/{}", "patch_dag"),
    (Method::DELETE, "/dags/{}", "delete_dag"),
    (Method::POST, "/dags/{}/favorite", "favorite_dag"),
    (Method::POST, "/dags/{}/unfavorite", "unfavorite_dag"),
    (Method::DELETE, "/dags/{}/assets/queuedEvents", "delete_dag_asset_queued_events"),
    (Method::DELETE, "/dags/{}/assets/{}/queuedEvents", "delete_dag_asset_queued_event"),
    (Method::POST, "/dags/{}/clearTaskInstances", "post_clear_task_instances"),
    (Method::POST, "/dags/{}/clearDagRuns", "clear_dag_runs"),
    (Method::POST, "/dags/{}/clearPartitions", "clear_dag_run_partitions"),
    (Method::POST, "/dags/{}/dagRuns", "trigger_dag_run"),
    (Method::PATCH, "/dags/{}/dagRuns", "bulk_dag_runs"),
    (Method::PATCH, "/dags/{}/dagRuns/{}", "patch_dag_run"),
    (Method::DELETE, "/dags/{}/dagRuns/{}", "delete_dag_run"),
    (Method::POST, "/dags/{}/dagRuns/{}/clear", "clear_dag_run"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskGroupInstances/{}", "patch_task_group_instances"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances", "bulk_task_instances"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances/{}", "patch_task_instance"),
    (Method::DELETE, "/dags/{}/dagRuns/{}/taskInstances/{}", "delete_task_instance"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances/{}/{}", "patch_task_instance"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances/{}/{}/hitlDetails", "update_hitl_detail"),
    (Method::POST, "/dags/{}/dagRuns/{}/taskInstances/{}/xcomEntries", "create_xcom_entry"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances/{}/xcomEntries/{}", "update_xcom_entry"),
    (Method::DELETE, "/dags/{}/dagRuns/{}/taskInstances/{}/xcomEntries/{}", "delete_xcom_entry"),
    (Method::DELETE, "/dags/{}/dagRuns/{}/taskInstances/{}/state-store", "clear_task_state_store"),
    (Method::PUT, "/dags/{}/dagRuns/{}/taskInstances/{}/state-store/{}", "set_task_state_store"),
    (Method::PATCH, "/dags/{}/dagRuns/{}/taskInstances/{}/state-store/{}", "patch_task_state_store"),
    (Method::DELETE, "/dags/{}/dagRuns/{}/taskInstances/{}/state-store/{}", "delete_task_state_store"),
    (Method::PUT, "/parseDagFile/{}", "reparse_dag_file"),
    (Method::POST, "/pools", "post_pool"),
    (Method::PATCH, "/pools", "bulk_pools"),
    (Method::PATCH, "/pools/{}", "patch_pool"),
    (Method::DELETE, "/pools/{}", "delete_pool"),
    (Method::POST, "/variables", "post_variable"),
    (Method::PATCH, "/variables", "bulk_variables"),
    (Method::PATCH, "/variables/{}", "patch_variable"),
    (Method::DELETE, "/variables/{}", "delete_variable"),
];
/// Those that change nothing unless the body says so.
const TRIED_FIRST: [&str; 4] =
    ["post_clear_task_instances", "clear_dag_runs", "clear_dag_run_partitions", "clear_dag_run"];
/// Of what was asked for; of more, only that it was much.
const LONGEST: usize = 10_000;

/// For the API: writes down what was changed, once it was.
pub async fn log(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let Some((event, path)) = event_of(&request) else { return next.run(request).await };
    let uri = request.uri().clone();
    let (parts, body) = request.into_parts();
    let Ok(bytes) = to_bytes(body, LARGEST).await else {
        let detail = "The body could not be read, or is larger than 16 MiB";
        return ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, detail).into_response();
    };
    let asked = serde_json::from_slice(&bytes).ok();
    let response = next.run(Request::from_parts(parts, Body::from(bytes))).await;
    let is_trial = TRIED_FIRST.contains(&event) && asked.as_ref().is_some_and(is_dry_run);
    if response.status().is_success() && !is_trial {
        let new = entry(&state, event, &path, uri.path(), asked);
        let added = async { event_log::add(&*state.database.get().await?, &new).await.map_err(ApiError::from) }.await;
        if let Err(error) = added {
            warn!("that {event} was done could not be written down: {}", error.message());
        }
    }
    response
}

fn is_dry_run(asked: &Value) -> bool {
    asked["dry_run"].as_bool().unwrap_or(true)
}

/// The name of what is asked for, and the path that its route has.
fn event_of(request: &Request) -> Option<(&'static str, String)> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let below = path.strip_prefix("/api/v2")?;
    let general: Vec<&str> = below.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    let general = general.join("/");
    let (_, _, event) = EVENTS.iter().find(|(method, known, _)| method == request.method() && *known == general)?;
    Some((*event, path.to_owned()))
}

/// The parts of a path that its route names. The last may be the rest of the path.
fn named_parts<'a>(route: &'a str, path: &str) -> Vec<(&'a str, String)> {
    let (route, path): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
    let decoded = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut found = Vec::new();
    for (at, part) in route.iter().enumerate() {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
        let value = match name.strip_prefix('*') {
            Some(_) => path.get(at..).unwrap_or_default().join("/"),
            None => path.get(at).copied().unwrap_or_default().to_owned(),
        };
        found.push((name.trim_start_matches('*'), decoded(&value)));
    }
    found
}

fn entry(state: &AppState, event: &str, route: &str, path: &str, asked: Option<Value>) -> NewEvent {
    let mut new =
        NewEvent { event: event.to_owned(), owner: Some(state.secrets().admin_email.clone()), ..NewEvent::default() };
    let mut extra = Map::new();
    for (name, value) in named_parts(route, path) {
        match name {
            "dag_id" => new.dag_id = Some(value),
            "run_id" => new.run_id = Some(value),
            "task_id" => new.task_id = Some(value),
            "map_index" => new.map_index = value.parse().ok(),
            _ => drop(extra.insert(name.to_owned(), value.into())),
        }
    }
    if let Some(Value::Object(body)) = asked {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        new.dag_id = new.dag_id.or_else(|| text("dag_id"));
        new.run_id = new.run_id.or_else(|| text("dag_run_id"));
        new.logical_date = text("logical_date").and_then(|date| date.parse().ok());
        extra.extend(without_secrets(event, body));
    }
    let text = Value::Object(extra).to_string();
    new.extra = Some(if text.len() > LONGEST { format!("{} bytes", text.len()) } else { text });
    // What Postgres cannot hold.
    for field in [&mut new.dag_id, &mut new.run_id, &mut new.task_id, &mut new.extra].into_iter().flatten() {
        *field = field.replace('\0', "\u{fffd}");
    }
    new
}

/// Of Variables and Connections the values, whatever they are called; of everything else what its name says is secret.
fn without_secrets(event: &str, body: Map<String, Value>) -> Map<String, Value> {
    let hidden: &[&str] = match event {
        _ if event.contains("variable") => &["value", "val"],
        _ if event.contains("connection") => &["password", "extra"],
        _ => &[],
    };
    let mut shown = redact::fields(&Value::Object(body));
    hide(&mut shown, hidden);
    match shown {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

fn hide(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (name, inner) in fields {
                if names.contains(&name.as_str()) && !inner.is_null() {
                    *inner = HIDDEN.into();
                } else {
                    hide(inner, names);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|inner| hide(inner, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_parts_of_a_path_are_named() {
        let route = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear";
        let found = named_parts(route, "/api/v2/dags/a%2Fb/dagRuns/r%20r/clear");
        assert_eq!(found, [("dag_id", "a/b".to_owned()), ("run_id", "r r".to_owned())]);
        let found = named_parts("/api/v2/variables/{*key}", "/api/v2/variables/a/b%20c");
        assert_eq!(found, [("key", "a/b c".to_owned())]);
    }

    #[test]
    fn no_secret_is_written_down() {
        let body = |value: Value| value.as_object().unwrap().clone();
        let one = without_secrets("post_variable", body(json!({"key": "plain", "value": "s3cret"})));
        assert_eq!(Value::Object(one), json!({"key": "plain", "value": HIDDEN}));
        let several =
            json!({"actions": [{"entities": [{"connection_id": "c", "password": "s3cret", "extra": "{\"a\": 1}"}]}]});
        let text = Value::Object(without_secrets("bulk_connections", body(several))).to_string();
        assert!(
            text.contains("\"connection_id\":\"c\"") && !text.contains("s3cret") && !text.contains("a\\\""),
            "{text}"
        );
        let conf = without_secrets("trigger_dag_run", body(json!({"conf": {"api_key": "s3cret", "n": 1}})));
        assert_eq!(Value::Object(conf), json!({"conf": {"api_key": HIDDEN, "n": 1}}));
    }
}

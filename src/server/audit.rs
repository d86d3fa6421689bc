//! What is changed over HTTP is written down: who, what, and with which words.

use super::api::redact;
use super::api_error::ApiError;
use super::body::LARGEST;
use super::state::AppState;
use crate::auth::masking::HIDDEN;
use crate::engine::store::event_log::{self, NewEvent};
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Query, Request, State};
use axum::http::{HeaderMap, Method, StatusCode, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use percent_encoding::percent_decode_str;
use serde::Deserialize;
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
/// What this program's own commands are asked to do.
const OPERATIONS: &[(Method, &str, &str)] = &[
    (Method::POST, "/backups", "make_backup"),
    (Method::POST, "/backups/{}/verify", "verify_backup"),
    (Method::POST, "/restore", "restore_backup"),
    (Method::POST, "/upgrade", "upgrade_release"),
    (Method::POST, "/rollback", "roll_back_release"),
    (Method::POST, "/instances/upgrade", "upgrade_instances"),
];
/// The same by the pages' buttons.
const PAGES: &[(Method, &str, &str)] = &[
    (Method::POST, "/backups", "make_backup"),
    (Method::POST, "/backups/{}/verify", "verify_backup"),
    (Method::POST, "/backups/{}/restore", "restore_backup"),
    (Method::POST, "/releases/upgrade", "upgrade_release"),
];
/// What this user's own commands bring in at once: of that only that it was done.
const IMPORTS: &[(Method, &str, &str)] =
    &[(Method::PUT, "/local/variables", "variables_import"), (Method::PUT, "/local/connections", "connections_import")];
/// Those that change nothing unless the body says so.
const TRIED_FIRST: [&str; 4] =
    ["post_clear_task_instances", "clear_dag_runs", "clear_dag_run_partitions", "clear_dag_run"];
/// Of a body that is larger, only how large it is.
const LONGEST: usize = 10_000;

/// Writes down what is asked for before it is done, as Airflow does: what was refused is there too.
pub async fn log(State(state): State<Arc<AppState>>, request: Request, next: Next) -> Response {
    let Some((event, path)) = event_of(&request) else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let (asked, body) = if path.starts_with("/local/") {
        (Asked::default(), body)
    } else {
        match to_bytes(body, LARGEST).await {
            Ok(bytes) => (Asked::of(&bytes), Body::from(bytes)),
            Err(_) => return unreadable(&parts.headers).into_response(),
        }
    };
    if !(TRIED_FIRST.contains(&event) && asked.is_dry_run) {
        let new = entry(&state, event, &path, &parts.uri, asked);
        let added = async { event_log::add(&*state.database.get().await?, &new).await.map_err(ApiError::from) }.await;
        if let Err(error) = added {
            // The change itself will find the datastore as it is.
            warn!("that {event} was asked for could not be written down: {}", error.message());
        }
    }
    next.run(Request::from_parts(parts, body)).await
}

fn unreadable(headers: &HeaderMap) -> ApiError {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length <= LARGEST => ApiError::new(StatusCode::BAD_REQUEST, "The body could not be read"),
        _ => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The body is larger than 16 MiB"),
    }
}

/// What of a body is looked at.
#[derive(Default)]
struct Asked {
    is_dry_run: bool,
    body: Option<Map<String, Value>>,
}

impl Asked {
    fn of(bytes: &[u8]) -> Self {
        #[derive(Deserialize)]
        struct Trial {
            dry_run: Option<bool>,
        }
        let trial: Option<Trial> = serde_json::from_slice(bytes).ok();
        let body = if bytes.len() > LONGEST {
            Some(Map::from_iter([("bytes".to_owned(), bytes.len().into())]))
        } else {
            serde_json::from_slice(bytes).ok()
        };
        Self { is_dry_run: trial.is_some_and(|trial| trial.dry_run.unwrap_or(true)), body }
    }
}

/// The name of what is asked for, and the path that its route has.
fn event_of(request: &Request) -> Option<(&'static str, String)> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    let places = [("/api/v2", EVENTS), ("/api/lite", OPERATIONS), ("/lite", PAGES)];
    let below = places.iter().find_map(|(place, known)| path.strip_prefix(place).map(|below| (*known, below)));
    let (known, below) = below.unwrap_or((IMPORTS, path));
    let general: Vec<&str> = below.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    let general = general.join("/");
    let (_, _, event) = known.iter().find(|(method, known, _)| method == request.method() && *known == general)?;
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

fn entry(state: &AppState, event: &str, route: &str, uri: &Uri, asked: Asked) -> NewEvent {
    let mut new =
        NewEvent { event: event.to_owned(), owner: Some(state.secrets().admin_email.clone()), ..NewEvent::default() };
    let mut extra = Map::new();
    for (name, value) in named_parts(route, uri.path()) {
        match name {
            "dag_id" => new.dag_id = Some(value),
            "run_id" | "dag_run_id" => new.run_id = Some(value),
            "task_id" => new.task_id = Some(value),
            "map_index" => new.map_index = value.parse().ok(),
            _ => drop(extra.insert(name.to_owned(), value.into())),
        }
    }
    let query: Vec<(String, String)> = Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    for (name, value) in query {
        if name == "map_index" {
            new.map_index = value.parse().ok();
        }
        extra.insert(name, value.into());
    }
    if let Some(body) = asked.body {
        let text = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        new.dag_id = new.dag_id.or_else(|| text("dag_id"));
        new.run_id = new.run_id.or_else(|| text("dag_run_id"));
        new.logical_date = text("logical_date").and_then(|date| date.parse().ok());
        extra.extend(body);
    }
    new.extra = Some(Value::Object(without_secrets(event, extra)).to_string());
    // What Postgres cannot hold.
    for field in [&mut new.dag_id, &mut new.run_id, &mut new.task_id, &mut new.extra].into_iter().flatten() {
        *field = field.replace('\0', "\u{fffd}");
    }
    new
}

/// The values of what holds any value are hidden, whatever it is called; of everything else what its name says is secret.
fn without_secrets(event: &str, asked: Map<String, Value>) -> Map<String, Value> {
    let holds_any = ["variable", "xcom", "state_store"].iter().any(|kind| event.contains(kind));
    let hidden: &[&str] = match event {
        _ if holds_any => &["value", "val"],
        _ if event.contains("connection") => &["password", "extra"],
        _ => &[],
    };
    let mut shown = redact::fields(&Value::Object(asked));
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
    use crate::server::api::all_routes;
    use crate::server::openapi::routes::Entry;
    use serde_json::json;

    #[test]
    fn what_is_logged_has_a_route() {
        let general = |path: &str| {
            let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
            path.split('/').map(part).collect::<Vec<_>>().join("/")
        };
        let operations = all_routes().entries;
        for (method, path, event) in EVENTS {
            let path = format!("/api/v2{path}");
            let is_it = |one: &&Entry| one.method == method && general(&one.path) == path;
            let found = operations.iter().find(is_it).unwrap_or_else(|| panic!("{event}: there is no {method} {path}"));
            assert!(found.id.starts_with(event), "{method} {path} is {}, and not {event}", found.id);
        }
        let local = include_str!("lite/mod.rs");
        let routes: Vec<String> = local.split('"').filter(|part| part.starts_with('/')).map(general).collect();
        for (place, known) in [("/api/lite", OPERATIONS), ("/lite", PAGES)] {
            for (_, path, event) in known {
                assert!(routes.contains(&format!("{place}{path}")), "{event}: there is no {place}{path}");
            }
        }
        for (_, path, event) in IMPORTS {
            assert!(local.contains(&format!("\"{path}\"")), "{event}: there is no {path}");
        }
    }

    #[test]
    fn the_parts_of_a_path_are_named() {
        let route = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear";
        let found = named_parts(route, "/api/v2/dags/a%2Fb/dagRuns/r%20r/clear");
        assert_eq!(found, [("dag_id", "a/b".to_owned()), ("run_id", "r r".to_owned())]);
        let found = named_parts("/api/v2/variables/{*key}", "/api/v2/variables/a/b%20c");
        assert_eq!(found, [("key", "a/b c".to_owned())]);
    }

    #[test]
    fn of_a_large_body_only_its_size_is_kept() {
        let large = json!({"dry_run": false, "note": "x".repeat(LONGEST)}).to_string();
        let asked = Asked::of(large.as_bytes());
        assert_eq!((asked.is_dry_run, Value::Object(asked.body.unwrap())), (false, json!({"bytes": large.len()})));
        assert!(Asked::of(b"{}").is_dry_run && !Asked::of(b"no JSON").is_dry_run);
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
        let xcom = without_secrets("create_xcom_entry", body(json!({"key": "api_token", "value": {"a": "s3cret"}})));
        assert_eq!(Value::Object(xcom), json!({"key": "api_token", "value": HIDDEN}));
        let conf = without_secrets("trigger_dag_run", body(json!({"conf": {"api_key": "s3cret", "n": 1}})));
        assert_eq!(Value::Object(conf), json!({"conf": {"api_key": HIDDEN, "n": 1}}));
    }
}

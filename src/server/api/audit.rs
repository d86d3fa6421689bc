//! Audit log: records the operations listed below, when they are requested over HTTP, with their user and arguments.

use super::{all_routes, redact};
use crate::api::prelude::*;
use crate::http::body::MAX_BODY_BYTES;
use crate::http::openapi::routes::{Entry, documented_path};
use crate::login::tokens::ApiTokenName;
use crate::state::database::DatastoreError;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Query, Request};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::event_log::{self, NewEvent};
use percent_encoding::percent_decode_str;
use std::collections::HashMap;
use std::sync::LazyLock;
use tracing::warn;

/// Airflow's operations that change something: their ids by method and path.
static EVENTS: LazyLock<HashMap<(Method, String), &'static str>> = LazyLock::new(|| {
    let changes = |entry: &Entry| entry.method != Method::GET && !entry.path.ends_with("/dry_run");
    let operations = all_routes().entries.into_iter().filter(changes);
    // As in Airflow, the change of a mapped instance is logged like that of another one.
    let event = |id: &'static str| id.strip_suffix("_by_map_index").unwrap_or(id);
    operations.map(|entry| ((entry.method, entry.path), event(entry.id))).collect()
});
/// Operations of Leoflow's own API: method, path below `/api/lite`, and event. `{}` stands for any path parameter.
const LITE_OPERATIONS: &[(Method, &str, &str)] = &[
    (Method::POST, "/backups", "make_backup"),
    (Method::POST, "/backups/{}/verify", "verify_backup"),
    (Method::POST, "/restore", "restore_backup"),
    (Method::POST, "/upgrade", "upgrade_release"),
    (Method::POST, "/rollback", "roll_back_release"),
    (Method::POST, "/instances/upgrade", "upgrade_instances"),
];
/// Operations requested by buttons on our pages, with paths below `/lite`.
const PAGE_OPERATIONS: &[(Method, &str, &str)] = &[
    (Method::POST, "/backups", "make_backup"),
    (Method::POST, "/backups/{}/verify", "verify_backup"),
    (Method::POST, "/backups/{}/restore", "restore_backup"),
    (Method::POST, "/releases/upgrade", "upgrade_release"),
];
/// Bulk imports by local commands; logged without their body.
const IMPORTS: &[(Method, &str, &str)] =
    &[(Method::PUT, "/local/variables", "variables_import"), (Method::PUT, "/local/connections", "connections_import")];
/// Operations that change nothing unless the body sets `dry_run` to false.
const DRY_RUN_BY_DEFAULT: [&str; 4] =
    ["post_clear_task_instances", "clear_dag_runs", "clear_dag_run_partitions", "clear_dag_run"];
/// A larger body is logged by its size only, in bytes.
const MAX_LOGGED_BYTES: usize = 10_000;

/// Logs each listed operation before it is carried out, as Airflow does, so that refused ones are logged too. Dry runs
/// are not logged.
pub async fn log(State(state): Shared, request: Request, next: Next) -> Response {
    let Some((event, path)) = operation_of(&request) else { return next.run(request).await };
    let (parts, body) = request.into_parts();
    let (logged, body) = if path.starts_with("/local/") {
        (LoggedBody::default(), body)
    } else {
        match to_bytes(body, MAX_BODY_BYTES).await {
            Ok(bytes) => (LoggedBody::parse(&bytes), Body::from(bytes)),
            Err(_) => return body_error(&parts.headers).into_response(),
        }
    };
    if !(DRY_RUN_BY_DEFAULT.contains(&event) && logged.is_dry_run) {
        let mut record = build_event(&state, event, &path, &parts.uri, logged);
        if let Some(ApiTokenName(name)) = parts.extensions.get() {
            record.owner = Some(format!("API token {name}"));
        }
        let result =
            async { Ok::<_, DatastoreError>(event_log::add(&*state.core.database.get().await?, &record).await?) }.await;
        if let Err(error) = result {
            // The change itself will hit the same datastore error.
            warn!("failed to write the event {event} to the audit log: {error}");
        }
    }
    next.run(Request::from_parts(parts, body)).await
}

/// Returns the error for a body that could not be read completely: too large, or the client stopped. Without
/// `Content-Length` the body counts as too large.
fn body_error(headers: &HeaderMap) -> ApiError {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    match length {
        Some(length) if length <= MAX_BODY_BYTES => ApiError::bad_request("Failed to read the request body"),
        _ => ApiError::new(StatusCode::PAYLOAD_TOO_LARGE, "The request body is larger than 16 MiB"),
    }
}

/// The parts of a request body that the audit log needs.
#[derive(Default)]
struct LoggedBody {
    /// True for an object whose `dry_run` is true or absent.
    is_dry_run: bool,
    /// The fields of the body, or its size when it is large; `None` for a small body that is no object.
    body: Option<Map<String, Value>>,
}

impl LoggedBody {
    fn parse(bytes: &[u8]) -> Self {
        let body: Option<Map<String, Value>> = serde_json::from_slice(bytes).ok();
        // With any other value, such as null, the request is refused or changes something.
        let is_true = |body: &Map<String, Value>| body.get("dry_run").is_none_or(|value| *value == Value::Bool(true));
        let is_dry_run = body.as_ref().is_some_and(is_true);
        let body = match body {
            _ if bytes.len() > MAX_LOGGED_BYTES => Some(Map::from_iter([("bytes".to_owned(), bytes.len().into())])),
            body => body,
        };
        Self { is_dry_run, body }
    }
}

/// Returns the id of the requested operation and the path of its route; `None` when it is not logged.
fn operation_of(request: &Request) -> Option<(&'static str, String)> {
    let path = request.extensions().get::<MatchedPath>()?.as_str();
    if path.starts_with("/api/v2/") {
        let operation = (request.method().clone(), documented_path(path));
        return Some((*EVENTS.get(&operation)?, path.to_owned()));
    }
    let groups = [("/api/lite", LITE_OPERATIONS), ("/lite", PAGE_OPERATIONS)];
    let group = groups
        .iter()
        .find_map(|(prefix, operations)| path.strip_prefix(prefix).map(|relative| (*operations, relative)));
    let (operations, relative) = group.unwrap_or((IMPORTS, path));
    let template: Vec<&str> = relative.split('/').map(|part| if part.starts_with('{') { "{}" } else { part }).collect();
    let template = template.join("/");
    let is_requested = |(method, path, _): &&(Method, &str, &str)| method == request.method() && *path == template;
    let (_, _, event) = operations.iter().find(is_requested)?;
    Some((*event, path.to_owned()))
}

/// Returns the path parameters by name, percent-decoded. The last one may span several segments.
fn named_parts<'a>(route: &'a str, path: &str) -> Vec<(&'a str, String)> {
    let (route, path): (Vec<&str>, Vec<&str>) = (route.split('/').collect(), path.split('/').collect());
    let decode = |text: &str| percent_decode_str(text).decode_utf8_lossy().into_owned();
    let mut parts = Vec::new();
    for (index, part) in route.iter().enumerate() {
        let Some(name) = part.strip_prefix('{').and_then(|part| part.strip_suffix('}')) else { continue };
        let value = match name.strip_prefix('*') {
            Some(_) => path.get(index..).unwrap_or_default().join("/"),
            None => path.get(index).copied().unwrap_or_default().to_owned(),
        };
        parts.push((name.trim_start_matches('*'), decode(&value)));
    }
    parts
}

/// Builds the log entry from the path, the query and the body. Ids in the path win over ids in the body.
fn build_event(state: &AppState, event: &str, route: &str, uri: &Uri, logged: LoggedBody) -> NewEvent {
    let mut record = NewEvent { event: event.to_owned(), owner: Some(state.auth.admin_email()), ..NewEvent::default() };
    let mut extra = Map::new();
    for (name, value) in named_parts(route, uri.path()) {
        match name {
            "dag_id" => record.dag_id = Some(value),
            "run_id" | "dag_run_id" => record.run_id = Some(value),
            "task_id" => record.task_id = Some(value),
            "map_index" => record.position = value.parse().ok().map(Position::from_stored),
            _ => drop(extra.insert(name.to_owned(), value.into())),
        }
    }
    let query: Vec<(String, String)> = Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    for (name, value) in query {
        if name == "map_index" {
            record.position = value.parse().ok().map(Position::from_stored);
        }
        extra.insert(name, value.into());
    }
    if let Some(body) = logged.body {
        let text_field = |name: &str| body.get(name).and_then(Value::as_str).map(str::to_owned);
        record.dag_id = record.dag_id.or_else(|| text_field("dag_id"));
        record.run_id = record.run_id.or_else(|| text_field("dag_run_id"));
        record.logical_date = text_field("logical_date").and_then(|date| date.parse().ok());
        extra.extend(body);
    }
    record.extra = Some(Value::Object(without_secrets(event, extra)).to_string());
    // Postgres cannot store NUL.
    for field in [&mut record.dag_id, &mut record.run_id, &mut record.task_id, &mut record.extra].into_iter().flatten()
    {
        *field = field.replace('\0', "\u{fffd}");
    }
    record
}

/// Masks fields with a sensitive name. For entities whose value may be secret under any name, masks every value.
fn without_secrets(event: &str, fields: Map<String, Value>) -> Map<String, Value> {
    let may_hold_secrets = ["variable", "xcom", "state_store"].iter().any(|kind| event.contains(kind));
    let masked_names: &[&str] = match event {
        _ if may_hold_secrets => &["value", "val"],
        _ if event.contains("connection") => &["password", "extra"],
        _ => &[],
    };
    let mut masked = redact::fields(&Value::Object(fields));
    redact::mask(&mut masked, &|name, field| masked_names.contains(&name) && !field.is_null());
    match masked {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::auth::masking::HIDDEN;
    use serde_json::json;

    #[test]
    fn every_change_is_logged() {
        let is_logged = |entry: &&Entry| EVENTS.contains_key(&(entry.method.clone(), entry.path.clone()));
        let operations = all_routes().entries;
        assert!(operations.iter().filter(is_logged).all(|entry| entry.method != Method::GET));
        let changes = operations.iter().filter(|entry| entry.method != Method::GET);
        let mut unlogged: Vec<&str> = changes.filter(|entry| !is_logged(entry)).map(|entry| entry.id).collect();
        unlogged.sort_unstable();
        let dry_runs = [
            "create_backfill_dry_run",
            "patch_task_group_instances_dry_run",
            "patch_task_instance_dry_run",
            "patch_task_instance_dry_run_by_map_index",
        ];
        assert_eq!(unlogged, dry_runs);
        let mapped = "/api/v2/dags/{dag_id}/dagRuns/{dag_run_id}/taskInstances/{task_id}/{map_index}".to_owned();
        assert_eq!(EVENTS[&(Method::PATCH, mapped)], "patch_task_instance");
    }

    #[test]
    fn every_logged_event_has_a_route() {
        let template = |path: &str| {
            let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
            path.split('/').map(part).collect::<Vec<_>>().join("/")
        };
        let lite_source = include_str!("../lite/mod.rs");
        let routes: Vec<String> = lite_source.split('"').filter(|part| part.starts_with('/')).map(template).collect();
        for (prefix, operations) in [("/api/lite", LITE_OPERATIONS), ("/lite", PAGE_OPERATIONS)] {
            for (_, path, event) in operations {
                assert!(routes.contains(&format!("{prefix}{path}")), "{event}: there is no {prefix}{path}");
            }
        }
        for (_, path, event) in IMPORTS {
            assert!(lite_source.contains(&format!("\"{path}\"")), "{event}: there is no {path}");
        }
    }

    #[test]
    fn extracts_named_path_parts() {
        let route = "/api/v2/dags/{dag_id}/dagRuns/{run_id}/clear";
        let parts = named_parts(route, "/api/v2/dags/a%2Fb/dagRuns/r%20r/clear");
        assert_eq!(parts, [("dag_id", "a/b".to_owned()), ("run_id", "r r".to_owned())]);
        let parts = named_parts("/api/v2/variables/{*key}", "/api/v2/variables/a/b%20c");
        assert_eq!(parts, [("key", "a/b c".to_owned())]);
    }

    #[test]
    fn logs_only_the_size_of_a_large_body() {
        let large = json!({"dry_run": false, "note": "x".repeat(MAX_LOGGED_BYTES)}).to_string();
        let logged = LoggedBody::parse(large.as_bytes());
        assert_eq!((logged.is_dry_run, Value::Object(logged.body.unwrap())), (false, json!({"bytes": large.len()})));
        assert!(LoggedBody::parse(b"{}").is_dry_run && !LoggedBody::parse(b"no JSON").is_dry_run);
        assert!(LoggedBody::parse(br#"{"dry_run": true}"#).is_dry_run);
        assert!(!LoggedBody::parse(br#"{"dry_run": null}"#).is_dry_run, "refused requests are logged too");
    }

    #[test]
    fn secrets_are_masked() {
        let body = |value: Value| value.as_object().unwrap().clone();
        let variable = without_secrets("post_variable", body(json!({"key": "plain", "value": "s3cret"})));
        assert_eq!(Value::Object(variable), json!({"key": "plain", "value": HIDDEN}));
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

//! Audit log: records the operations listed below, when they are requested over HTTP, with their user and arguments.

use super::redact;
use crate::api::prelude::*;
use crate::http::body::MAX_BODY_BYTES;
use crate::state::database::DatastoreError;
use axum::body::{Body, to_bytes};
use axum::extract::{MatchedPath, Query, Request};
use axum::http::{HeaderMap, Method, Uri, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use leoflow_base::auth::masking::HIDDEN;
use leoflow_engine::store::event_log::{self, NewEvent};
use percent_encoding::percent_decode_str;
use tracing::warn;

/// Operations that change something: method, path below `/api/v2`, and Airflow's operation id. `{}` stands for any
/// path parameter.
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
/// Operations of Leoflow's own API, with paths below `/api/lite`.
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
        let record = build_event(&state, event, &path, &parts.uri, logged);
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
    let groups = [("/api/v2", EVENTS), ("/api/lite", LITE_OPERATIONS), ("/lite", PAGE_OPERATIONS)];
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
            "map_index" => record.map_index = value.parse().ok(),
            _ => drop(extra.insert(name.to_owned(), value.into())),
        }
    }
    let query: Vec<(String, String)> = Query::try_from_uri(uri).map(|Query(pairs)| pairs).unwrap_or_default();
    for (name, value) in query {
        if name == "map_index" {
            record.map_index = value.parse().ok();
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
    mask(&mut masked, masked_names);
    match masked {
        Value::Object(fields) => fields,
        _ => Map::new(),
    }
}

/// Masks the non-null fields with these names at any depth.
fn mask(value: &mut Value, names: &[&str]) {
    match value {
        Value::Object(fields) => {
            for (name, field) in fields {
                if names.contains(&name.as_str()) && !field.is_null() {
                    *field = HIDDEN.into();
                } else {
                    mask(field, names);
                }
            }
        }
        Value::Array(list) => list.iter_mut().for_each(|field| mask(field, names)),
        _ => {}
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::all_routes;
    use crate::http::openapi::routes::Entry;
    use serde_json::json;

    #[test]
    fn every_logged_event_has_a_route() {
        let template = |path: &str| {
            let part = |part| if str::starts_with(part, '{') { "{}" } else { part };
            path.split('/').map(part).collect::<Vec<_>>().join("/")
        };
        let operations = all_routes().entries;
        for (method, path, event) in EVENTS {
            let path = format!("/api/v2{path}");
            let matches = |entry: &&Entry| entry.method == method && template(&entry.path) == path;
            let entry =
                operations.iter().find(matches).unwrap_or_else(|| panic!("{event}: there is no {method} {path}"));
            assert!(entry.id.starts_with(event), "{method} {path} is {}, and not {event}", entry.id);
        }
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

//! Progress of upgrades over HTTP. The home holds the progress, so that the server that an upgrade starts reports it
//! too.

use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::request::Segments;
use crate::release::own_program;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::{HeaderMap, header};
use axum::response::{IntoResponse, Response};
use futures_util::stream;
use leoflow_base::home::operations::{Operation, Status};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::time::Duration;

pub(super) const UPGRADE: &str = "upgrade";
pub(super) const ROLLBACK: &str = "rollback";
pub(super) const UPGRADE_INSTANCES: &str = "upgrade-instances";

/// Poll interval of the event stream.
const POLL_INTERVAL: Duration = Duration::from_millis(200);
/// Polls without news after which a comment is sent, so that proxies keep the connection open.
const KEEP_ALIVE_POLLS: u32 = 75;

/// `GET /api/lite/upgrade/{id}`: progress of an upgrade, a rollback or an upgrade of several instances. With `Accept:
/// text/event-stream` each change is an event; the stream ends after the last one.
pub async fn progress(
    State(state): Shared,
    Segments(id): Segments<u64>,
    headers: HeaderMap,
) -> Result<Response, ApiError> {
    let operation = find(&state, id).await?;
    let accept = headers.get(header::ACCEPT).and_then(|value| value.to_str().ok()).unwrap_or_default();
    if !accept.contains("text/event-stream") {
        return Ok(Json(view(&operation)).into_response());
    }
    let stream = stream::unfold(Some(EventStream { state, id, last: None, polls: 0 }), |events| async {
        let mut events = events?;
        let (text, is_last) = events.next().await;
        Some((Ok::<_, Infallible>(text), (!is_last).then_some(events)))
    });
    let kind = [(header::CONTENT_TYPE, "text/event-stream"), (header::CACHE_CONTROL, "no-store")];
    Ok((kind, Body::from_stream(stream)).into_response())
}

async fn find(state: &AppState, id: u64) -> Result<Operation, ApiError> {
    own_program::find(&state.core.home, id)
        .await
        .filter(|operation| [UPGRADE, ROLLBACK, UPGRADE_INSTANCES].contains(&operation.kind.as_str()))
        .ok_or_else(|| ApiError::not_found(format!("There is no upgrade {id}")))
}

/// The events of one operation for one client.
struct EventStream {
    state: AppState,
    id: u64,
    /// The last event sent.
    last: Option<Value>,
    /// Polls since the last event.
    polls: u32,
}

impl EventStream {
    /// Waits for the next event; true when it is the last.
    async fn next(&mut self) -> (String, bool) {
        let mut shutting_down = self.state.core.changes.shutting_down.subscribe();
        loop {
            let Ok(operation) = find(&self.state, self.id).await else { return (String::new(), true) };
            let (now, is_last) = (view(&operation), operation.status != Status::Running);
            if self.last.as_ref() != Some(&now) {
                let text = format!("retry: 500\nevent: upgrade\ndata: {now}\n\n");
                (self.last, self.polls) = (Some(now), 0);
                return (text, is_last);
            }
            self.polls += 1;
            if self.polls.is_multiple_of(KEEP_ALIVE_POLLS) {
                return (": nothing new\n\n".to_owned(), false);
            }
            tokio::select! {
                () = tokio::time::sleep(POLL_INTERVAL) => {}
                // This server exits; the client reconnects to the next one.
                _ = shutting_down.wait_for(|is_set| *is_set) => return (String::new(), true),
            }
        }
    }
}

/// The API's view of an operation, running or ended.
pub fn view(operation: &Operation) -> Value {
    let none = Value::Null;
    let result = operation.result.as_ref().unwrap_or(&none);
    let is_plan = result["status"].is_null() && result["to"].is_string();
    let status = match (operation.status, result["status"].as_str()) {
        (Status::Running, _) => "running",
        (_, Some(status)) => status,
        (Status::Done, None) if is_plan => "planned",
        (Status::Done, None) => "done",
        (Status::Failed, None) => "failed",
    };
    let version = |outcome: &str, plan: &str| if is_plan { &result[plan] } else { &result[outcome] };
    json!({
        "id": operation.id,
        "kind": operation.kind,
        "status": status,
        "started_at": operation.started_at,
        "ended_at": operation.ended_at,
        "previous_version": version("previous_version", "from"),
        "new_version": version("new_version", "to"),
        "commit": result["commit"],
        "migrations_run": if result["migrations_run"].is_array() { result["migrations_run"].clone() } else { json!([]) },
        "backup_path": result["backup_path"],
        "details": operation.progress,
        "plan": is_plan.then_some(result),
        "instances": result["instances"],
        "error": operation.error,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_operation_has_the_fields_of_an_upgrade() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(folder.path())).unwrap();
        std::fs::create_dir_all(home.run()).unwrap();
        let mut operation = leoflow_base::home::operations::begin(&home, UPGRADE, Vec::new()).unwrap().operation;
        assert_eq!(view(&operation)["status"], "running");
        assert_eq!(view(&operation)["migrations_run"], json!([]));
        (operation.status, operation.error) = (Status::Failed, Some("no".to_owned()));
        assert_eq!((&view(&operation)["status"], &view(&operation)["error"]), (&json!("failed"), &json!("no")));
        operation.result = Some(json!({"status": "rolled_back", "previous_version": "0.1.0", "new_version": "0.2.0"}));
        assert_eq!(
            (&view(&operation)["status"], &view(&operation)["new_version"]),
            (&json!("rolled_back"), &json!("0.2.0"))
        );
        operation.status = Status::Done;
        operation.result = Some(json!({"from": "0.1.0", "to": "0.2.0", "migrations": []}));
        let planned = view(&operation);
        assert_eq!((&planned["status"], &planned["previous_version"]), (&json!("planned"), &json!("0.1.0")));
        assert_eq!(planned["plan"]["to"], "0.2.0");
    }
}

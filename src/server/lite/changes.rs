//! Lets commands wait for changes.

use crate::app_state::Shared;
use crate::http::api_error::ApiError;
use crate::http::request::Params;
use axum::Json;
use axum::extract::State;
use serde_json::{Value, json};
use std::time::Duration;

/// Longest wait of one request.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// `GET /local/changes?after=N`: returns when the count of changes differs from N, or after [`WAIT_LIMIT`]. Each server
/// counts from its own start, so a command also wakes up when the server is replaced.
pub async fn wait(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    let after = params.whole("after")?;
    let mut count = state.core.changes.count.subscribe();
    let mut shutting_down = state.core.changes.shutting_down.subscribe();
    if let Some(after) = after {
        tokio::select! {
            _ = count.wait_for(|count| i64::try_from(*count) != Ok(after)) => {}
            _ = shutting_down.wait_for(|is_set| *is_set) => {}
            () = tokio::time::sleep(WAIT_LIMIT) => {}
        }
    }
    let now = *count.borrow();
    Ok(Json(json!({"count": now})))
}

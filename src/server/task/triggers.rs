//! The task instance that a trigger's request is about: `/local/triggers/of/{trigger}/…` over the Unix socket.

use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use axum::extract::{Path, Request};
use axum::http::StatusCode;
use axum::middleware::Next;
use axum::response::Response;
use leoflow_engine::model::keys::TryKey;
use leoflow_engine::store::instance::{states, triggers};

/// Adds the try that waits for the trigger as the writer of the request: 410 when it no longer waits. The ids of watchers,
/// which belong to no task, are negative.
pub async fn add_writer(
    Datastore(client): Datastore,
    Path(trigger): Path<i64>,
    mut request: Request,
    next: Next,
) -> Result<Response, ApiError> {
    let key = if trigger < 0 {
        if request.uri().path().contains("/xcoms/") {
            return Err(ApiError::new(StatusCode::FORBIDDEN, "A watcher of an asset has no task, and so no XComs"));
        }
        TryKey { instance: states::key_of_writer(states::WATCHER), try_number: 0 }
    } else {
        let ended = || ApiError::new(StatusCode::GONE, "The task no longer waits for this trigger");
        triggers::find_try(&*client, trigger).await?.ok_or_else(ended)?
    };
    drop(client);
    request.extensions_mut().insert(key);
    Ok(next.run(request).await)
}

//! What has changed, for those who show it: pages by server-sent events, commands by waiting.

use crate::server::api_error::ApiError;
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header;
use axum::response::{IntoResponse, Response};
use hyper::body::{Bytes, Frame, SizeHint};
use serde_json::{Value, json};
use std::convert::Infallible;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::sync::{broadcast, mpsc};

/// Shorter than the time that a connection may stay silent anywhere on the way.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A page's stream ends after this and is opened again, with its login checked again.
const STREAM_LIMIT: Duration = Duration::from_secs(600);
/// The longest that a command waits in one request.
const WAIT_LIMIT: Duration = Duration::from_secs(20);

/// `GET /local/changes?after=N`: returns when the count is not N any more, or after a while. The
/// count begins anew with each server, so that a waiting command looks again when it is replaced.
pub async fn wait(State(state): State<Arc<AppState>>, params: Params) -> Result<Json<Value>, ApiError> {
    let after = params.whole("after")?;
    let mut count = state.changes.count.subscribe();
    let mut leaving = state.changes.leaving.subscribe();
    if let Some(after) = after {
        tokio::select! {
            _ = count.wait_for(|count| i64::try_from(*count) != Ok(after)) => {}
            _ = leaving.wait_for(|leaving| *leaving) => {}
            () = tokio::time::sleep(WAIT_LIMIT) => {}
        }
    }
    let now = *count.borrow();
    Ok(Json(json!({"count": now})))
}

/// `GET /ui/events`: server-sent events,
/// <https://html.spec.whatwg.org/multipage/server-sent-events.html>.
pub async fn stream(State(state): State<Arc<AppState>>) -> Response {
    let (sender, receiver) = mpsc::channel(16);
    tokio::spawn(feed(state, sender));
    ([(header::CONTENT_TYPE, "text/event-stream")], Body::new(Channel(receiver))).into_response()
}

async fn feed(state: Arc<AppState>, sender: mpsc::Sender<Bytes>) {
    let mut events = state.changes.events.subscribe();
    let mut leaving = state.changes.leaving.subscribe();
    let end = tokio::time::Instant::now() + STREAM_LIMIT;
    let epoch = state.session_epoch();
    let mut text = Bytes::from_static(b"retry: 500\n\n");
    loop {
        // A password reset ends the session that this stream was opened in.
        if state.session_epoch() != epoch || sender.send(text).await.is_err() {
            return;
        }
        text = tokio::select! {
            event = events.recv() => match event {
                Ok(event) => Bytes::from(format!("data: {}\n\n", serde_json::to_string(&event).unwrap_or_default())),
                Err(broadcast::error::RecvError::Lagged(_)) => Bytes::from_static(b"data: {\"kind\":\"dags\"}\n\n"),
                Err(broadcast::error::RecvError::Closed) => return,
            },
            () = tokio::time::sleep(KEEP_ALIVE) => Bytes::from_static(b": \n\n"),
            _ = leaving.wait_for(|leaving| *leaving) => return,
            () = tokio::time::sleep_until(end) => return,
        };
    }
}

/// A body of what comes through a channel.
struct Channel(mpsc::Receiver<Bytes>);

impl hyper::body::Body for Channel {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        self.0.poll_recv(context).map(|bytes| bytes.map(|bytes| Ok(Frame::data(bytes))))
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::default()
    }
}

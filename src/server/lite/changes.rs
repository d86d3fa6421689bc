//! What has changed, for those who show it: pages by server-sent events, commands by waiting.

use crate::engine::store::events::Event;
use crate::server::api_error::ApiError;
use crate::server::request::Params;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::response::IntoResponse;
use axum::response::sse::{Event as SentEvent, KeepAlive, Sse};
use futures_util::stream::{self, StreamExt};
use serde_json::{Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{broadcast, watch};
use tokio::time::Instant;

/// Shorter than the time that a connection may stay silent anywhere on the way.
const KEEP_ALIVE: Duration = Duration::from_secs(15);
/// After which a page asks again when its stream has ended.
const RETRY: Duration = Duration::from_millis(500);
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
pub async fn stream(State(state): State<Arc<AppState>>) -> impl IntoResponse {
    let feed = Feed {
        events: state.changes.events.subscribe(),
        leaving: state.changes.leaving.subscribe(),
        end: Instant::now() + STREAM_LIMIT,
        epoch: state.session_epoch(),
        state,
    };
    let opening = stream::once(async { Ok::<_, axum::Error>(SentEvent::default().retry(RETRY)) });
    let told = stream::unfold(feed, |mut feed| async { Some((feed.next().await?, feed)) });
    Sse::new(opening.chain(told)).keep_alive(KeepAlive::new().interval(KEEP_ALIVE))
}

/// What one page hears.
struct Feed {
    events: broadcast::Receiver<Event>,
    leaving: watch::Receiver<bool>,
    end: Instant,
    epoch: u64,
    state: Arc<AppState>,
}

impl Feed {
    /// `None` when the stream ends.
    async fn next(&mut self) -> Option<Result<SentEvent, axum::Error>> {
        loop {
            let event = tokio::select! {
                event = self.events.recv() => match event {
                    Ok(event) => Some(event),
                    // Much has happened: whoever shows something reads it again.
                    Err(broadcast::error::RecvError::Lagged(_)) => Some(Event::Dags),
                    Err(broadcast::error::RecvError::Closed) => return None,
                },
                () = tokio::time::sleep(KEEP_ALIVE) => None,
                _ = self.leaving.wait_for(|leaving| *leaving) => return None,
                () = tokio::time::sleep_until(self.end) => return None,
            };
            // A password reset ends the session that this stream was opened in.
            if self.state.session_epoch() != self.epoch {
                return None;
            }
            if let Some(event) = event {
                return Some(SentEvent::default().json_data(event));
            }
        }
    }
}

//! Clean-ups of the history, for `leoflow db clean`.

use crate::app_state::{AppState, Shared};
use crate::history::plan::Request;
use crate::history::{self, Progress, Removed};
use crate::http::api_error::{ApiError, JsonResult};
use crate::http::openapi::answers::Accepted;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;

/// `POST /api/lite/history/clean/preview`: what a clean-up would remove.
pub async fn preview(State(state): Shared, body: Result<Json<Request>, JsonRejection>) -> JsonResult<Removed> {
    let Json(request) = body?;
    Ok(Json(history::preview(&state.core, &request).await?))
}

/// `POST /api/lite/history/clean`: starts a clean-up.
pub async fn clean(
    State(state): Shared,
    body: Result<Json<Request>, JsonRejection>,
) -> Result<Accepted<Progress>, ApiError> {
    let Json(request) = body?;
    state.history.start(&state.core, request).await?;
    Ok(Accepted(state.history.progress()))
}

/// `GET /api/lite/history/clean`: the last clean-up.
pub async fn progress(State(AppState { history, .. }): Shared) -> Json<Progress> {
    Json(history.progress())
}

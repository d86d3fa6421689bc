//! Tests of targets of notifications, and the history of deliveries.

use crate::app_state::Shared;
use crate::http::api_error::{ApiError, JsonResult};
use crate::notify;
use crate::pages::{page, with_home};
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::response::Html;
use leoflow_base::config;
use leoflow_engine::store::notifications::{self, Delivery};
use serde::Deserialize;
use serde_json::{Value, json};

/// Number of deliveries that are shown.
const SHOWN: i64 = 200;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Test {
    target: String,
}

/// `POST /api/lite/notify/test`: sends a message to a target; 404 without such a target, 502 if it was not sent.
pub async fn test(State(state): Shared, body: Result<Json<Test>, JsonRejection>) -> JsonResult<Value> {
    let Json(Test { target }) = body?;
    let names: Vec<String> =
        state.core.config().map(|config| config.notify.targets.into_keys().collect()).unwrap_or_default();
    if !names.contains(&target) {
        let known = if names.is_empty() { "there are none".to_owned() } else { names.join(", ") };
        return Err(ApiError::not_found(format!("notify.targets has no target {target:?}: {known}")));
    }
    match notify::test(&state.core, &target).await {
        Ok(()) => Ok(Json(json!({"target": target, "sent": true}))),
        Err(reason) => Err(ApiError::new(StatusCode::BAD_GATEWAY, format!("not sent to {target}: {reason}"))),
    }
}

/// `GET /api/lite/notify/deliveries`: the newest deliveries.
pub async fn deliveries(State(state): Shared) -> JsonResult<Value> {
    let client = state.core.database.get().await?;
    let deliveries = notifications::newest(&*client, SHOWN).await?;
    Ok(Json(json!({"deliveries": deliveries.iter().map(view).collect::<Vec<_>>()})))
}

fn view(delivery: &Delivery) -> Value {
    let Delivery { notification, target, state, attempts, next_attempt_at, error, sent_at, .. } = delivery;
    let is_waiting = state == "waiting";
    json!({
        "event": notification.event, "subject": notification.subject, "happened_at": notification.happened_at,
        "dag_id": notification.dag_id, "run_id": notification.run_id, "task_id": notification.task_id,
        "detail": notification.detail, "target": target, "state": state, "attempts": attempts, "error": error,
        "sent_at": sent_at, "next_attempt_at": is_waiting.then_some(next_attempt_at),
    })
}

/// `/lite/notifications`.
pub async fn notifications_page(State(state): Shared) -> Result<Html<String>, ApiError> {
    let Json(found) = deliveries(State(state.clone())).await?;
    let config = state.core.config();
    let targets: Vec<String> = config.iter().flat_map(|config| config.notify.targets.keys().cloned()).collect();
    let rules = config.as_ref().map_or(0, |config| config.notify.rules.len());
    let context = json!({"deliveries": found["deliveries"], "targets": targets, "rules": rules});
    let page = page("notifications.html", config::instance_name(config.as_ref()), context)?;
    Ok(with_home(page, &state.core.home))
}

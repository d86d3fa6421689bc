//! What a running task asks a person, and what its code answers itself: `/task/hitl/…` over `run/api.sock`.

use crate::engine::keys::{RunKey, TryKey};
use crate::engine::store::hitl::{self, Answer, Detail, Question};
use crate::server::api::hitl::refusal;
use crate::server::api_error::ApiError;
use crate::server::body::body_as;
use crate::server::state::AppState;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use axum::{Extension, Json};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::sync::Arc;

type Shared = State<Arc<AppState>>;
type Body = Result<Json<Value>, JsonRejection>;

pub async fn ask(State(state): Shared, Extension(of): Extension<TryKey>, body: Body) -> Result<StatusCode, ApiError> {
    let question: Question = body_as(body)?;
    let client = state.database.get().await?;
    hitl::ask(&*client, &of, &question).await?;
    Ok(StatusCode::NO_CONTENT)
}

/// An instance; triggers are of no try.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Of {
    dag_id: String,
    run_id: String,
    task_id: String,
    map_index: i32,
    /// An answer to its question.
    #[serde(default)]
    chosen_options: Vec<String>,
    #[serde(default)]
    params_input: Map<String, Value>,
}

fn view(detail: &Detail) -> Value {
    let answer = detail.answer.as_ref();
    json!({
        "response_received": detail.responded_at.is_some(),
        "responded_at": detail.responded_at,
        "responded_by_user": detail.responded_by.as_ref().map(|name| json!({"id": name, "name": name})),
        "chosen_options": answer.map(|answer| &answer.chosen_options),
        "params_input": answer.map(|answer| &answer.params_input),
    })
}

/// What was answered, if anything was.
pub async fn get(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let of: Of = body_as(body)?;
    let client = state.database.get().await?;
    let run = RunKey { dag_id: of.dag_id, run_id: of.run_id };
    let detail = hitl::get(&*client, &run, &of.task_id, of.map_index).await?;
    detail.as_ref().map(|detail| Json(view(detail))).ok_or_else(|| refusal(hitl::Refusal::NotAsked))
}

/// A trigger's answer when the time is over. It says itself how its task goes on.
pub async fn answer(State(state): Shared, body: Body) -> Result<Json<Value>, ApiError> {
    let of: Of = body_as(body)?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let run = RunKey { dag_id: of.dag_id, run_id: of.run_id };
    let answer = Answer { chosen_options: of.chosen_options, params_input: of.params_input };
    let detail = hitl::note_answer(&transaction, &run, &of.task_id, of.map_index, &answer, None).await;
    let detail = detail.map_err(refusal)?;
    transaction.commit().await?;
    Ok(Json(view(&detail)))
}

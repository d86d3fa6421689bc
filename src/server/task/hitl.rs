//! Questions of running tasks to people, and answers by their triggers: `/task/hitl/…` and `/local/triggers/hitl/…`
//! over the Unix socket.

use super::{Body, JsonAnswer, request_keys};
use crate::api::instance::hitl::refusal_response;
use crate::http::api_error::{ApiError, ApiResult};
use crate::http::datastore::Datastore;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use leoflow_engine::model::keys::{InstanceKey, Position, RunKey, TryKey};
use leoflow_engine::store::instance::hitl::{self, Answer, Detail, Question};
use leoflow_engine::store::request_keys::Attempt;
use serde::Deserialize;
use serde_json::{Map, Value, json};

pub async fn ask(
    Datastore(mut client): Datastore,
    Extension(try_key): Extension<TryKey>,
    headers: HeaderMap,
    Body(question): Body<Question>,
) -> Result<StatusCode, ApiError> {
    let transaction = client.transaction().await?;
    // A repeated request would remove an answer that a person gave meanwhile.
    if request_keys::record(&transaction, &headers).await? == Attempt::First {
        hitl::ask(&transaction, &try_key, &question).await?;
        transaction.commit().await?;
    }
    Ok(StatusCode::NO_CONTENT)
}

/// Names a task instance and not a try, since a trigger belongs to no try. May contain an answer.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub struct InstanceQuery {
    dag_id: String,
    run_id: String,
    task_id: String,
    map_index: i32,
    iteration: Option<i32>,
    /// The answer to the instance's question; empty for a request that sends none.
    #[serde(default)]
    chosen_options: Vec<String>,
    #[serde(default)]
    params_input: Map<String, Value>,
}

impl InstanceQuery {
    fn key(&self) -> ApiResult<InstanceKey> {
        let run = RunKey { dag_id: self.dag_id.clone(), run_id: self.run_id.clone() };
        let position = Position::checked(self.iteration, self.map_index);
        let position = position.ok_or_else(|| ApiError::bad_request("The task instance cannot exist"))?;
        Ok(InstanceKey::new(run, &self.task_id, position))
    }
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

/// Returns the answer to the instance's question, with null fields while there is none; 404 without a question.
pub async fn get(Datastore(client): Datastore, Body(query): Body<InstanceQuery>) -> JsonAnswer {
    let detail = hitl::get(&*client, &query.key()?).await?;
    detail.as_ref().map(|detail| Json(view(detail))).ok_or_else(|| refusal_response(hitl::Refusal::NotAsked))
}

/// Records the answer that a trigger gives when its question times out. The trigger itself resumes its task. A repeated
/// request returns the recorded answer.
pub async fn answer(
    Datastore(mut client): Datastore,
    headers: HeaderMap,
    Body(query): Body<InstanceQuery>,
) -> JsonAnswer {
    let transaction = client.transaction().await?;
    let key = query.key()?;
    let answer =
        Answer { chosen_options: query.chosen_options, params_input: query.params_input, request_created_at: None };
    let detail = match request_keys::record(&transaction, &headers).await? {
        Attempt::First => hitl::record_answer(&transaction, &key, &answer, None).await,
        Attempt::Repeated => hitl::get(&transaction, &key).await?.ok_or(hitl::Refusal::NotAsked),
    };
    let detail = detail.map_err(refusal_response)?;
    transaction.commit().await?;
    Ok(Json(view(&detail)))
}

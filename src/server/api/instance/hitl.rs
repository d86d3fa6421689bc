//! Human-in-the-loop: `…/hitlDetails`, with Airflow's names and shapes.

use super::instance_views::{TaskInstanceHistoryResponse, TaskInstanceResponse, instance};
use super::tries;
use crate::api::instance_path::{MappedInstance, MappedTry};
use crate::api::prelude::*;
use crate::api::run::dag_run_lists::{check_states, specific_id};
use leoflow_engine::store::instance::hitl::{self, Answer, Detail, DetailField, DetailFilter, Refusal};
use leoflow_engine::store::instance::instances;

/// Converts the refusal of an answer to Airflow's response.
pub fn refusal_response(refusal: Refusal) -> ApiError {
    match refusal {
        Refusal::NotAsked => ApiError::not_found("Human-in-the-loop detail does not exist for this Task Instance"),
        Refusal::AnsweredAlready => ApiError::conflict(
            "Human-in-the-loop detail has already been updated for this Task Instance and is not allowed to write again.",
        ),
        Refusal::UnknownOptions { .. } | Refusal::SeveralOptions => ApiError::bad_request(refusal.to_string()),
        Refusal::Store(error) => error.into(),
    }
}

#[derive(Serialize, JsonSchema)]
struct HITLUser {
    id: String,
    name: String,
}

fn user(name: &str) -> HITLUser {
    HITLUser { id: name.to_owned(), name: name.to_owned() }
}

view! {
    /// A question with its answer.
    struct QuestionResponse;
    fn question_response(detail: Detail) {
        options: Vec<String> = detail.question.options,
        subject: String = detail.question.subject,
        body: Option<String> = detail.question.body,
        defaults: Option<Vec<String>> = detail.question.defaults,
        multiple: bool = detail.question.multiple,
        params: Map<String, Value> = detail.question.params.into_iter().map(complete_param).collect(),
        #[schemars(with = "Vec<HITLUser>")]
        assigned_users: Vec<Value> = detail.question.assigned_users,
        created_at: Stamp = Stamp(detail.created_at),
        responded_by_user: Option<HITLUser> = detail.responded_by.as_deref().map(user),
        responded_at: Option<Stamp> = detail.responded_at.map(Stamp),
        chosen_options: Option<Vec<String>> = detail.answer.as_ref().map(|answer| answer.chosen_options.clone()),
        params_input: Map<String, Value> = detail.answer.map(|answer| answer.params_input).unwrap_or_default(),
        response_received: bool = detail.responded_at.is_some(),
    }
}

/// Adds a null description and an empty schema to a parameter that is stored as a plain value.
fn complete_param((name, param): (String, Value)) -> (String, Value) {
    let is_complete = ["description", "schema", "value"].iter().all(|name| param.get(name).is_some());
    (name, if is_complete { param } else { json!({"value": param, "description": null, "schema": {}}) })
}

/// A question with its answer. `T` is the task instance, either current or as of one of its tries.
#[derive(Serialize, JsonSchema)]
#[schemars(inline)]
pub struct HitlResponse<T> {
    #[serde(flatten)]
    question: QuestionResponse,
    task_instance: T,
}

fn with_instance<T>(detail: Detail, task_instance: T) -> HitlResponse<T> {
    HitlResponse { question: question_response(detail), task_instance }
}

#[derive(Serialize, JsonSchema)]
pub struct HITLDetail(HitlResponse<TaskInstanceResponse>);

#[derive(Serialize, JsonSchema)]
pub struct HITLDetailHistory(HitlResponse<TaskInstanceHistoryResponse>);

collection! { HITLDetailCollection { hitl_details: HITLDetail } }

/// Returns a question with its current task instance.
pub async fn detail_response(client: &impl GenericClient, detail: Detail) -> ApiResult<HITLDetail> {
    let current = instances::get(client, &detail.instance).await?;
    Ok(HITLDetail(with_instance(detail, instance(current))))
}

const FIELDS: Fields<DetailField> = Fields {
    order: &[
        ("created_at", DetailField::CreatedAt),
        ("responded_at", DetailField::RespondedAt),
        ("responded_by_user_id", DetailField::RespondedBy),
        ("responded_by_user_name", DetailField::RespondedBy),
        ("subject", DetailField::Subject),
        ("body", DetailField::Body),
        ("dag_id", DetailField::DagId),
        ("run_id", DetailField::RunId),
        ("task_id", DetailField::TaskId),
        ("task_display_name", DetailField::TaskId),
        ("ti_id", DetailField::CreatedAt),
        ("map_index", DetailField::MapIndex),
        ("run_after", DetailField::RunAfter),
        ("rendered_map_index", DetailField::RenderedMapIndex),
        ("task_instance_operator", DetailField::Operator),
        ("task_instance_state", DetailField::TaskState),
    ],
    default_order: &["ti_id"],
    patterns: &[("dag_id", DetailField::DagId), ("task_id", DetailField::TaskId)],
    ranges: &[("created_at", DetailField::CreatedAt)],
    exact: &[("task_id", DetailField::TaskId), ("map_index", DetailField::MapIndex)],
    one_of: &[("responded_by_user_id", DetailField::RespondedBy), ("responded_by_user_name", DetailField::RespondedBy)],
    ..Fields::NONE
};

query! {
    pub HitlQuery(FIELDS) {
        Parameter::new("state", Kind::Texts),
        Parameter::new("response_received", Kind::Flag),
        Parameter::new("subject_search", Kind::Text),
        Parameter::new("body_search", Kind::Text),
        Parameter::new("teams", Kind::Texts),
    }
}

pub async fn list(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<RunPath>,
    params: QueryParams<HitlQuery>,
) -> JsonResult<HITLDetailCollection> {
    let mut listing = params.listing(&FIELDS)?;
    let states = params.texts("state");
    check_states(&states, &TaskState::ALL.iter().map(|state| state.as_str()).collect::<Vec<_>>())?;
    listing.test(DetailField::TaskState, FieldTest::OneOf(states));
    listing.filter = DetailFilter {
        dag_id: specific_id(&dag_id).map(str::to_owned),
        run_id: specific_id(&run_id).map(str::to_owned),
        has_response: params.flag("response_received")?,
    };
    for (parameter, field) in [("subject_search", DetailField::Subject), ("body_search", DetailField::Body)] {
        params.contains(parameter).into_iter().for_each(|test| listing.test(field, test));
    }
    let client = state.core.database.get().await?;
    let page = hitl::list(&*client, listing).await?;
    let mut details = Vec::with_capacity(page.rows.len());
    for detail in page.rows {
        details.push(detail_response(&*client, detail).await?);
    }
    Ok(Json(HITLDetailCollection::new(details, page.total)))
}

pub async fn get(Datastore(client): Datastore, MappedInstance(key): MappedInstance) -> JsonResult<HITLDetail> {
    let detail = hitl::get(&*client, &key).await?;
    Ok(Json(detail_response(&*client, detail.ok_or_else(|| refusal_response(Refusal::NotAsked))?).await?))
}

/// Returns the question and the answer of a try, the current one or an earlier one.
pub async fn get_for_try(State(state): Shared, MappedTry(try_key): MappedTry) -> JsonResult<HITLDetailHistory> {
    let detail = hitl::of_try(&*state.core.database.get().await?, &try_key)
        .await?
        .ok_or_else(|| refusal_response(Refusal::NotAsked))?;
    Ok(Json(HITLDetailHistory(with_instance(detail, tries::load_try(&state, &try_key).await?))))
}

#[derive(Serialize, JsonSchema)]
pub struct HITLDetailResponse {
    responded_by: HITLUser,
    responded_at: Stamp,
    chosen_options: Vec<String>,
    params_input: Map<String, Value>,
}

pub async fn answer(
    State(state): Shared,
    MappedInstance(key): MappedInstance,
    Body(answer): Body<Answer>,
) -> JsonResult<HITLDetailResponse> {
    if answer.chosen_options.is_empty() {
        let message = "List should have at least 1 item after validation, not 0";
        return Err(ApiError::unprocessable(&["body", "chosen_options"], "too_short", message));
    }
    let user_name = state.auth.admin_email();
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    if let Some(asked_at) = answer.request_created_at {
        let current = hitl::get(&transaction, &key).await?;
        if current.is_some_and(|current| current.created_at != asked_at) {
            return Err(ApiError::conflict("The question was asked again since: answer the new one."));
        }
    }
    let detail = hitl::answer(&transaction, &key, &answer, Some(&user_name)).await.map_err(refusal_response)?;
    transaction.commit().await?;
    Ok(Json(HITLDetailResponse {
        responded_by: user(&user_name),
        responded_at: Stamp(detail.responded_at.unwrap_or_else(Timestamp::now)),
        chosen_options: answer.chosen_options,
        params_input: answer.params_input,
    }))
}

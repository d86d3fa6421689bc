//! Human-in-the-loop: requests of tasks for input from a person, and the responses.
//!
//! <https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/hitl.html>

use super::instances;
use super::triggers::{self, Fired, Waiting};
use crate::model::keys::{InstanceKey, TryKey};
use crate::store::events::{self, Event};
use crate::store::instance_key::{INSTANCE, KEY, TRY, TRY_KEY};
use crate::store::list::field::{filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{self, execute, exists, fetch_all, fetch_one, fetch_optional, from_row};
use crate::store::run::runs;
use crate::store::{Result, StoreError};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use schemars::JsonSchema;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

from_row! {
    /// A request for input.
    #[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Question {
        pub subject: String,
        pub body: Option<String>,
        pub options: Vec<String> as Json,
        /// Options that are chosen when the timeout passes without a response; without defaults the task then fails.
        pub defaults: Option<Vec<String>> => |row| optional_json(row, "defaults"),
        #[serde(default)]
        pub multiple: bool,
        /// Params to fill in with the response, by name: each an object of `value`, `description` and `schema`, or the
        /// bare value.
        #[serde(default)]
        pub params: Map<String, Value> as Json,
        #[serde(default)]
        pub assigned_users: Vec<Value> as Json,
    }
}

fn optional_json<T: DeserializeOwned>(row: &Row, column: &str) -> Result<Option<T>> {
    Ok(rows::get::<Option<Json<T>>>(row, column)?.map(|Json(value)| value))
}

/// A response.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "UpdateHITLDetailPayload")]
pub struct Answer {
    #[schemars(length(min = 1))]
    pub chosen_options: Vec<String>,
    #[serde(default)]
    pub params_input: Map<String, Value>,
    /// When the question was asked that this answers: an answer to an earlier try's question is refused.
    #[serde(default, skip_serializing)]
    pub request_created_at: Option<Timestamp>,
}

from_row! {
    /// A request of a task instance, with its response.
    #[derive(Debug, Clone)]
    pub struct Detail {
        pub instance: InstanceKey => InstanceKey::from_row,
        pub question: Question => Question::from_row,
        pub created_at: Timestamp,
        pub responded_at: Option<Timestamp>,
        /// `None` if there is no response, if the defaults were chosen, or if a task's code responded.
        pub responded_by: Option<String>,
        pub answer: Option<Answer> => read_answer,
    }
}

fn read_answer(row: &Row) -> Result<Option<Answer>> {
    let Some(chosen_options) = optional_json(row, "chosen_options")? else { return Ok(None) };
    let params_input = optional_json(row, "params_input")?.unwrap_or_default();
    Ok(Some(Answer { chosen_options, params_input, request_created_at: None }))
}

/// Stores the request of a try. A request of an earlier try is copied to the history and replaced.
pub async fn ask(client: &impl GenericClient, key: &TryKey, question: &Question) -> Result<()> {
    let TryKey { instance, try_number } = key;
    let move_to_history = format!(
        "INSERT INTO hitl_detail_history SELECT * FROM hitl_detail WHERE try_number < $1 AND {} ON CONFLICT DO NOTHING",
        INSTANCE.is("hitl_detail", 2)
    );
    client.execute(&move_to_history, &instance.after(&[try_number])).await?;
    let query = format!(
        "
        INSERT INTO hitl_detail (subject, body, options, defaults, multiple, params, assigned_users, {TRY_KEY})
        VALUES ($1, $2, $3, $4, $5, $6, $7, {})
        ON CONFLICT ({KEY}) DO UPDATE
        SET subject = EXCLUDED.subject, body = EXCLUDED.body, options = EXCLUDED.options, defaults = EXCLUDED.defaults,
            multiple = EXCLUDED.multiple, params = EXCLUDED.params, assigned_users = EXCLUDED.assigned_users,
            try_number = EXCLUDED.try_number,
            created_at = now(), responded_at = NULL, responded_by = NULL, chosen_options = NULL, params_input = NULL",
        TRY.parameters(8)
    );
    let Question { subject, body, options, defaults, multiple, params, assigned_users } = question;
    let (options, defaults, params) = (Json(options), defaults.as_ref().map(Json), Json(params));
    let assigned_users = Json(assigned_users);
    let parameters = key.after(&[subject, body, &options, &defaults, multiple, &params, &assigned_users]);
    execute(client, &query, &parameters).await
}

pub async fn get(client: &impl GenericClient, key: &InstanceKey) -> Result<Option<Detail>> {
    let query = format!("SELECT * FROM hitl_detail WHERE {}", INSTANCE.is("hitl_detail", 1));
    fetch_optional(client, &query, &key.after(&[])).await
}

/// The open requests of a DAG's tasks, oldest first.
pub async fn open_of_dag(client: &impl GenericClient, dag_id: &str) -> Result<Vec<Detail>> {
    let query = format!(
        "SELECT h.* FROM {} WHERE h.dag_id = $1 AND h.responded_at IS NULL
         AND ti.state IN ('deferred', 'awaiting_input') ORDER BY h.created_at",
        from()
    );
    fetch_all(client, &query, &[&dag_id]).await
}

/// The request of a try.
pub async fn of_try(client: &impl GenericClient, key: &TryKey) -> Result<Option<Detail>> {
    let query = format!(
        "SELECT * FROM (SELECT * FROM hitl_detail UNION ALL SELECT * FROM hitl_detail_history) h WHERE {}",
        TRY.is("h", 1)
    );
    fetch_optional(client, &query, &key.after(&[])).await
}

/// SQL tables for lists of requests.
fn from() -> String {
    format!("hitl_detail h JOIN task_instance ti USING ({KEY}) JOIN dag_run r USING (dag_id, run_id)")
}

list_fields! {
    /// Fields of requests, for lists.
    DetailField, key: [CreatedAt, DagId, RunId, TaskId, MapIndex], filter: DetailFilter;
    CreatedAt = time("h.created_at"),
    DagId = text("h.dag_id"),
    RunId = text("h.run_id"),
    TaskId = text("h.task_id"),
    MapIndex = whole("h.map_index"),
    RespondedAt = time("h.responded_at"),
    RespondedBy = text("h.responded_by"),
    Subject = text("h.subject"),
    Body = text("h.body"),
    RunAfter = time("r.run_after"),
    RenderedMapIndex = text("ti.rendered_map_index"),
    Operator = text("ti.operator"),
    TaskState = text("ti.state"),
}

filter! {
    /// Filters of requests.
    pub struct DetailFilter {
        dag_id: String = "h.dag_id = {}",
        run_id: String = "h.run_id = {}",
        has_response: bool = "(h.responded_at IS NOT NULL) = {}",
    }
}

/// A page of requests with the total number of matches.
pub async fn list(client: &impl GenericClient, listing: Listing<DetailField>) -> Result<ListPage<Detail>> {
    listing.fetch(client, &Source::new("h.*", &from())).await
}

/// Why a response is rejected. The texts of invalid responses are Airflow's.
#[derive(Debug, thiserror::Error)]
pub enum Refusal {
    #[error("the task has not requested input")]
    NotAsked,
    #[error("the request has a response")]
    AnsweredAlready,
    #[error("Invalid options {unknown:?}; allowed options are {allowed:?}.")]
    UnknownOptions { unknown: Vec<String>, allowed: Vec<String> },
    #[error("Multiple options chosen but this Human-in-the-loop task accepts only a single option.")]
    SeveralOptions,
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Records a response and resumes the task that waits for it. `responder` is a user name, or `None` if a task's code
/// responds.
pub async fn answer(
    transaction: &Transaction<'_>,
    key: &InstanceKey,
    answer: &Answer,
    responder: Option<&str>,
) -> Result<Detail, Refusal> {
    let detail = record_answer(transaction, key, answer, responder).await?;
    if let Some(waiting) = triggers::of_instance(transaction, key).await? {
        triggers::fire(transaction, &waiting, &event(&waiting, &detail, false)).await?;
    }
    Ok(detail)
}

/// Records a response, without resuming the task.
pub async fn record_answer(
    transaction: &Transaction<'_>,
    key: &InstanceKey,
    answer: &Answer,
    responder: Option<&str>,
) -> Result<Detail, Refusal> {
    // Locks the run before the instance, like every transaction. The transaction that records the end of the try waits
    // for this one.
    runs::bump_revision(transaction, &key.run).await?;
    instances::lock(transaction, std::slice::from_ref(key)).await?;
    let detail = get(transaction, key).await?.ok_or(Refusal::NotAsked)?;
    if detail.responded_at.is_some() {
        return Err(Refusal::AnsweredAlready);
    }
    check(&detail.question, answer)?;
    let detail = write_answer(transaction, &detail, answer, responder).await?;
    // If the try's process has not exited yet, the try is not recorded as waiting, so the agent must check again for
    // the response.
    events::notify(transaction, &Event::Triggers).await?;
    Ok(detail)
}

fn check(question: &Question, answer: &Answer) -> Result<(), Refusal> {
    let mut unknown = answer.chosen_options.clone();
    unknown.retain(|option| !question.options.contains(option));
    if !unknown.is_empty() {
        let mut allowed = question.options.clone();
        unknown.sort();
        allowed.sort();
        return Err(Refusal::UnknownOptions { unknown, allowed });
    }
    match !question.multiple && answer.chosen_options.len() > 1 {
        true => Err(Refusal::SeveralOptions),
        false => Ok(()),
    }
}

async fn write_answer(
    client: &impl GenericClient,
    detail: &Detail,
    answer: &Answer,
    responder: Option<&str>,
) -> Result<Detail> {
    let query = format!(
        "UPDATE hitl_detail SET responded_at = now(), responded_by = $1, chosen_options = $2, params_input = $3
         WHERE {} AND responded_at IS NULL RETURNING *",
        INSTANCE.is("hitl_detail", 4)
    );
    let (chosen_options, params_input) = (Json(&answer.chosen_options), Json(&answer.params_input));
    fetch_one(client, &query, &detail.instance.after(&[&responder, &chosen_options, &params_input])).await
}

/// Returns the event for a task whose timeout has passed, or whose response came before the task waited: that response,
/// the defaults, or a timeout error. `None` if the task no longer waits. A concurrent response waits for this
/// transaction.
pub async fn time_out(client: &Transaction<'_>, waiting: &Waiting) -> Result<Option<Fired>> {
    let instance = &waiting.key.instance;
    runs::bump_revision(client, &instance.run).await?;
    let lock_trigger = "SELECT FROM task_trigger WHERE id = $1 AND fired_at IS NULL FOR UPDATE";
    if !exists(client, lock_trigger, &[&waiting.id]).await? {
        return Ok(None);
    }
    let detail = get(client, instance).await?;
    if let Some(detail) = detail.as_ref().filter(|detail| detail.responded_at.is_some()) {
        return Ok(Some(event(waiting, detail, false)));
    }
    if let Some((detail, defaults)) =
        detail.as_ref().and_then(|detail| Some((detail, detail.question.defaults.clone()?)))
    {
        let default_value = |param: &Value| param.get("value").unwrap_or(param).clone();
        let params_input =
            detail.question.params.iter().map(|(name, param)| (name.clone(), default_value(param))).collect();
        let detail = write_answer(
            client,
            detail,
            &Answer { chosen_options: defaults, params_input, request_created_at: None },
            None,
        )
        .await?;
        return Ok(Some(event(waiting, &detail, true)));
    }
    let error = "The Human-in-the-loop response timeout has passed without a response.";
    Ok(Some(fired_event(waiting, json!({"error": error, "error_type": "timeout"}))))
}

fn event(waiting: &Waiting, detail: &Detail, timed_out: bool) -> Fired {
    let answer = detail.answer.as_ref();
    let responder = detail.responded_by.as_ref().map(|name| json!({"id": name, "name": name}));
    fired_event(
        waiting,
        json!({
            "chosen_options": answer.map(|answer| &answer.chosen_options),
            "params_input": answer.map(|answer| &answer.params_input),
            "responded_at": detail.responded_at, "responded_by_user": responder, "timedout": timed_out,
        }),
    )
}

/// Wraps an event for the task's Python process, which converts it to the form that the installed Airflow reads.
fn fired_event(waiting: &Waiting, event: Value) -> Fired {
    Fired::Event { next_kwargs: json!({"leoflow_input": event, "kwargs": waiting.next_kwargs}) }
}

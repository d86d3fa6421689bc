//! Human-in-the-loop: requests of tasks for input from a person, and the responses.
//!
//! <https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/hitl.html>

use super::triggers::{self, Fired, Waiting};
use crate::model::keys::{InstanceKey, TryKey};
use crate::store::StoreError;
use crate::store::events::{self, Event};
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use crate::store::rows;
use crate::store::run::runs;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A request for input.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub subject: String,
    #[serde(default)]
    pub body: Option<String>,
    pub options: Vec<String>,
    /// Options that are chosen when the timeout passes without a response; without defaults the task then fails.
    #[serde(default)]
    pub defaults: Option<Vec<String>>,
    #[serde(default)]
    pub multiple: bool,
    /// Params to fill in with the response, by name: each an object of `value`, `description` and `schema`, or the bare
    /// value.
    #[serde(default)]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub assigned_users: Vec<Value>,
}

/// A response.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "UpdateHITLDetailPayload")]
pub struct Answer {
    #[schemars(length(min = 1))]
    pub chosen_options: Vec<String>,
    #[serde(default)]
    pub params_input: Map<String, Value>,
}

/// A request of a task instance, with its response.
#[derive(Debug, Clone)]
pub struct Detail {
    pub instance: InstanceKey,
    pub question: Question,
    pub created_at: Timestamp,
    pub responded_at: Option<Timestamp>,
    /// `None` if there is no response, if the defaults were chosen, or if a task's code responded.
    pub responded_by: Option<String>,
    pub answer: Option<Answer>,
}

fn read(row: &Row) -> Detail {
    let chosen: Option<Json<Vec<String>>> = row.get("chosen_options");
    let input: Option<Json<Map<String, Value>>> = row.get("params_input");
    Detail {
        instance: rows::instance_key(row),
        question: Question {
            subject: row.get("subject"),
            body: row.get("body"),
            options: row.get::<_, Json<_>>("options").0,
            defaults: row.get::<_, Option<Json<_>>>("defaults").map(|Json(defaults)| defaults),
            multiple: row.get("multiple"),
            params: row.get::<_, Json<_>>("params").0,
            assigned_users: row.get::<_, Json<_>>("assigned_users").0,
        },
        created_at: row.get("created_at"),
        responded_at: row.get("responded_at"),
        responded_by: row.get("responded_by"),
        answer: chosen.map(|Json(chosen_options)| Answer {
            chosen_options,
            params_input: input.map(|Json(input)| input).unwrap_or_default(),
        }),
    }
}

/// Stores the request of a try. A request of an earlier try is copied to the history and replaced.
pub async fn ask(client: &impl GenericClient, key: &TryKey, question: &Question) -> Result<(), StoreError> {
    let move_to_history = "
        INSERT INTO hitl_detail_history SELECT * FROM hitl_detail
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number < $5 ON CONFLICT DO NOTHING";
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
    client.execute(move_to_history, &[&run.dag_id, &run.run_id, task_id, map_index, try_number]).await?;
    let query = "
        INSERT INTO hitl_detail (dag_id, run_id, task_id, map_index, subject, body, options, defaults, multiple, params,
                                 assigned_users, try_number)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12)
        ON CONFLICT (dag_id, run_id, task_id, map_index) DO UPDATE
        SET subject = EXCLUDED.subject, body = EXCLUDED.body, options = EXCLUDED.options, defaults = EXCLUDED.defaults,
            multiple = EXCLUDED.multiple, params = EXCLUDED.params, assigned_users = EXCLUDED.assigned_users,
            try_number = EXCLUDED.try_number,
            created_at = now(), responded_at = NULL, responded_by = NULL, chosen_options = NULL, params_input = NULL";
    let Question { subject, body, options, defaults, multiple, params, assigned_users } = question;
    let defaults = defaults.as_ref().map(Json);
    client
        .execute(
            query,
            &[
                &run.dag_id,
                &run.run_id,
                task_id,
                map_index,
                subject,
                body,
                &Json(options),
                &defaults,
                multiple,
                &Json(params),
                &Json(assigned_users),
                try_number,
            ],
        )
        .await?;
    Ok(())
}

pub async fn get(client: &impl GenericClient, key: &InstanceKey) -> Result<Option<Detail>, StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    let query = "SELECT * FROM hitl_detail WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?.as_ref().map(read))
}

/// The open requests of a DAG's tasks, oldest first.
pub async fn open_of_dag(client: &impl GenericClient, dag_id: &str) -> Result<Vec<Detail>, StoreError> {
    let query = format!(
        "SELECT h.* FROM {FROM} WHERE h.dag_id = $1 AND h.responded_at IS NULL
         AND ti.state IN ('deferred', 'awaiting_input') ORDER BY h.created_at"
    );
    Ok(client.query(&query, &[&dag_id]).await?.iter().map(read).collect())
}

/// The request of a try.
pub async fn of_try(client: &impl GenericClient, key: &TryKey) -> Result<Option<Detail>, StoreError> {
    let query = "
        SELECT * FROM (SELECT * FROM hitl_detail UNION ALL SELECT * FROM hitl_detail_history) h
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number = $5";
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = key;
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, try_number]).await?;
    Ok(row.as_ref().map(read))
}

/// SQL tables for lists of requests.
const FROM: &str = "hitl_detail h JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
    JOIN dag_run r USING (dag_id, run_id)";

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

/// Filters of requests.
#[derive(Debug, Default)]
pub struct DetailFilter {
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    pub has_response: Option<bool>,
    /// Substrings of the subject and of the body; `%` and `_` are wildcards.
    pub subject_contains: Option<String>,
    pub body_contains: Option<String>,
}

impl Filter for DetailFilter {
    fn add_to(self, conditions: &mut Conditions) {
        let with_wildcards = |text: Option<String>| text.map(|text| format!("%{text}%"));
        conditions.maybe("h.dag_id = {}", self.dag_id);
        conditions.maybe("h.run_id = {}", self.run_id);
        conditions.maybe("(h.responded_at IS NOT NULL) = {}", self.has_response);
        conditions.maybe("h.subject ILIKE {}", with_wildcards(self.subject_contains));
        conditions.maybe("h.body ILIKE {}", with_wildcards(self.body_contains));
    }
}

/// A page of requests with the total number of matches.
pub async fn list(client: &impl GenericClient, listing: Listing<DetailField>) -> Result<ListPage<Detail>, StoreError> {
    listing.fetch(client, &Source::new("h.*", FROM), read).await
}

/// Why a response is rejected.
#[derive(Debug)]
pub enum Refusal {
    /// The task has not requested input.
    NotAsked,
    AnsweredAlready,
    /// Airflow's text.
    Invalid(String),
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
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
    let InstanceKey { run, task_id, map_index } = key;
    // Locks the run before the instance, like every transaction. The transaction that records the end of the try waits
    // for this one.
    runs::bump_revision(transaction, run).await?;
    let lock =
        "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 FOR UPDATE";
    transaction.execute(lock, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    let detail = get(transaction, key).await?.ok_or(Refusal::NotAsked)?;
    if detail.responded_at.is_some() {
        return Err(Refusal::AnsweredAlready);
    }
    check(&detail.question, answer).map_err(Refusal::Invalid)?;
    let detail = write_answer(transaction, &detail, answer, responder).await?;
    // If the try's process has not exited yet, the try is not recorded as waiting, so the agent must check again for
    // the response.
    events::notify(transaction, &Event::Triggers).await?;
    Ok(detail)
}

fn check(question: &Question, answer: &Answer) -> Result<(), String> {
    let mut unknown: Vec<&String> =
        answer.chosen_options.iter().filter(|option| !question.options.contains(option)).collect();
    if !unknown.is_empty() {
        unknown.sort();
        let mut allowed: Vec<&String> = question.options.iter().collect();
        allowed.sort();
        return Err(format!("Invalid options {unknown:?}; allowed options are {allowed:?}."));
    }
    if !question.multiple && answer.chosen_options.len() > 1 {
        let text = "Multiple options chosen but this Human-in-the-loop task accepts only a single option.";
        return Err(text.to_owned());
    }
    Ok(())
}

async fn write_answer(
    client: &impl GenericClient,
    detail: &Detail,
    answer: &Answer,
    responder: Option<&str>,
) -> Result<Detail, StoreError> {
    let query = "
        UPDATE hitl_detail SET responded_at = now(), responded_by = $5, chosen_options = $6, params_input = $7
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND responded_at IS NULL RETURNING *";
    let InstanceKey { run, task_id, map_index } = &detail.instance;
    let Answer { chosen_options, params_input } = answer;
    let row = client
        .query_one(
            query,
            &[&run.dag_id, &run.run_id, task_id, map_index, &responder, &Json(chosen_options), &Json(params_input)],
        )
        .await?;
    Ok(read(&row))
}

/// Returns the event for a task whose timeout has passed, or whose response came before the task waited: that response,
/// the defaults, or a timeout error. `None` if the task no longer waits. A concurrent response waits for this
/// transaction.
pub async fn time_out(client: &Transaction<'_>, waiting: &Waiting) -> Result<Option<Fired>, StoreError> {
    let instance = &waiting.key.instance;
    runs::bump_revision(client, &instance.run).await?;
    let lock_trigger = "SELECT FROM task_trigger WHERE id = $1 AND fired_at IS NULL FOR UPDATE";
    if client.query_opt(lock_trigger, &[&waiting.id]).await?.is_none() {
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
        let detail = write_answer(client, detail, &Answer { chosen_options: defaults, params_input }, None).await?;
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

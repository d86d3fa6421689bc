//! What tasks ask people (human in the loop), and the answers.
//!
//! <https://airflow.apache.org/docs/apache-airflow-providers-standard/stable/operators/hitl.html>

use super::events::{self, Event};
use super::listing::{Column, Found, Listing, Source};
use super::triggers::{self, Fired, Waiting};
use super::{StoreError, runs};
use crate::engine::keys::{RunKey, TryKey};
use crate::postgres::GenericClient;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A question.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Question {
    pub subject: String,
    #[serde(default)]
    pub body: Option<String>,
    pub options: Vec<String>,
    /// What is chosen when nobody has answered in time; without any, the task fails then.
    #[serde(default)]
    pub defaults: Option<Vec<String>>,
    #[serde(default)]
    pub multiple: bool,
    /// Params that are filled in with the answer, by name: `value`, `description`, `schema`, or the value alone.
    #[serde(default)]
    pub params: Map<String, Value>,
    #[serde(default)]
    pub assigned_users: Vec<Value>,
}

/// An answer.
#[derive(Debug, Clone, PartialEq, Deserialize, JsonSchema)]
#[schemars(rename = "UpdateHITLDetailPayload")]
pub struct Answer {
    #[schemars(length(min = 1))]
    pub chosen_options: Vec<String>,
    #[serde(default)]
    pub params_input: Map<String, Value>,
}

/// A question of a task instance, and what became of it.
#[derive(Debug, Clone)]
pub struct Detail {
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub question: Question,
    pub created_at: Timestamp,
    pub responded_at: Option<Timestamp>,
    /// Nobody, where the time was over.
    pub responded_by: Option<String>,
    pub answer: Option<Answer>,
}

fn read(row: &Row) -> Detail {
    let chosen: Option<Json<Vec<String>>> = row.get("chosen_options");
    let input: Option<Json<Map<String, Value>>> = row.get("params_input");
    Detail {
        run: RunKey { dag_id: row.get("dag_id"), run_id: row.get("run_id") },
        task_id: row.get("task_id"),
        map_index: row.get("map_index"),
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

/// Asks. What an earlier try has asked, and was answered, is kept beside it.
pub async fn ask(client: &impl GenericClient, of: &TryKey, question: &Question) -> Result<(), StoreError> {
    let keep = "
        INSERT INTO hitl_detail_history SELECT * FROM hitl_detail
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number < $5 ON CONFLICT DO NOTHING";
    client.execute(keep, &[&of.run.dag_id, &of.run.run_id, &of.task_id, &of.map_index, &of.try_number]).await?;
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
    let TryKey { run, task_id, map_index, try_number } = of;
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

pub async fn get(
    client: &impl GenericClient,
    run: &RunKey,
    task_id: &str,
    map_index: i32,
) -> Result<Option<Detail>, StoreError> {
    let query = "SELECT * FROM hitl_detail WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id, &task_id, &map_index]).await?.as_ref().map(read))
}

/// What tasks of a DAG ask, and nobody has answered.
pub async fn open_of_dag(client: &impl GenericClient, dag_id: &str) -> Result<Vec<Detail>, StoreError> {
    let query = format!(
        "SELECT h.* FROM {LISTED} WHERE h.dag_id = $1 AND h.responded_at IS NULL
         AND ti.state IN ('deferred', 'awaiting_input') ORDER BY h.created_at"
    );
    Ok(client.query(&query, &[&dag_id]).await?.iter().map(read).collect())
}

/// What that try has asked.
pub async fn of_try(client: &impl GenericClient, of: &TryKey) -> Result<Option<Detail>, StoreError> {
    let query = "
        SELECT * FROM (SELECT * FROM hitl_detail UNION ALL SELECT * FROM hitl_detail_history) h
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number = $5";
    let TryKey { run, task_id, map_index, try_number } = of;
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, try_number]).await?;
    Ok(row.as_ref().map(read))
}

/// What lists of questions are made of.
const LISTED: &str = "hitl_detail h JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)
    JOIN dag_run r USING (dag_id, run_id)";
const KEY: &[Column] = &[
    Column::time("h.created_at"),
    Column::text("h.dag_id"),
    Column::text("h.run_id"),
    Column::text("h.task_id"),
    Column::whole("h.map_index"),
];

/// A page of questions with the number of all that match.
pub async fn list(client: &impl GenericClient, listing: Listing) -> Result<Found<Detail>, StoreError> {
    listing.fetch(client, &Source::of("h.*", LISTED, KEY), read).await
}

/// Why an answer is not taken.
#[derive(Debug)]
pub enum Refusal {
    NotAsked,
    AnsweredAlready,
    /// In Airflow's words.
    Invalid(String),
    Store(StoreError),
}

impl<E: Into<StoreError>> From<E> for Refusal {
    fn from(error: E) -> Self {
        Self::Store(error.into())
    }
}

/// Answers, and lets the task go on that waits for it. `by` is nobody where it is a task's own code.
pub async fn answer(
    transaction: &Transaction<'_>,
    run: &RunKey,
    task_id: &str,
    map_index: i32,
    answer: &Answer,
    by: Option<&str>,
) -> Result<Detail, Refusal> {
    let detail = note_answer(transaction, run, task_id, map_index, answer, by).await?;
    if let Some(waiting) = triggers::of_instance(transaction, run, task_id, map_index).await? {
        triggers::fire(transaction, &waiting, &event(&waiting, &detail, false)).await?;
    }
    Ok(detail)
}

/// Answers. Whoever waits for it is not told.
pub async fn note_answer(
    transaction: &Transaction<'_>,
    run: &RunKey,
    task_id: &str,
    map_index: i32,
    answer: &Answer,
    by: Option<&str>,
) -> Result<Detail, Refusal> {
    // In the order in which others take these locks: the run first. Whoever writes down how the try has ended waits.
    runs::revise(transaction, run).await?;
    let lock =
        "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 FOR UPDATE";
    transaction.execute(lock, &[&run.dag_id, &run.run_id, &task_id, &map_index]).await?;
    let detail = get(transaction, run, task_id, map_index).await?.ok_or(Refusal::NotAsked)?;
    if detail.responded_at.is_some() {
        return Err(Refusal::AnsweredAlready);
    }
    check(&detail.question, answer).map_err(Refusal::Invalid)?;
    let detail = note(transaction, &detail, answer, by).await?;
    // A try that ends meanwhile has not said yet that it waits: the agent looks once more.
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

async fn note(
    client: &impl GenericClient,
    detail: &Detail,
    answer: &Answer,
    by: Option<&str>,
) -> Result<Detail, StoreError> {
    let query = "
        UPDATE hitl_detail SET responded_at = now(), responded_by = $5, chosen_options = $6, params_input = $7
        WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND responded_at IS NULL RETURNING *";
    let Detail { run, task_id, map_index, .. } = detail;
    let Answer { chosen_options, params_input } = answer;
    let row = client
        .query_one(
            query,
            &[&run.dag_id, &run.run_id, task_id, map_index, &by, &Json(chosen_options), &Json(params_input)],
        )
        .await?;
    Ok(read(&row))
}

/// What the task hears whose time is over: the answer that came before it did, its defaults, or that there is none.
/// `None` for one that does not wait any more. Whoever answers at the same time waits for the transaction.
pub async fn settle(client: &Transaction<'_>, waiting: &Waiting) -> Result<Option<Fired>, StoreError> {
    let TryKey { run, task_id, map_index, .. } = &waiting.key;
    runs::revise(client, run).await?;
    let unfired = "SELECT FROM task_trigger WHERE id = $1 AND fired_at IS NULL FOR UPDATE";
    if client.query_opt(unfired, &[&waiting.id]).await?.is_none() {
        return Ok(None);
    }
    let detail = get(client, run, task_id, *map_index).await?;
    if let Some(detail) = detail.as_ref().filter(|detail| detail.responded_at.is_some()) {
        return Ok(Some(event(waiting, detail, false)));
    }
    if let Some((detail, defaults)) = detail.as_ref().and_then(|one| Some((one, one.question.defaults.clone()?))) {
        let value = |param: &Value| param.get("value").unwrap_or(param).clone();
        let params_input = detail.question.params.iter().map(|(name, param)| (name.clone(), value(param))).collect();
        let detail = note(client, detail, &Answer { chosen_options: defaults, params_input }, None).await?;
        return Ok(Some(event(waiting, &detail, true)));
    }
    let error = "The Human-in-the-loop response timeout has passed without a response.";
    Ok(Some(told(waiting, json!({"error": error, "error_type": "timeout"}))))
}

fn event(waiting: &Waiting, detail: &Detail, timed_out: bool) -> Fired {
    let answer = detail.answer.as_ref();
    let by = detail.responded_by.as_ref().map(|name| json!({"id": name, "name": name}));
    told(
        waiting,
        json!({
            "chosen_options": answer.map(|answer| &answer.chosen_options),
            "params_input": answer.map(|answer| &answer.params_input),
            "responded_at": detail.responded_at, "responded_by_user": by, "timedout": timed_out,
        }),
    )
}

/// The task's own Python makes of it what the installed Airflow reads.
fn told(waiting: &Waiting, event: Value) -> Fired {
    Fired::Event { next_kwargs: json!({"leoflow_input": event, "kwargs": waiting.next_kwargs}) }
}

//! Triggers of deferred tasks, which the agent runs, and requests for input, which a person answers.

use super::xcoms;
use crate::model::keys::{InstanceKey, TryKey};
use crate::model::state::TryState;
use crate::store::StoreError;
use crate::store::events::{self, Event};
use crate::store::rows;
use crate::store::run::runs;
use crate::store::transition::instance::{self, TriggerEffect};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// The request of a task that defers itself.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deferral {
    /// The trigger's class with its module; empty if the task waits for a person.
    pub classpath: String,
    pub kwargs: Value,
    /// Seconds after which the task fails if the trigger has not fired; `None` waits forever.
    pub timeout: Option<f64>,
    /// The operator's method to resume with, and its arguments besides the event.
    pub next_method: String,
    pub next_kwargs: Map<String, Value>,
}

/// How to resume a deferred task.
#[derive(Debug, Clone, PartialEq)]
pub struct Resumption {
    pub next_method: String,
    pub next_kwargs: Value,
}

/// Reads how to resume a try; `None` if it did not defer.
pub(crate) fn resumption(row: &Row) -> Option<Resumption> {
    let next_method = row.get::<_, Option<String>>("next_method")?;
    let next_kwargs = row.get::<_, Option<Json<Value>>>("next_kwargs").map_or(Value::Null, |Json(value)| value);
    Some(Resumption { next_method, next_kwargs })
}

/// The part of the SQL statement in `tries::record` that stores a deferral: `$21` is a `Deferral`, `$22` is now.
pub(crate) const DEFERRED: &str = ",
        deferred AS (
            INSERT INTO task_trigger (dag_id, run_id, task_id, map_index, try_number, classpath, kwargs, timeout_at,
                                      next_method, next_kwargs, created_at)
            SELECT $1, $2, $3, $4, try_number, ($21::json)->>'classpath', ($21::json)->'kwargs',
                   $22::timestamptz + (($21::json)->>'timeout')::float8 * interval '1 second', ($21::json)->>'next_method',
                   ($21::json)->'next_kwargs', $22
            FROM ended
            ON CONFLICT (dag_id, run_id, task_id, map_index) DO UPDATE
            SET try_number = EXCLUDED.try_number, id = DEFAULT, classpath = EXCLUDED.classpath, kwargs = EXCLUDED.kwargs,
                timeout_at = EXCLUDED.timeout_at, next_method = EXCLUDED.next_method, next_kwargs = EXCLUDED.next_kwargs,
                created_at = EXCLUDED.created_at, fired_at = NULL, resumed_at = NULL)";

/// A trigger that has not fired, or a request for input that has not been delivered.
#[derive(Debug, Clone)]
pub struct Waiting {
    pub id: i64,
    pub key: TryKey,
    pub version_id: i64,
    pub classpath: String,
    pub kwargs: Value,
    pub next_kwargs: Value,
    pub timeout_at: Option<Timestamp>,
}

impl Waiting {
    /// True if the task waits for a person instead of a trigger.
    pub fn is_for_input(&self) -> bool {
        self.classpath.is_empty()
    }
}

/// SQL condition on a trigger `w` and a request for input `h`: the agent has something to do, now or at a timeout. A
/// request needs no agent until a person responds, but a response that came before the task's process had exited must
/// still be delivered.
const NEEDS_AGENT: &str = "(w.classpath <> '' OR w.timeout_at IS NOT NULL OR h.responded_at IS NOT NULL)";

/// True if there may be triggers for the agent. A quick check, since usually no task is deferred.
pub async fn is_any_waiting(client: &impl GenericClient) -> Result<bool, StoreError> {
    let query = format!(
        "SELECT EXISTS (SELECT FROM task_trigger w LEFT JOIN hitl_detail h USING (dag_id, run_id, task_id, map_index)
                        WHERE w.fired_at IS NULL AND {NEEDS_AGENT})"
    );
    Ok(client.query_one(&query, &[]).await?.get(0))
}

/// All triggers and requests that the agent must handle, oldest first. The timeout of a request that has a response is
/// 1970, so that the agent handles it immediately.
pub async fn waiting(client: &impl GenericClient) -> Result<Vec<Waiting>, StoreError> {
    let query = format!(
        "SELECT w.*, r.dag_version_id, CASE WHEN w.classpath = '' AND h.responded_at IS NOT NULL THEN 'epoch'
                                            ELSE w.timeout_at END AS until
         FROM task_trigger w JOIN task_try t USING (dag_id, run_id, task_id, map_index, try_number)
         JOIN task_instance ti USING (dag_id, run_id, task_id, map_index) JOIN dag_run r USING (dag_id, run_id)
         LEFT JOIN hitl_detail h USING (dag_id, run_id, task_id, map_index)
         WHERE w.fired_at IS NULL AND t.state IN ('deferred', 'awaiting_input') AND ti.state IN ('running', t.state)
           AND ti.try_number = w.try_number AND r.dag_version_id IS NOT NULL AND {NEEDS_AGENT}
         ORDER BY w.created_at"
    );
    Ok(client.query(&query, &[]).await?.iter().map(read).collect())
}

/// The trigger or request that an instance waits for, including a request without a timeout.
pub async fn of_instance(client: &impl GenericClient, key: &InstanceKey) -> Result<Option<Waiting>, StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    let query = "
        SELECT w.*, coalesce(r.dag_version_id, 0) AS dag_version_id, w.timeout_at AS until
        FROM task_trigger w JOIN task_try t USING (dag_id, run_id, task_id, map_index, try_number)
        JOIN dag_run r USING (dag_id, run_id)
        WHERE w.dag_id = $1 AND w.run_id = $2 AND w.task_id = $3 AND w.map_index = $4 AND w.fired_at IS NULL
          AND t.state IN ('deferred', 'awaiting_input')";
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?.as_ref().map(read))
}

fn read(row: &Row) -> Waiting {
    Waiting {
        id: row.get("id"),
        key: rows::try_key(row),
        version_id: row.get("dag_version_id"),
        classpath: row.get("classpath"),
        kwargs: row.get::<_, Json<Value>>("kwargs").0,
        next_kwargs: row.get::<_, Json<Value>>("next_kwargs").0,
        timeout_at: row.get("until"),
    }
}

/// The result of a trigger.
#[derive(Debug, Clone, PartialEq)]
pub enum Fired {
    /// Resumes the task, with the event among its arguments.
    Event { next_kwargs: Value },
    /// Resumes the task only to fail it: the reason, and the lines of a traceback.
    Failed { error: String, traceback: Option<Vec<String>> },
    /// Ends the task without resuming it.
    Ended { state: TryState, xcoms: BTreeMap<String, Value> },
}

/// Airflow's error texts, by which its operators distinguish a timeout from a failure.
pub const TIMED_OUT: &str = "Trigger timeout";
pub const FAILURE: &str = "Trigger failure";
/// Method name by which Airflow's operators recognize a failure.
const FAIL: &str = "__fail__";

/// Records that a trigger has fired, and resumes or ends its task. Returns `false` if the task no longer waits, because
/// it was already resumed or was cleared.
pub async fn fire(transaction: &Transaction<'_>, waiting: &Waiting, fired: &Fired) -> Result<bool, StoreError> {
    let TryKey { instance: InstanceKey { run, task_id, map_index }, try_number } = &waiting.key;
    // Also locks the run, so that the scheduler does not plan it meanwhile.
    runs::bump_revision(transaction, run).await?;
    let (next_method, next_kwargs) = match fired {
        Fired::Event { next_kwargs } => (None, Some(next_kwargs.clone())),
        Fired::Failed { error, traceback } => {
            (Some(FAIL), Some(serde_json::json!({"error": error, "traceback": traceback})))
        }
        Fired::Ended { .. } => (None, None),
    };
    let record_fired = "UPDATE task_trigger SET fired_at = now(), next_method = coalesce($2, next_method),
                       next_kwargs = coalesce($3::json, next_kwargs)
                WHERE id = $1 AND fired_at IS NULL";
    if transaction.execute(record_fired, &[&waiting.id, &next_method, &next_kwargs.map(Json)]).await? == 0 {
        return Ok(false);
    }
    let (state, effect) = match fired {
        Fired::Ended { state, .. } => (Some(state.as_str()), TriggerEffect::End),
        _ => (None, TriggerEffect::Resume),
    };
    let ends = effect == TriggerEffect::End;
    let update_try = "UPDATE task_try SET due_at = CASE WHEN $7 THEN NULL ELSE now() END, state = coalesce($6, state),
                         end_date = CASE WHEN $7 THEN now() ELSE end_date END,
                         outcome = CASE WHEN $7 AND $6 = 'failed' THEN 'ended by its trigger' END
                  WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND try_number = $5
                    AND state IN ('deferred', 'awaiting_input')";
    let resumed = transaction
        .execute(update_try, &[&run.dag_id, &run.run_id, task_id, map_index, try_number, &state, &ends])
        .await?;
    instance::fire(transaction, &waiting.key, effect).await?;
    if let Fired::Ended { xcoms, state: TryState::Success } = fired {
        for (key, value) in xcoms {
            xcoms::push(transaction, &waiting.key.instance, key, &value.to_string()).await?;
        }
    }
    events::notify(transaction, &Event::Plan(run.clone())).await?;
    Ok(resumed > 0)
}

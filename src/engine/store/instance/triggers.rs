//! Triggers of deferred tasks, which the agent runs, and requests for input, which a person answers.

use super::xcoms;
use crate::model::keys::{InstanceKey, TryKey};
use crate::model::state::TryState;
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::instance_key::{INSTANCE, KEY, TRY, TRY_KEY};
use crate::store::rows::{exists, fetch_all, fetch_optional, from_row, get};
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
pub(super) fn resumption(row: &Row) -> Result<Option<Resumption>> {
    let Some(next_method) = get(row, "next_method")? else { return Ok(None) };
    let next_kwargs = get::<Option<Value>>(row, "next_kwargs")?.unwrap_or_default();
    Ok(Some(Resumption { next_method, next_kwargs }))
}

/// The part of the SQL statement in `tries::record` that stores a deferral. `key` is the number of the first parameter of
/// the key, `first` that of the `Deferral`, which the current time follows.
pub(super) fn deferred(key: usize, first: usize) -> String {
    let (deferral, now) = (format!("(${first}::json)"), format!("${}::timestamptz", first + 1));
    format!(
        ",
        deferred AS (
            INSERT INTO task_trigger ({KEY}, try_number, classpath, kwargs, timeout_at, next_method, next_kwargs, created_at)
            SELECT {}, try_number, {deferral}->>'classpath', {deferral}->'kwargs',
                   {now} + ({deferral}->>'timeout')::float8 * interval '1 second', {deferral}->>'next_method',
                   {deferral}->'next_kwargs', {now}
            FROM ended
            ON CONFLICT ({KEY}) DO UPDATE
            SET try_number = EXCLUDED.try_number, id = DEFAULT, classpath = EXCLUDED.classpath, kwargs = EXCLUDED.kwargs,
                timeout_at = EXCLUDED.timeout_at, next_method = EXCLUDED.next_method, next_kwargs = EXCLUDED.next_kwargs,
                created_at = EXCLUDED.created_at, fired_at = NULL, resumed_at = NULL)",
        INSTANCE.parameters(key)
    )
}

from_row! {
    /// A trigger that has not fired, or a request for input that has not been delivered.
    #[derive(Debug, Clone)]
    pub struct Waiting {
        pub id: i64,
        pub key: TryKey => TryKey::from_row,
        pub version_id: i64 = "dag_version_id",
        pub classpath: String,
        pub kwargs: Value,
        pub next_kwargs: Value,
        pub timeout_at: Option<Timestamp> = "until",
    }
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
pub async fn is_any_waiting(client: &impl GenericClient) -> Result<bool> {
    let query = format!(
        "SELECT FROM task_trigger w LEFT JOIN hitl_detail h USING ({KEY})
         WHERE w.fired_at IS NULL AND {NEEDS_AGENT} LIMIT 1"
    );
    exists(client, &query, &[]).await
}

/// All triggers and requests that the agent must handle, oldest first. The timeout of a request that has a response is
/// 1970, so that the agent handles it immediately.
pub async fn waiting(client: &impl GenericClient) -> Result<Vec<Waiting>> {
    let query = format!(
        "SELECT w.*, r.dag_version_id, CASE WHEN w.classpath = '' AND h.responded_at IS NOT NULL THEN 'epoch'
                                            ELSE w.timeout_at END AS until
         FROM task_trigger w JOIN task_try t USING ({TRY_KEY}) JOIN task_instance ti USING ({KEY})
         JOIN dag_run r USING (dag_id, run_id) LEFT JOIN hitl_detail h USING ({KEY})
         WHERE w.fired_at IS NULL AND t.state IN ('deferred', 'awaiting_input') AND ti.state IN ('running', t.state)
           AND ti.try_number = w.try_number AND r.dag_version_id IS NOT NULL AND {NEEDS_AGENT}
         ORDER BY w.created_at"
    );
    fetch_all(client, &query, &[]).await
}

/// The try that waits for a trigger; `None` if the trigger has fired or its task no longer waits.
pub async fn find_try(client: &impl GenericClient, trigger: i64) -> Result<Option<TryKey>> {
    let query = format!(
        "SELECT {} FROM task_trigger w JOIN task_try t USING ({TRY_KEY}) JOIN task_instance ti USING ({KEY})
         WHERE w.id = $1 AND w.fired_at IS NULL AND t.state = 'deferred' AND ti.state IN ('running', t.state)
           AND ti.try_number = w.try_number",
        TRY.of("t")
    );
    fetch_optional(client, &query, &[&trigger]).await
}

/// The trigger or request that an instance waits for, including a request without a timeout.
pub(crate) async fn of_instance(client: &impl GenericClient, key: &InstanceKey) -> Result<Option<Waiting>> {
    let query = format!(
        "SELECT w.*, coalesce(r.dag_version_id, 0) AS dag_version_id, w.timeout_at AS until
         FROM task_trigger w JOIN task_try t USING ({TRY_KEY}) JOIN dag_run r USING (dag_id, run_id)
         WHERE {} AND w.fired_at IS NULL AND t.state IN ('deferred', 'awaiting_input')",
        INSTANCE.is("w", 1)
    );
    fetch_optional(client, &query, &key.after(&[])).await
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
pub async fn fire(transaction: &Transaction<'_>, waiting: &Waiting, fired: &Fired) -> Result<bool> {
    let run = &waiting.key.instance.run;
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
    let update_try = format!(
        "UPDATE task_try SET due_at = CASE WHEN $2 THEN NULL ELSE now() END, state = coalesce($1, state),
                end_date = CASE WHEN $2 THEN now() ELSE end_date END,
                outcome = CASE WHEN $2 AND $1 = 'failed' THEN 'ended by its trigger' END
         WHERE {} AND state IN ('deferred', 'awaiting_input')",
        TRY.is("task_try", 3)
    );
    let resumed = transaction.execute(&update_try, &waiting.key.after(&[&state, &ends])).await?;
    instance::fire(transaction, &waiting.key, effect).await?;
    if let Fired::Ended { xcoms, state: TryState::Success } = fired {
        for (key, value) in xcoms {
            xcoms::push(transaction, &waiting.key.instance, key, &value.to_string()).await?;
        }
    }
    events::notify(transaction, &Event::Plan(run.clone())).await?;
    Ok(resumed > 0)
}

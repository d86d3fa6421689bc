//! The queue of DAG-level callbacks: code of a DAG file that is called when a run has ended, and listeners of plugins,
//! which are also called when it has started. It also has the failed tries that owe the callbacks of their tasks.

use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use crate::model::state::RunState;
use crate::planner::retry;
use crate::planner::snapshot::Reason;
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::instance_key::{INSTANCE, KEY, TRY, TRY_KEY};
use crate::store::rows::{FromRow, fetch_optional};
use crate::store::run::deadlines;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Value, json};

/// The reason of a call that tells only listeners, not the DAG's callbacks, that a run has started.
pub(crate) const STARTED: &str = "started";

/// Queues the callback for a run that has ended in `state`. As in Airflow, the callback's task instance is the one that
/// ended last in this state or, after a timeout or a deadlock, the one of `unfinished` that started last.
pub async fn add(
    transaction: &Transaction<'_>,
    run: &RunKey,
    (state, reason): (RunState, Reason),
    unfinished: Option<Vec<(&str, Position)>>,
) -> Result<()> {
    let (task_ids, positions): (Option<Vec<&str>>, Option<Vec<Position>>) =
        unfinished.map(|names| names.into_iter().unzip()).unzip();
    let query = "
        INSERT INTO dag_callback (dag_id, run_id, state, reason, task_id, map_index)
        SELECT $1, $2, $3, $4, ti.task_id, coalesce(ti.map_index, -1)
        FROM (SELECT 1) one LEFT JOIN LATERAL (
            SELECT task_id, map_index FROM task_instance
            WHERE dag_id = $1 AND run_id = $2
              AND CASE WHEN $5::text[] IS NULL THEN state = $3
                       ELSE (task_id, map_index) IN (SELECT * FROM unnest($5::text[], $6::integer[])) END
            -- An instance that never started has the end of the run as both dates.
            ORDER BY CASE WHEN $5::text[] IS NULL THEN end_date WHEN start_date < end_date THEN start_date END
                     DESC NULLS LAST, task_id
            LIMIT 1) ti ON true";
    let (state, reason) = (state.as_str(), reason.as_str());
    transaction.execute(query, &[&run.dag_id, &run.run_id, &state, &reason, &task_ids, &positions]).await?;
    events::notify(transaction, &Event::Callback).await
}

/// Queues the call of the listeners of a run that a user has marked, if its DAG has any.
pub(crate) async fn add_marked(transaction: &Transaction<'_>, run: &RunKey, state: RunState) -> Result<()> {
    let query = "
        INSERT INTO dag_callback (dag_id, run_id, state, reason)
        SELECT r.dag_id, r.run_id, $3, $4 FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id
        WHERE r.dag_id = $1 AND r.run_id = $2 AND (v.structure->>'run_listeners')::boolean";
    if transaction.execute(query, &[&run.dag_id, &run.run_id, &state.as_str(), &Reason::Marked.as_str()]).await? > 0 {
        events::notify(transaction, &Event::Callback).await?;
    }
    Ok(())
}

/// The reason of a call for a failed try, by whether the task is retried. `None` if no task of its DAG calls back after
/// a failure, or if a release that did not know this has stored the version of the DAG.
pub(crate) async fn reason_of_try(
    client: &impl GenericClient,
    key: &TryKey,
    may_retry: bool,
) -> Result<Option<&'static str>> {
    let query = format!(
        "SELECT ti.max_tries FROM task_instance ti JOIN dag_run USING (dag_id, run_id)
             JOIN dag_version v ON v.id = dag_version_id
         WHERE {} AND (v.structure->>'task_failure_callbacks')::boolean",
        INSTANCE.is("ti", 1)
    );
    let max_tries: Option<i32> = fetch_optional(client, &query, &key.instance.after(&[])).await?;
    Ok(max_tries.map(|max_tries| match may_retry && retry::has_tries_left(key.try_number, max_tries) {
        true => "task_up_for_retry",
        false => "task_failed",
    }))
}

/// The part of the statement that records the end of a try, for one that owes its callbacks. `key` is the number of the
/// first parameter of the try's key; the reason is the one after the key. The instance of a try that a user has ended
/// or cleared does not run.
pub(crate) fn of_try(key: usize) -> String {
    let (values, reason) = (TRY.parameters(key), key + TRY.len());
    format!(
        ",
        called AS (
            INSERT INTO dag_callback ({TRY_KEY}, state, reason)
            SELECT {values}, 'failed', ${reason}
            FROM ended, task_instance ti WHERE {} AND ti.state = 'running')",
        INSTANCE.is("ti", key)
    )
}

/// What a callback is called for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    Run,
    Try,
    /// The id of a deadline that the run has missed.
    Deadline(String),
}

/// A queued callback.
#[derive(Debug)]
pub struct Callback {
    /// The try whose context the callback gets; without one, its task id is empty.
    pub key: TryKey,
    pub subject: Subject,
    pub version_id: Option<i64>,
    /// A JSON object with the context for the callback's Python process.
    pub spec: Value,
}

/// Removes and returns the oldest callback whose DAG is not in `busy`. The caller must run it.
pub async fn take(client: &impl GenericClient, busy: &[&str]) -> Result<Option<Callback>> {
    let query = format!(
        "
        WITH taken AS (DELETE FROM dag_callback WHERE id = (
            SELECT id FROM dag_callback WHERE dag_id <> ALL ($1) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED)
            RETURNING dag_id, run_id, task_id, map_index, try_number, state, reason, deadline_id),
        late AS (
            UPDATE deadline d SET state = 'running', updated_at = now() FROM taken WHERE d.id = taken.deadline_id
            RETURNING d.id, d.alert, d.due_at, d.dag_version_id)
        SELECT t.dag_id, t.run_id, t.state, t.reason, t.task_id, t.map_index, t.try_number AS ended_try,
               coalesce(late.dag_version_id, r.dag_version_id) AS dag_version_id, r.run_type, r.state AS run_state, r.conf, r.logical_date, r.data_interval_start, r.data_interval_end,
               r.run_after, r.start_date, r.end_date, r.queued_at,
               r.triggered_by, r.triggering_user_name, r.note, r.partition_key, r.partition_date,
               (SELECT version_number FROM dag_version v WHERE v.id = r.dag_version_id) AS version_number,
               coalesce(t.try_number, ti.try_number, 0) AS try_number, coalesce(ti.max_tries, 0) AS max_tries,
               ended.outcome, coalesce(ended.first_start_date, ended.start_date) AS try_start_date,
               ended.end_date AS try_end_date,
               late.id::text AS deadline_id, late.alert - 1 AS deadline_alert, late.due_at AS deadline_time
        FROM taken t JOIN dag_run r USING (dag_id, run_id) LEFT JOIN task_instance ti USING ({KEY})
             LEFT JOIN task_try ended ON {} LEFT JOIN late ON late.id = t.deadline_id",
        TRY.same("ended", "t")
    );
    let Some(row) = client.query_opt(&query, &[&busy]).await? else { return Ok(None) };
    let text = |name: &str| row.get::<_, Option<String>>(name);
    let number = |name: &str| row.get::<_, Option<i32>>(name);
    let time = |name: &str| row.get::<_, Option<Timestamp>>(name);
    let run = RunKey::from_row(&row)?;
    let position: Position = row.get("map_index");
    let (reason, task_id): (String, Option<String>) = (row.get("reason"), row.get("task_id"));
    // A run whose start is announced may have ended since. Names are not parsed: the row is already deleted, so an
    // error would lose the callback.
    let (state, end_date) = match reason.as_str() {
        STARTED => (Some(RunState::Running.as_str().to_owned()), None),
        deadlines::MISSED => (text("run_state"), time("end_date")),
        _ => (text("state"), time("end_date")),
    };
    let deadline = text("deadline_id")
        .map(|id| json!({"id": id, "alert": number("deadline_alert"), "deadline_time": time("deadline_time")}));
    let spec = json!({
        "dag_id": run.dag_id, "run_id": run.run_id, "state": state,
        "reason": reason, "task_id": task_id, "map_index": position.map_index(), "iteration": position.iteration(), "try_number": number("try_number"),
        "max_tries": number("max_tries"), "run_type": text("run_type"), "conf": row.get::<_, Value>("conf"),
        "logical_date": time("logical_date"), "data_interval_start": time("data_interval_start"),
        "data_interval_end": time("data_interval_end"), "run_after": time("run_after"),
        "run_start_date": time("start_date"), "end_date": end_date, "queued_at": time("queued_at"),
        "version_number": number("version_number"), "triggered_by": text("triggered_by"),
        "triggering_user_name": text("triggering_user_name"), "note": text("note"),
        "error": text("outcome"), "try_start_date": time("try_start_date"), "try_end_date": time("try_end_date"),
        "partition_key": text("partition_key"), "partition_date": time("partition_date"), "deadline": deadline,
    });
    let instance = InstanceKey::new(run, task_id.as_deref().unwrap_or_default(), position);
    let key = TryKey { instance, try_number: row.get("try_number") };
    let subject = match text("deadline_id") {
        Some(id) => Subject::Deadline(id),
        None if number("ended_try").is_some() => Subject::Try,
        None => Subject::Run,
    };
    Ok(Some(Callback { key, subject, version_id: row.get("dag_version_id"), spec }))
}

//! The queue of DAG-level callbacks: code of a DAG file that is called when a run has ended, and listeners of plugins,
//! which are also called when it has started.

use crate::model::keys::{InstanceKey, InstanceName, RunKey, TryKey};
use crate::model::state::RunState;
use crate::planner::snapshot::Reason;
use crate::store::StoreError;
use crate::store::events::{self, Event};
use crate::store::rows;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Value, json};
use tokio_postgres::types::Json;

/// The reason of a call that tells only listeners, not the DAG's callbacks, that a run has started.
pub(crate) const STARTED: &str = "started";

/// Queues the callback for a run that has ended in `state`. As in Airflow, the callback's task instance is the one that
/// ended last in this state or, after a timeout or a deadlock, the one of `unfinished` that started last.
pub async fn add(
    transaction: &Transaction<'_>,
    run: &RunKey,
    (state, reason): (RunState, Reason),
    unfinished: Option<&[&InstanceName]>,
) -> Result<(), StoreError> {
    let task_ids: Option<Vec<&str>> = unfinished.map(|names| names.iter().map(|name| name.task_id.as_str()).collect());
    let map_indexes: Option<Vec<i32>> = unfinished.map(|names| names.iter().map(|name| name.map_index).collect());
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
    transaction.execute(query, &[&run.dag_id, &run.run_id, &state, &reason, &task_ids, &map_indexes]).await?;
    events::notify(transaction, &Event::Callback).await?;
    Ok(())
}

/// Queues the call of the listeners of a run that a user has marked, if its DAG has any.
pub(crate) async fn add_marked(transaction: &Transaction<'_>, run: &RunKey, state: RunState) -> Result<(), StoreError> {
    let query = "
        INSERT INTO dag_callback (dag_id, run_id, state, reason)
        SELECT r.dag_id, r.run_id, $3, $4 FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id
        WHERE r.dag_id = $1 AND r.run_id = $2 AND (v.structure->>'run_listeners')::boolean";
    if transaction.execute(query, &[&run.dag_id, &run.run_id, &state.as_str(), &Reason::Marked.as_str()]).await? > 0 {
        events::notify(transaction, &Event::Callback).await?;
    }
    Ok(())
}

/// A queued callback.
#[derive(Debug)]
pub struct Callback {
    /// The try whose context the callback gets; without one, its task id is empty.
    pub key: TryKey,
    pub version_id: Option<i64>,
    /// A JSON object with the context for the callback's Python process.
    pub spec: Value,
}

/// Removes and returns the oldest callback whose DAG is not in `busy`. The caller must run it.
pub async fn take(client: &impl GenericClient, busy: &[&str]) -> Result<Option<Callback>, StoreError> {
    let query = "
        WITH taken AS (DELETE FROM dag_callback WHERE id = (
            SELECT id FROM dag_callback WHERE dag_id <> ALL ($1) ORDER BY id LIMIT 1 FOR UPDATE SKIP LOCKED) RETURNING *)
        SELECT t.*, r.dag_version_id, r.run_type, r.conf, r.logical_date, r.data_interval_start,
               r.data_interval_end, r.run_after, r.start_date, r.end_date, r.queued_at,
               r.triggered_by, r.triggering_user_name, r.note, r.partition_key, r.partition_date,
               (SELECT version_number FROM dag_version v WHERE v.id = r.dag_version_id) AS version_number,
               coalesce(ti.try_number, 0) AS try_number, coalesce(ti.max_tries, 0) AS max_tries
        FROM taken t JOIN dag_run r USING (dag_id, run_id)
        LEFT JOIN task_instance ti USING (dag_id, run_id, task_id, map_index)";
    let Some(row) = client.query_opt(query, &[&busy]).await? else { return Ok(None) };
    let time = |name: &str| row.get::<_, Option<Timestamp>>(name);
    let Json(conf): Json<Value> = row.get("conf");
    let run = rows::run_key(&row);
    // Not parsed: the row is already deleted, so an error would lose the callback.
    let (state, run_type): (String, String) = (row.get("state"), row.get("run_type"));
    let (reason, task_id): (String, Option<String>) = (row.get("reason"), row.get("task_id"));
    let (map_index, try_number): (i32, i32) = (row.get("map_index"), row.get("try_number"));
    // A run whose start is announced may have ended since.
    let (state, end_date) = match reason.as_str() {
        STARTED => (RunState::Running.as_str().to_owned(), None),
        _ => (state, time("end_date")),
    };
    let spec = json!({
        "dag_id": run.dag_id, "run_id": run.run_id, "state": state,
        "reason": reason, "task_id": task_id, "map_index": map_index, "try_number": try_number,
        "max_tries": row.get::<_, i32>("max_tries"), "run_type": run_type, "conf": conf,
        "logical_date": time("logical_date"), "data_interval_start": time("data_interval_start"),
        "data_interval_end": time("data_interval_end"), "run_after": time("run_after"),
        "run_start_date": time("start_date"), "end_date": end_date, "queued_at": time("queued_at"),
        "version_number": row.get::<_, Option<i32>>("version_number"),
        "triggered_by": row.get::<_, Option<String>>("triggered_by"),
        "triggering_user_name": row.get::<_, Option<String>>("triggering_user_name"),
        "note": row.get::<_, Option<String>>("note"), "partition_key": row.get::<_, Option<String>>("partition_key"),
        "partition_date": time("partition_date"),
    });
    let instance = InstanceKey::new(run, task_id.as_deref().unwrap_or_default(), map_index);
    Ok(Some(Callback { key: TryKey { instance, try_number }, version_id: row.get("dag_version_id"), spec }))
}

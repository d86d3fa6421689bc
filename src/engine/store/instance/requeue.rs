//! Puts a claimed try back into the queue when its process could not be started.

use crate::model::keys::TryKey;
use crate::store::StoreError;
use crate::store::events;
use leoflow_postgres::GenericClient;

/// Puts a try that has not started back into the queue, behind others of its priority, so that a try that cannot
/// start does not block them. Returns false if the try is no longer running in the database.
pub async fn requeue(client: &impl GenericClient, key: &TryKey) -> Result<bool, StoreError> {
    // A try that was resumed keeps its row, and gets back the state in which it waited: by that state, `claim` knows
    // that it resumes the try.
    let query = "
        WITH back AS (
            UPDATE task_instance ti SET state = 'queued', queued_at = clock_timestamp(), start_date = t.first_start_date
            FROM task_try t
            WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number) = ($1, $2, $3, $4, $5)
              AND (ti.dag_id, ti.run_id, ti.task_id, ti.map_index, ti.try_number)
                  = (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
              AND ti.state = 'running' AND t.state = 'running'
            RETURNING t.first_start_date),
        new AS (
            DELETE FROM task_try WHERE (dag_id, run_id, task_id, map_index, try_number) = ($1, $2, $3, $4, $5)
              AND EXISTS (SELECT FROM back WHERE first_start_date IS NULL)),
        waited AS (
            UPDATE task_try t SET token_hash = NULL, start_date = t.first_start_date,
                state = CASE WHEN w.dag_id IS NULL THEN 'up_for_reschedule' ELSE 'deferred' END,
                reschedules = CASE WHEN w.dag_id IS NULL THEN greatest(t.reschedules - 1, 0) ELSE t.reschedules END
            FROM back LEFT JOIN task_trigger w
                 ON (w.dag_id, w.run_id, w.task_id, w.map_index, w.try_number) = ($1, $2, $3, $4, $5)
            WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number) = ($1, $2, $3, $4, $5)
              AND back.first_start_date IS NOT NULL)
        SELECT pg_notify($6, json_build_object('kind', 'changed', 'dag_id', $1::text, 'run_id', $2::text)::text)
        FROM back";
    let TryKey { run, task_id, map_index, try_number } = key;
    let rows =
        client.query(query, &[&run.dag_id, &run.run_id, task_id, map_index, try_number, &events::ENGINE]).await?;
    Ok(!rows.is_empty())
}

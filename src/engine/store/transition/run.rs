//! The states of DAG runs.

use crate::model::keys::RunKey;
use crate::model::state::RunState;
use crate::store::Result;
use crate::store::dag::callbacks;
use crate::store::events::{self, Event};
use crate::store::rows::{FromRow, execute};
use crate::store::run::deadlines;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

/// For each DAG that is active and not paused, selects the oldest queued runs that are due, up to `max_active_runs`,
/// and starts them. Runs of a backfill count against the backfill's own limit. `$1` is now.
const START_QUEUED: &str = "
        WITH RECURSIVE queue AS (
            -- Loose index scan: reads one row per DAG and backfill with a queued run, however many runs there are. 0
            -- is no backfill.
            (SELECT dag_id, coalesce(backfill_id, 0) AS backfill FROM dag_run WHERE state = 'queued' ORDER BY 1, 2 LIMIT 1)
            UNION ALL
            SELECT n.dag_id, n.backfill FROM queue e CROSS JOIN LATERAL (
                SELECT dag_id, coalesce(backfill_id, 0) AS backfill FROM dag_run
                WHERE state = 'queued' AND (dag_id, coalesce(backfill_id, 0)) > (e.dag_id, e.backfill)
                ORDER BY 1, 2 LIMIT 1) n),
        active_queue AS (
            SELECT e.dag_id, e.backfill, coalesce(b.max_active_runs::bigint, l.max_runs, 16) AS max_runs, l.timeout, l.listens,
                   (SELECT count(*) FROM dag_run a WHERE a.dag_id = e.dag_id AND a.state = 'running'
                    AND coalesce(a.backfill_id, 0) = e.backfill) AS running
            FROM queue e JOIN dag d USING (dag_id) JOIN dag_version v ON v.id = d.current_version_id
            CROSS JOIN LATERAL (SELECT (v.structure->>'max_active_runs')::bigint AS max_runs,
                                       (v.structure->>'dagrun_timeout')::float8 AS timeout,
                                       coalesce((v.structure->>'run_listeners')::boolean, false) AS listens) l
            LEFT JOIN backfill b ON b.id = e.backfill
            WHERE d.is_active AND NOT d.is_paused AND NOT coalesce(b.is_paused AND b.completed_at IS NULL, false)),
        waiting AS MATERIALIZED (
            SELECT n.dag_id, n.run_id, q.timeout, q.listens FROM active_queue q CROSS JOIN LATERAL (
                SELECT dag_id, run_id FROM dag_run r
                WHERE r.dag_id = q.dag_id AND coalesce(r.backfill_id, 0) = q.backfill
                  AND r.state = 'queued'
                  -- The second condition is for runs that were due before the clock was set back.
                  AND (r.run_after <= $1 OR r.run_after <= r.queued_at)
                ORDER BY r.backfill_ordinal, r.run_after, r.queued_at, r.run_id
                LIMIT CASE WHEN q.max_runs > 0 THEN greatest(q.max_runs - q.running, 0) END) n),
        started AS (
            -- Joins by the key alone: with another condition Postgres underestimates the rows and uses a nested loop
            -- over all. A run that was ended concurrently is not changed.
            UPDATE dag_run r SET state = CASE r.state WHEN 'queued' THEN 'running' ELSE r.state END,
                   start_date = CASE r.state WHEN 'queued' THEN $1 ELSE r.start_date END,
                   -- The timeout is clamped so that the deadline stays in the range of timestamptz.
                   deadline_at = CASE r.state WHEN 'queued' THEN $1 + make_interval(secs => least(w.timeout, 1e9))
                                              ELSE r.deadline_at END
            FROM waiting w WHERE r.dag_id = w.dag_id AND r.run_id = w.run_id
            RETURNING r.dag_id, r.run_id, old.state = 'queued' AS has_started, w.listens),
        calls AS (
            -- The column `state` does not allow a state of a run that has not ended; `reason` decides.
            INSERT INTO dag_callback (dag_id, run_id, state, reason)
            SELECT dag_id, run_id, 'success', $2 FROM started WHERE has_started AND listens)
        SELECT dag_id, run_id, listens FROM started WHERE has_started";

/// `queued` to `running`: starts queued runs of DAGs that are active and not paused, oldest first, up to
/// `max_active_runs`; runs of a backfill count against the backfill's own limit. Queues calls of the listeners of DAG
/// runs. Expects no locks. Returns the started runs.
pub async fn start_queued(client: &impl GenericClient, now: Timestamp) -> Result<Vec<RunKey>> {
    let rows = client.query(START_QUEUED, &[&now, &callbacks::STARTED]).await?;
    if rows.iter().any(|row| row.get("listens")) {
        events::notify(client, &Event::Callback).await?;
    }
    rows.iter().map(RunKey::from_row).collect()
}

/// A statement that ends a run with `update` and deletes the deadlines that it has met. As in Airflow, a failed run meets
/// none.
fn deleting_met_deadlines(update: &str) -> String {
    format!(
        "WITH ended AS ({update} RETURNING dag_id, run_id, end_date, state)
         DELETE FROM deadline d USING ended e WHERE (d.dag_id, d.run_id) = (e.dag_id, e.run_id) AND e.state = 'success'
            AND d.state = 'scheduled' AND e.end_date <= d.due_at"
    )
}

/// `running` to `state`, which is finished: the scheduler ends a run. The caller must have locked the run and have
/// found it running.
pub async fn end(client: &impl GenericClient, key: &RunKey, state: RunState, now: Timestamp) -> Result<()> {
    let update = "UPDATE dag_run SET state = $3, end_date = greatest($4, start_date), marked_state = NULL
                  WHERE dag_id = $1 AND run_id = $2";
    let statement = deleting_met_deadlines(update);
    execute(client, &statement, &[&key.dag_id, &key.run_id, &state.as_str(), &now]).await
}

/// Any state to `state`, which is finished: a user marks a run that has no unfinished instances. The caller must have
/// locked the run and have read its state, `previous`. A run that was finished keeps its end date.
pub async fn mark(client: &impl GenericClient, key: &RunKey, previous: RunState, state: RunState) -> Result<()> {
    let update =
        "UPDATE dag_run SET state = $3, revision = gen_random_uuid(), start_date = coalesce(start_date, now()),
                                     end_date = CASE WHEN $4 THEN end_date ELSE now() END, marked_state = NULL
                  WHERE dag_id = $1 AND run_id = $2";
    let statement = deleting_met_deadlines(update);
    execute(client, &statement, &[&key.dag_id, &key.run_id, &state.as_str(), &previous.is_finished()]).await
}

/// No change of the state: a user ends a run in `mark`, which it gets once its teardowns have ended; `None` when its
/// instances are cleared. The caller must have locked the run.
pub async fn set_mark(client: &impl GenericClient, key: &RunKey, mark: Option<RunState>) -> Result<()> {
    let query = "UPDATE dag_run SET marked_state = $3, revision = gen_random_uuid() WHERE dag_id = $1 AND run_id = $2";
    execute(client, query, &[&key.dag_id, &key.run_id, &mark.map(RunState::as_str)]).await
}

/// Any state to `queued`: the run starts again. The caller must have locked the run. `queued_at` is at least
/// `run_after`, so that the run counts as due even if the clock has been set back. Deadlines that count from `queued_at`
/// move with it.
pub async fn requeue(client: &impl GenericClient, key: &RunKey, now: Timestamp) -> Result<()> {
    let query =
        "UPDATE dag_run SET state = 'queued', revision = gen_random_uuid(), queued_at = greatest($3, run_after),
                        start_date = NULL, end_date = NULL, deadline_at = NULL, marked_state = NULL
                 WHERE dag_id = $1 AND run_id = $2 RETURNING queued_at";
    let row = client.query_one(query, &[&key.dag_id, &key.run_id, &now]).await?;
    deadlines::restart(client, key, row.get("queued_at")).await
}

/// `queued` to `failed`: the runs of a cancelled backfill that have not started. Expects no locks.
pub async fn fail_queued(client: &impl GenericClient, backfill_id: i64) -> Result<()> {
    let query = "UPDATE dag_run SET state = 'failed', end_date = now() WHERE backfill_id = $1 AND state = 'queued'";
    execute(client, query, &[&backfill_id]).await
}

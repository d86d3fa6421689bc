//! Queries of the scheduler: running runs, work that is due, earlier runs for `depends_on_past` and
//! `wait_for_downstream`, and the advisory lock that elects one leader among the schedulers of a database.

use crate::model::keys::RunKey;
use crate::model::state::RunState;
use crate::store::Result;
use crate::store::rows::{exists, fetch_all, fetch_one, fetch_optional, from_row};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;

/// Returns all running runs.
pub async fn running(client: &impl GenericClient) -> Result<Vec<RunKey>> {
    fetch_all(client, "SELECT dag_id, run_id FROM dag_run WHERE state = 'running'", &[]).await
}

/// Returns the other running runs of the DAG.
pub async fn other_running(client: &impl GenericClient, key: &RunKey) -> Result<Vec<RunKey>> {
    let query = "SELECT dag_id, run_id FROM dag_run WHERE dag_id = $1 AND run_id <> $2 AND state = 'running'";
    fetch_all(client, query, &[&key.dag_id, &key.run_id]).await
}

from_row! {
    /// The columns of a running run that the planner needs.
    #[derive(Debug)]
    pub struct RunningRun {
        /// `None` if the run has no version, so that it cannot be planned.
        pub version_id: Option<i64> = "dag_version_id",
        /// See `runs::bump_revision`.
        pub revision: Option<String>,
        pub logical_date: Option<Timestamp>,
        /// The logical date, if it was in the future when the run was queued.
        pub not_before: Option<Timestamp>,
        pub interval_end: Option<Timestamp> = "data_interval_end",
        pub run_after: Timestamp,
        pub start_date: Option<Timestamp>,
        /// True for a run of the schedule.
        pub is_scheduled: bool,
        /// When the `dagrun_timeout` expires.
        pub times_out_at: Option<Timestamp> = "deadline_at",
        /// True while the DAG is paused.
        pub is_paused: bool,
        /// The state in which a user has ended the run, while its teardowns run.
        pub marked: Option<RunState> = "marked_state",
    }
}

/// Locks and reads a run until the transaction ends; `None` if it is not running or does not exist.
pub async fn lock_running(transaction: &Transaction<'_>, key: &RunKey) -> Result<Option<RunningRun>> {
    let query = "SELECT r.dag_version_id, r.revision::text, r.logical_date, r.deadline_at, d.is_paused,
                        CASE WHEN r.logical_date > r.queued_at THEN r.logical_date END AS not_before,
                        r.data_interval_end, r.run_after, r.start_date, r.marked_state, r.run_type = 'scheduled' AS is_scheduled
                 FROM dag_run r JOIN dag d USING (dag_id)
                 WHERE r.dag_id = $1 AND r.run_id = $2 AND r.state = 'running' FOR UPDATE OF r";
    fetch_optional(transaction, query, &[&key.dag_id, &key.run_id]).await
}

/// Work that is due at the current time.
#[derive(Debug)]
pub struct DueWork {
    /// True when a DAG has a scheduled run that is due.
    pub is_due: bool,
    /// Runs with a due retry or sensor, runs whose `dagrun_timeout` has expired, and runs that were queued before their
    /// logical date, which has now passed.
    pub due: Vec<RunKey>,
    /// True when a run has missed a deadline.
    pub has_missed_deadline: bool,
    /// When the next work will be due; `None` if there is none.
    pub next: Option<Timestamp>,
}

/// Reads the work that is due now and the time of the next work, in one statement, so that all answers come from one
/// snapshot.
pub async fn due_work(client: &impl GenericClient, now: Timestamp) -> Result<DueWork> {
    // `dated` first reads the instances with a due date, by their index; `IS TRUE` prevents Postgres from starting at
    // the index of running runs, which would read all their instances.
    let query = "
        WITH dated AS MATERIALIZED (SELECT dag_id, run_id, due_at FROM task_instance WHERE due_at IS NOT NULL),
        waiting AS MATERIALIZED (
            SELECT dag_id, run_id, due_at FROM dated JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
            WHERE (r.state = 'running') IS TRUE AND NOT d.is_paused),
        due AS (
            SELECT DISTINCT dag_id, run_id FROM waiting WHERE due_at <= $1
            UNION SELECT dag_id, run_id FROM dag_run WHERE state = 'running' AND deadline_at <= $1
            UNION SELECT dag_id, run_id FROM dag_run
                  WHERE state = 'running' AND logical_date > queued_at AND logical_date <= $1
                    -- Once a task has a state, events cause the run to be planned.
                    AND NOT EXISTS (SELECT FROM task_instance ti WHERE ti.dag_id = dag_run.dag_id
                                    AND ti.run_id = dag_run.run_id AND ti.state IS NOT NULL))
        SELECT (SELECT array_agg(dag_id) FROM due) AS due_dags, (SELECT array_agg(run_id) FROM due) AS due_runs,
               EXISTS (SELECT FROM dag WHERE is_active AND NOT is_paused AND NOT is_draining
                              AND next_run_after <= $1) AS is_due,
               EXISTS (SELECT FROM deadline WHERE state = 'scheduled' AND due_at <= $1) AS has_missed_deadline,
               least((SELECT min(due_at) FROM waiting WHERE due_at > $1),
                     (SELECT min(deadline_at) FROM dag_run WHERE state = 'running' AND deadline_at > $1),
                     (SELECT min(due_at) FROM deadline WHERE state = 'scheduled' AND due_at > $1),
                     (SELECT min(logical_date) FROM dag_run
                      WHERE state = 'running' AND logical_date > $1 AND logical_date > queued_at),
                     (SELECT min(next_run_after) FROM dag
                      WHERE is_active AND NOT is_paused AND NOT is_draining AND next_run_after > $1),
                     (SELECT min(r.run_after) FROM dag_run r JOIN dag d USING (dag_id)
                      -- `run_after > queued_at` is also the condition of the partial index.
                      WHERE r.state = 'queued' AND r.run_after > r.queued_at AND r.run_after > $1
                        AND d.is_active AND NOT d.is_paused)) AS next";
    let row = client.query_one(query, &[&now]).await?;
    // Without rows, `array_agg` returns NULL.
    let dags: Vec<String> = row.get::<_, Option<_>>("due_dags").unwrap_or_default();
    let runs: Vec<String> = row.get::<_, Option<_>>("due_runs").unwrap_or_default();
    let due = dags.into_iter().zip(runs).map(|(dag_id, run_id)| RunKey { dag_id, run_id }).collect();
    let has_missed_deadline = row.get("has_missed_deadline");
    Ok(DueWork { is_due: row.get("is_due"), due, has_missed_deadline, next: row.get("next") })
}

/// Advisory lock key, the same for all schedulers of a database.
const LEADER: i64 = 0x6c65_6f66_6c6f_7701;

/// Tries to take the leader lock, without waiting; true if this connection now holds the lock. Postgres releases the
/// lock when the connection ends.
pub async fn try_lead(client: &impl GenericClient) -> Result<bool> {
    fetch_one(client, "SELECT pg_try_advisory_lock($1)", &[&LEADER]).await
}

from_row! {
    /// The run that `depends_on_past` refers to.
    #[derive(Debug)]
    pub struct PreviousRun {
        pub run_id: String,
        pub logical_date: Timestamp,
    }
}

/// The earlier runs that `previous_run` considers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PastRuns {
    All,
    /// Without the runs of type `manual`; runs triggered by an operator or asset stay.
    NotManual,
}

/// Finds the last run before the logical date `date` of the run `key`. The first run of a backfill has no previous run.
pub async fn previous_run(
    client: &impl GenericClient,
    key: &RunKey,
    date: Timestamp,
    past_runs: PastRuns,
) -> Result<Option<PreviousRun>> {
    let query = "
        SELECT run_id, logical_date FROM dag_run
        WHERE dag_id = $1 AND logical_date < $2 AND (run_type <> 'manual' OR NOT $3)
          AND NOT EXISTS (SELECT FROM dag_run own WHERE own.dag_id = $1 AND own.run_id = $4
                          AND own.backfill_id IS NOT NULL AND own.backfill_ordinal = 1)
        ORDER BY logical_date DESC LIMIT 1";
    let excludes_manual = past_runs == PastRuns::NotManual;
    fetch_optional(client, query, &[&key.dag_id, &date, &excludes_manual, &key.run_id]).await
}

/// Whether each task of a run has succeeded, by task id. Removed instances do not count: a task whose instances were
/// all removed has succeeded.
pub async fn successes(client: &impl GenericClient, dag_id: &str, run_id: &str) -> Result<HashMap<String, bool>> {
    let query = "
        SELECT task_id, bool_and(coalesce(state IN ('success', 'skipped', 'removed'), false)) AS has_succeeded
        FROM task_instance
        WHERE dag_id = $1 AND run_id = $2 GROUP BY task_id";
    Ok(fetch_all(client, query, &[&dag_id, &run_id]).await?.into_iter().collect())
}

/// True if a run of the DAG before the logical date `date` has an instance of the task.
pub async fn has_earlier_instance(
    client: &impl GenericClient,
    dag_id: &str,
    task_id: &str,
    date: Timestamp,
) -> Result<bool> {
    let query = "SELECT FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                 WHERE ti.dag_id = $1 AND ti.task_id = $2 AND r.logical_date < $3 LIMIT 1";
    exists(client, query, &[&dag_id, &task_id, &date]).await
}

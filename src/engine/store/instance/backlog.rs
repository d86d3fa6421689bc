//! The work that waits to run: queued runs, and task instances that wait for a slot, for the agent (the process that
//! runs tasks) or for their next try.

use crate::model::keys::RunKey;
use crate::store::Result;
use crate::store::rows::{execute, fetch_all, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::time::Duration;

/// Ends each further statement of the transaction that takes longer than `limit`.
pub async fn limit_statement_time(transaction: &impl GenericClient, limit: Duration) -> Result<()> {
    let milliseconds = limit.as_millis().to_string();
    execute(transaction, "SELECT set_config('statement_timeout', $1, true)", &[&milliseconds]).await
}

/// Maximum number of groups of each kind that are returned, the largest first.
const MAX_GROUPS: i64 = 20;

from_row! {
    /// Task instances of one DAG and pool in the state `scheduled`: their dependencies are met, and they wait for slots
    /// of a pool.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct ScheduledTasks {
        pub dag_id: String,
        pub pool: String,
        pub is_paused: bool,
        pub is_run_running: bool,
        /// Number of slots that the smallest of them needs.
        pub pool_slots: i32,
        pub count: i64,
        /// When the first of them was scheduled.
        pub since: Option<Timestamp>,
    }
}

from_row! {
    /// Runs of one DAG that have not started, all for the same reason.
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct QueuedRuns {
        pub dag_id: String,
        pub is_paused: bool,
        /// False when no file defines the DAG any more.
        pub is_active: bool,
        pub is_backfill_paused: bool,
        /// True when the runs are not yet due.
        pub is_later: bool,
        pub count: i64,
        /// When the first of the runs is due.
        pub run_after: Timestamp,
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Backlog {
    pub scheduled: Vec<ScheduledTasks>,
    pub runs: Vec<QueuedRuns>,
    /// Number of task instances that have their slots and wait for the agent, and when the first was queued.
    pub queued: i64,
    pub queued_since: Option<Timestamp>,
    /// Number of task instances that wait for a retry or the next poke of a sensor, and when the first is due.
    pub due: i64,
    pub next_due: Option<Timestamp>,
}

/// Reads the backlog. Each query uses a partial index of unfinished work, so finished history costs nothing.
pub async fn backlog(client: &impl GenericClient, now: Timestamp) -> Result<Backlog> {
    let counts = "
        SELECT q.count AS queued, q.since AS queued_since, w.count AS due, w.next AS next_due
        FROM (SELECT count(*), min(queued_at) AS since FROM task_instance WHERE state = 'queued') q
        CROSS JOIN (SELECT count(*), min(due_at) AS next FROM task_instance WHERE due_at IS NOT NULL) w";
    let counts = client.query_one(counts, &[]).await?;
    Ok(Backlog {
        scheduled: scheduled(client, None).await?,
        runs: runs(client, None, now).await?,
        queued: counts.get("queued"),
        queued_since: counts.get("queued_since"),
        due: counts.get("due"),
        next_due: counts.get("next_due"),
    })
}

/// Reads the backlog of one run: why it waits itself, and its scheduled task instances.
pub async fn of_run(client: &impl GenericClient, key: &RunKey, now: Timestamp) -> Result<Backlog> {
    Ok(Backlog {
        scheduled: scheduled(client, Some(key)).await?,
        runs: runs(client, Some(key), now).await?,
        ..Backlog::default()
    })
}

async fn scheduled(client: &impl GenericClient, run: Option<&RunKey>) -> Result<Vec<ScheduledTasks>> {
    let query = "
        SELECT ti.dag_id, ti.pool, d.is_paused, (r.state = 'running') IS TRUE AS is_run_running,
               min(ti.pool_slots) AS pool_slots, count(*) AS count, min(ti.scheduled_at) AS since
        FROM task_instance ti JOIN dag_run r ON (r.dag_id, r.run_id) = (ti.dag_id, ti.run_id)
        JOIN dag d ON d.dag_id = ti.dag_id
        WHERE ti.state = 'scheduled' AND ($2::text IS NULL OR (ti.dag_id, ti.run_id) = ($2, $3)) GROUP BY 1, 2, 3, 4 ORDER BY count(*) DESC, 1, 2 LIMIT $1";
    let (dag_id, run_id) = ids(run);
    fetch_all(client, query, &[&MAX_GROUPS, &dag_id, &run_id]).await
}

/// The run's ids as parameters of a statement; null selects all runs.
fn ids(run: Option<&RunKey>) -> (Option<&str>, Option<&str>) {
    run.map(|run| (run.dag_id.as_str(), run.run_id.as_str())).unzip()
}

async fn runs(client: &impl GenericClient, run: Option<&RunKey>, now: Timestamp) -> Result<Vec<QueuedRuns>> {
    // As in `transition::run::start_queued`: a run that was due when it was queued stays due if the clock is set back.
    let query = "
        SELECT r.dag_id, d.is_paused, d.is_active,
               coalesce(b.is_paused AND b.completed_at IS NULL, false) AS is_backfill_paused,
               r.run_after > $1 AND r.run_after > r.queued_at AS is_later,
               count(*) AS count, min(r.run_after) AS run_after
        FROM dag_run r JOIN dag d ON d.dag_id = r.dag_id LEFT JOIN backfill b ON b.id = r.backfill_id
        WHERE r.state = 'queued' AND ($3::text IS NULL OR (r.dag_id, r.run_id) = ($3, $4)) GROUP BY 1, 2, 3, 4, 5 ORDER BY count(*) DESC, 1, 4, 5 LIMIT $2";
    let (dag_id, run_id) = ids(run);
    fetch_all(client, query, &[&now, &MAX_GROUPS, &dag_id, &run_id]).await
}

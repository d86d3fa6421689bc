//! Instances that wait for capacity.

use crate::model::keys::{InstanceKey, RunKey};
use crate::store::Result;
use crate::store::rows::{fetch_all, fetch_one, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::types::ToSql;

from_row! {
    /// An instance that waits for capacity, with the facts about its run that the planner needs.
    #[derive(Debug)]
    pub struct Scheduled {
        pub instance: InstanceKey => InstanceKey::from_row,
        pub logical_date: Option<Timestamp>,
        pub version_id: i64 = "dag_version_id",
        pub pool: String,
        /// Maximum number of instances that the query returns for this run and pool.
        pub limit: i64 = "row_limit",
    }
}

/// Selects the waiting instances to read: for each run and each pool with free slots, those with the highest weight.
#[derive(Debug)]
pub struct Window<'a> {
    /// Names of the pools, each with its number of free slots.
    pub pools: Vec<(&'a str, i64)>,
    pub size: Size,
    /// Tasks, by run, whose instances are left out.
    pub left_out: Vec<&'a (RunKey, String)>,
}

/// Maximum number of instances to read for each run and pool.
#[derive(Debug, Clone, Copy)]
pub enum Size {
    /// This many, but at most the number of free slots of the pool: each instance needs a slot.
    FreeSlots(i64),
    /// This many, even if the pool has fewer free slots: some instances of the smaller window cannot be queued.
    Any(i64),
}

impl Size {
    fn limit(self, free_slots: i64) -> i64 {
        match self {
            Self::FreeSlots(size) => size.min(free_slots),
            Self::Any(size) => size,
        }
    }
}

/// True if an instance of a run other than `excluded_run` waits for capacity.
pub async fn any_waits(client: &impl GenericClient, excluded_run: Option<&RunKey>) -> Result<bool> {
    // All runs are after the empty key, so it excludes none.
    let (dag_id, run_id) = excluded_run.map_or(("", ""), |key| (key.dag_id.as_str(), key.run_id.as_str()));
    // `<>` would read the instances of the excluded run, which may be many; two ranges of the index skip them. ORDER BY
    // makes Postgres use the index; with EXISTS it may read the whole table.
    let query = "
        SELECT coalesce(
            (SELECT true FROM task_instance WHERE state = 'scheduled' AND (dag_id, run_id) < ($1, $2)
             ORDER BY dag_id, run_id LIMIT 1),
            (SELECT true FROM task_instance WHERE state = 'scheduled' AND (dag_id, run_id) > ($1, $2)
             ORDER BY dag_id, run_id LIMIT 1), false)";
    fetch_one(client, query, &[&dag_id, &run_id]).await
}

/// Returns the instances in the window, of all running runs of DAGs that are not paused, except `excluded_runs`.
pub async fn waiting(
    client: &impl GenericClient,
    excluded_runs: &[RunKey],
    window: &Window<'_>,
) -> Result<Vec<Scheduled>> {
    let (dag_ids, run_ids): (Vec<&str>, Vec<&str>) =
        excluded_runs.iter().map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    let (pools, free): (Vec<&str>, Vec<i64>) = window.pools.iter().copied().unzip();
    let limits: Vec<i64> = free.iter().map(|free| window.size.limit(*free)).collect();
    let left_out =
        |part: fn(&(RunKey, String)) -> &str| -> Vec<&str> { window.left_out.iter().map(|task| part(task)).collect() };
    let (left_out_dags, left_out_runs, left_out_tasks) =
        (left_out(|(run, _)| &run.dag_id), left_out(|(run, _)| &run.run_id), left_out(|(_, task_id)| task_id));
    // The recursion jumps through the index from run to run, so the cost grows with the number of runs, not of
    // instances.
    let query = "
        WITH RECURSIVE waiting_run AS (
            (SELECT dag_id, run_id FROM task_instance WHERE state = 'scheduled' ORDER BY dag_id, run_id LIMIT 1)
            UNION ALL
            SELECT next.dag_id, next.run_id FROM waiting_run w CROSS JOIN LATERAL (
                SELECT ti.dag_id, ti.run_id FROM task_instance ti
                WHERE ti.state = 'scheduled' AND (ti.dag_id, ti.run_id) > (w.dag_id, w.run_id)
                ORDER BY ti.dag_id, ti.run_id LIMIT 1) next)
        SELECT w.dag_id, w.run_id, ti.task_id, ti.map_index, r.logical_date, r.dag_version_id, o.pool, o.row_limit
        FROM waiting_run w JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
        CROSS JOIN unnest($3::text[], $4::bigint[], $5::bigint[]) AS o(pool, free, row_limit)
        CROSS JOIN LATERAL (
            SELECT t.task_id, t.map_index FROM task_instance t
            WHERE (t.dag_id, t.run_id, t.pool) = (w.dag_id, w.run_id, o.pool) AND t.state = 'scheduled'
              AND t.pool_slots <= o.free
              AND NOT EXISTS (SELECT FROM unnest($6::text[], $7::text[], $8::text[]) AS l(dag_id, run_id, task_id)
                              WHERE (l.dag_id, l.run_id, l.task_id) = (t.dag_id, t.run_id, t.task_id))
            ORDER BY t.priority_weight DESC, t.map_index LIMIT o.row_limit) ti
        WHERE r.state = 'running' AND NOT d.is_paused AND r.dag_version_id IS NOT NULL
          AND NOT EXISTS (SELECT FROM unnest($1::text[], $2::text[]) AS e(dag_id, run_id)
                          WHERE (e.dag_id, e.run_id) = (w.dag_id, w.run_id))";
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&dag_ids, &run_ids, &pools, &free, &limits, &left_out_dags, &left_out_runs, &left_out_tasks];
    fetch_all(client, query, &parameters).await
}

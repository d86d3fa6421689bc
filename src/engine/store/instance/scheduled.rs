//! Instances that wait for capacity.

use crate::model::keys::RunKey;
use crate::store::StoreError;
use crate::store::rows;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

/// An instance that may run and waits for capacity, with what the planner must know of its run.
#[derive(Debug)]
pub struct Scheduled {
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub logical_date: Option<Timestamp>,
    pub version_id: i64,
}

/// Returns the instances that wait for capacity, of all running runs of DAGs that are not paused, except
/// `excluded_run`.
pub async fn waiting(client: &impl GenericClient, excluded_run: Option<&RunKey>) -> Result<Vec<Scheduled>, StoreError> {
    let (dag_id, run_id) = excluded_run.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    // `IS TRUE` prevents Postgres from starting at the index of running runs, which would read all their instances.
    let query = "
        SELECT ti.dag_id, ti.run_id, ti.task_id, ti.map_index, r.logical_date, r.dag_version_id
        FROM task_instance ti JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
        WHERE ti.state = 'scheduled' AND (r.state = 'running') IS TRUE AND NOT d.is_paused AND r.dag_version_id IS NOT NULL
          AND ($1::text IS NULL OR (r.dag_id, r.run_id) <> ($1, $2))";
    let read = |row: &Row| Scheduled {
        run: rows::run_key(row),
        task_id: row.get("task_id"),
        map_index: row.get("map_index"),
        logical_date: row.get("logical_date"),
        version_id: row.get("dag_version_id"),
    };
    Ok(client.query(query, &[&dag_id, &run_id]).await?.iter().map(read).collect())
}

//! Earlier runs of a DAG, for `depends_on_past` and `wait_for_downstream`.

use crate::model::keys::RunKey;
use crate::store::StoreError;
use crate::store::rows::{exists, fetch_all, fetch_optional, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;

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
) -> Result<Option<PreviousRun>, StoreError> {
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
pub async fn successes(
    client: &impl GenericClient,
    dag_id: &str,
    run_id: &str,
) -> Result<HashMap<String, bool>, StoreError> {
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
) -> Result<bool, StoreError> {
    let query = "SELECT FROM task_instance ti JOIN dag_run r USING (dag_id, run_id)
                 WHERE ti.dag_id = $1 AND ti.task_id = $2 AND r.logical_date < $3 LIMIT 1";
    exists(client, query, &[&dag_id, &task_id, &date]).await
}

//! Completion of backfills.

use crate::model::keys::RunKey;
use crate::store::StoreError;
use crate::store::rows::execute;
use leoflow_postgres::GenericClient;

/// Completes the backfill of a run that has just ended, if no other run of the backfill is unfinished.
pub async fn complete(client: &impl GenericClient, run: &RunKey) -> Result<(), StoreError> {
    let query = "SELECT backfill_id FROM dag_run WHERE dag_id = $1 AND run_id = $2 AND backfill_id IS NOT NULL";
    match client.query_opt(query, &[&run.dag_id, &run.run_id]).await? {
        Some(row) => complete_one(client, row.get(0)).await,
        None => Ok(()),
    }
}

/// Completes a backfill if none of its runs is queued or running.
pub(crate) async fn complete_one(client: &impl GenericClient, id: i64) -> Result<(), StoreError> {
    let query = "
        UPDATE backfill SET completed_at = now(), updated_at = now() WHERE id = $1 AND completed_at IS NULL
          AND NOT EXISTS (SELECT FROM dag_run WHERE backfill_id = $1 AND state IN ('queued', 'running'))";
    execute(client, query, &[&id]).await
}

//! Pauses a DAG whose runs keep failing.

use crate::store::StoreError;
use leoflow_postgres::GenericClient;

/// Pauses the DAG if its last `max_failures` finished runs have all failed: Airflow's
/// `max_consecutive_failed_dag_runs`. Returns true if the DAG was paused.
pub async fn pause_after(client: &impl GenericClient, dag_id: &str, max_failures: i64) -> Result<bool, StoreError> {
    let query = "
            UPDATE dag SET is_paused = true WHERE dag_id = $1 AND (
                SELECT count(*) = $2 AND bool_and(state = 'failed') FROM (
                    SELECT state FROM dag_run WHERE dag_id = $1 AND state IN ('success', 'failed')
                    ORDER BY run_after DESC, run_id DESC LIMIT $2) recent)";
    Ok(client.execute(query, &[&dag_id, &max_failures]).await? > 0)
}

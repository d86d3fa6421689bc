//! The first instance of a mapped task.

use crate::model::keys::RunKey;
use crate::store::StoreError;
use deadpool_postgres::Transaction;
use leoflow_postgres::GenericClient;

/// Gives the instances with map index -1 of these tasks the map index 0, once the length of the list is known. Deletes
/// rows that an earlier try wrote with map index -1, because they no longer belong to any instance. The caller must
/// have locked the run.
pub async fn expand(transaction: &Transaction<'_>, key: &RunKey, tasks: &[&str]) -> Result<(), StoreError> {
    let tries = "DELETE FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
    let xcoms = "DELETE FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
    let trigger =
        "DELETE FROM task_trigger WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
    let hitl = "DELETE FROM hitl_detail WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
    let instances = "UPDATE task_instance SET map_index = 0
                         WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
    for query in [tries, xcoms, trigger, hitl, instances] {
        transaction.execute(query, &[&key.dag_id, &key.run_id, &tasks]).await?;
    }
    Ok(())
}

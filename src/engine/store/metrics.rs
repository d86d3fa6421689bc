//! The numbers that monitoring reads often. Each statement reads a small table or a partial index, so that their cost does
//! not grow with the history.

use super::Result;
use super::rows::{fetch_one, from_row};
use leoflow_postgres::GenericClient;

from_row! {
    #[derive(Debug)]
    pub struct Numbers {
        /// Active DAGs.
        pub dags: i64,
        pub import_errors: i64,
        pub queued_runs: i64,
        pub running_runs: i64,
        pub queued_instances: i64,
        pub running_instances: i64,
        /// Triggers of deferred tasks that have not fired.
        pub triggers: i64,
        pub environments: i64,
        /// Size of the database in bytes.
        pub database_bytes: i64,
    }
}

pub async fn numbers(client: &impl GenericClient) -> Result<Numbers> {
    let query = "
        SELECT (SELECT count(*) FROM dag WHERE is_active) AS dags,
               (SELECT count(*) FROM import_error) AS import_errors,
               (SELECT count(*) FROM dag_run WHERE state = 'queued') AS queued_runs,
               (SELECT count(*) FROM dag_run WHERE state = 'running') AS running_runs,
               (SELECT count(*) FROM task_instance WHERE state = 'queued') AS queued_instances,
               (SELECT count(*) FROM task_instance WHERE state IN ('running', 'restarting')) AS running_instances,
               (SELECT count(*) FROM task_trigger WHERE fired_at IS NULL) AS triggers,
               (SELECT count(*) FROM environment) AS environments,
               pg_database_size(current_database()) AS database_bytes";
    fetch_one(client, query, &[]).await
}

//! The locked Python environments of DAG versions.

use crate::model::keys::RunKey;
use crate::store::rows::{self, FromRow, execute, fetch_all, fetch_optional, from_row};
use crate::store::{Result, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use leoflow_python::environments::Lock;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

impl FromRow for Lock {
    fn from_row(row: &Row) -> Result<Self> {
        let Json(declared) = rows::get(row, "declared")?;
        Ok(Self { declared, python: rows::get(row, "python")?, text: rows::get(row, "lock")? })
    }
}

/// Returns the lock that was last chosen for a project, `None` if there is none. `inputs` is a hash of the project's
/// declared packages and of its Python.
pub async fn chosen(client: &impl GenericClient, inputs: &str) -> Result<Option<Lock>> {
    let query = "SELECT e.* FROM environment_choice c JOIN environment e USING (hash) WHERE c.inputs = $1";
    fetch_optional(client, query, &[&inputs]).await
}

pub async fn get(client: &impl GenericClient, hash: &str) -> Result<Lock> {
    let lock = fetch_optional(client, "SELECT * FROM environment WHERE hash = $1", &[&hash]).await?;
    lock.ok_or_else(|| StoreError::NotFound { what: "environment", id: hash.to_owned() })
}

/// Returns the lock of the newest version of a run's DAG; `None` if the run has that version, or the version has no lock.
pub async fn newer_than_run(client: &impl GenericClient, run: &RunKey) -> Result<Option<Lock>> {
    let query = "
        SELECT e.* FROM dag_run r JOIN dag d USING (dag_id) JOIN dag_version v ON v.id = d.current_version_id
             JOIN environment e ON e.hash = v.environment
        WHERE r.dag_id = $1 AND r.run_id = $2 AND v.id IS DISTINCT FROM r.dag_version_id";
    fetch_optional(client, query, &[&run.dag_id, &run.run_id]).await
}

/// Stores a lock and makes it the current choice for these inputs.
pub async fn choose(client: &impl GenericClient, inputs: &str, lock: &Lock) -> Result<()> {
    let query = "
        WITH stored AS (INSERT INTO environment (hash, declared, python, lock) VALUES ($1, $2, $3, $4)
                        ON CONFLICT (hash) DO NOTHING)
        INSERT INTO environment_choice (inputs, hash) VALUES ($5, $1)
        ON CONFLICT (inputs) DO UPDATE SET hash = EXCLUDED.hash, chosen_at = now()";
    let hash = lock.hash();
    execute(client, query, &[&hash, &Json(&lock.declared), &lock.python, &lock.text, &inputs]).await
}

from_row! {
    /// A stored environment.
    #[derive(Debug)]
    pub struct StoredEnvironment {
        pub hash: String,
        pub lock: Lock => Lock::from_row,
        pub created_at: Timestamp,
        /// Active DAGs whose current version uses the environment.
        pub dags: Vec<String>,
        /// Files of these DAGs, relative to the workspace.
        pub files: Vec<String>,
    }
}

/// Returns all stored environments, newest first.
pub async fn all(client: &impl GenericClient) -> Result<Vec<StoredEnvironment>> {
    let query = "
        SELECT e.*, used.* FROM environment e CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(d.dag_id ORDER BY d.dag_id), '{}') AS dags,
                   coalesce(array_agg(DISTINCT d.relative_fileloc), '{}') AS files
            FROM dag d JOIN dag_version v ON v.id = d.current_version_id
            WHERE v.environment = e.hash AND d.is_active) used
        ORDER BY e.created_at DESC, e.hash";
    fetch_all(client, query, &[]).await
}

/// The environments used by the current version of an active DAG, by an unfinished run, or by a deadline whose callback has
/// not ended: their Python versions by hash.
pub async fn in_use(client: &impl GenericClient) -> Result<HashMap<String, String>> {
    let query = "
        SELECT e.hash, e.python FROM dag_version v JOIN environment e ON e.hash = v.environment
        WHERE EXISTS (SELECT FROM dag d WHERE d.current_version_id = v.id AND d.is_active)
            OR EXISTS (SELECT FROM dag_run r WHERE r.dag_version_id = v.id AND r.dag_id = v.dag_id
                       AND r.state IN ('queued', 'running'))
            OR EXISTS (SELECT FROM deadline l WHERE l.dag_version_id = v.id AND l.state NOT IN ('success', 'failed'))
        GROUP BY e.hash, e.python";
    Ok(fetch_all(client, query, &[]).await?.into_iter().collect())
}

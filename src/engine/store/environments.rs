//! What is installed for the versions of DAGs.

use super::StoreError;
use crate::postgres::GenericClient;
use crate::python::environments::{Declared, Lock};
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

fn read(row: &Row) -> Lock {
    let Json(declared): Json<Declared> = row.get("declared");
    Lock { declared, python: row.get("python"), text: row.get("lock") }
}

/// What was chosen for these inputs before.
pub async fn chosen(client: &impl GenericClient, inputs: &str) -> Result<Option<Lock>, StoreError> {
    let query = "SELECT e.* FROM environment_choice c JOIN environment e USING (hash) WHERE c.inputs = $1";
    Ok(client.query_opt(query, &[&inputs]).await?.as_ref().map(read))
}

pub async fn get(client: &impl GenericClient, hash: &str) -> Result<Lock, StoreError> {
    let row = client.query_opt("SELECT * FROM environment WHERE hash = $1", &[&hash]).await?;
    row.as_ref().map(read).ok_or_else(|| StoreError::NotFound { what: "environment", id: hash.to_owned() })
}

/// Keeps it, as what is installed from now on for these inputs.
pub async fn choose(client: &impl GenericClient, inputs: &str, lock: &Lock) -> Result<(), StoreError> {
    let query = "
        WITH kept AS (INSERT INTO environment (hash, declared, python, lock) VALUES ($1, $2, $3, $4)
                      ON CONFLICT (hash) DO NOTHING)
        INSERT INTO environment_choice (inputs, hash) VALUES ($5, $1)
        ON CONFLICT (inputs) DO UPDATE SET hash = EXCLUDED.hash, chosen_at = now()";
    let hash = lock.hash();
    client.execute(query, &[&hash, &Json(&lock.declared), &lock.python, &lock.text, &inputs]).await?;
    Ok(())
}

/// One that is kept.
#[derive(Debug)]
pub struct Kept {
    pub hash: String,
    pub lock: Lock,
    pub created_at: Timestamp,
    /// DAGs whose current version runs with it, and their files, below the workspace.
    pub dags: Vec<String>,
    pub files: Vec<String>,
}

/// All, the newest first.
pub async fn all(client: &impl GenericClient) -> Result<Vec<Kept>, StoreError> {
    let query = "
        SELECT e.*, used.* FROM environment e CROSS JOIN LATERAL (
            SELECT coalesce(array_agg(d.dag_id ORDER BY d.dag_id), '{}') AS dags,
                   coalesce(array_agg(DISTINCT d.relative_fileloc), '{}') AS files
            FROM dag d JOIN dag_version v ON v.id = d.current_version_id
            WHERE v.environment = e.hash AND d.is_active) used
        ORDER BY e.created_at DESC, e.hash";
    let kept = |row: &Row| Kept {
        hash: row.get("hash"),
        lock: read(row),
        created_at: row.get("created_at"),
        dags: row.get("dags"),
        files: row.get("files"),
    };
    Ok(client.query(query, &[]).await?.iter().map(kept).collect())
}

/// The hashes of those that a DAG as it is now runs with, or a run that has not ended.
pub async fn in_use(client: &impl GenericClient) -> Result<Vec<String>, StoreError> {
    let query = "
        SELECT environment FROM dag_version v WHERE environment IS NOT NULL AND (
            EXISTS (SELECT FROM dag d WHERE d.current_version_id = v.id AND d.is_active)
            OR EXISTS (SELECT FROM dag_run r WHERE r.dag_version_id = v.id AND r.dag_id = v.dag_id
                       AND r.state IN ('queued', 'running')))
        GROUP BY environment";
    Ok(client.query(query, &[]).await?.iter().map(|row| row.get(0)).collect())
}

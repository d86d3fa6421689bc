//! Copies a run with its tasks and their values from another database of the same schema.

use super::{Result, StoreError};
use crate::model::keys::RunKey;
use serde_json::Value;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Transaction};

/// Tables with the rows of a run, each after those that it refers to.
const TABLES: [&str; 9] = [
    "dag_run",
    "task_instance",
    "task_try",
    "xcom",
    "rendered_task_instance_fields",
    "hitl_detail",
    "hitl_detail_history",
    "task_state",
    "deadline",
];

/// True if the run exists and has ended: one that runs must not run again where it is copied to.
pub async fn has_ended(client: &Client, run: &RunKey) -> Result<bool> {
    let query = "SELECT FROM dag_run WHERE dag_id = $1 AND run_id = $2 AND state IN ('success', 'failed')
                 AND NOT EXISTS (SELECT FROM task_try t WHERE t.dag_id = $1 AND t.run_id = $2 AND t.state = 'running')";
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id]).await?.is_some())
}

/// Copies a run that has ended; returns the number of its task instances, or `None` if `source` does not have it. A DAG
/// that does not exist any more is added as inactive. The version of the run is copied too, unless it is still there.
pub async fn copy(source: &Client, target: &mut Client, run: &RunKey) -> Result<Option<u64>> {
    let key: [&(dyn ToSql + Sync); 2] = [&run.dag_id, &run.run_id];
    let Some(mut row) = object(source, "dag_run", "dag_id = $1 AND run_id = $2", &key).await? else { return Ok(None) };
    let transaction = target.transaction().await?;
    let same_date = "SELECT run_id FROM dag_run WHERE dag_id = $1 AND logical_date = $2::text::timestamptz";
    if let Some(other) = transaction.query_opt(same_date, &[&run.dag_id, &row["logical_date"].as_str()]).await? {
        return Err(StoreError::AlreadyExists { what: "a run of this logical date,", id: other.get(0) });
    }
    copy_dag(source, &transaction, &run.dag_id).await?;
    let version = row["dag_version_id"].as_i64();
    let mut copied_version = None;
    if let Some(version) = version {
        copied_version = copy_version(source, &transaction, version).await?;
        row["dag_version_id"] = copied_version.into();
    }
    let mut task_instances = 0;
    for table in TABLES {
        let rows = match table {
            "dag_run" => format!("[{row}]"),
            "deadline" => missed_deadlines(source, run, version.zip(copied_version)).await?,
            _ => texts(source, table, run).await?,
        };
        let inserted = insert(&transaction, table, &rows, "").await?;
        if table == "task_instance" {
            task_instances = inserted;
        }
    }
    transaction.commit().await?;
    Ok(Some(task_instances))
}

/// True if the run exists.
pub async fn exists(client: &Client, run: &RunKey) -> Result<bool> {
    let query = "SELECT FROM dag_run WHERE dag_id = $1 AND run_id = $2";
    Ok(client.query_opt(query, &[&run.dag_id, &run.run_id]).await?.is_some())
}

async fn copy_dag(source: &Client, target: &Transaction<'_>, dag_id: &str) -> Result<()> {
    let Some(mut dag) = object(source, "dag", "dag_id = $1", &[&dag_id]).await? else { return Ok(()) };
    (dag["is_active"], dag["current_version_id"]) = (false.into(), Value::Null);
    insert(target, "dag", &format!("[{dag}]"), "ON CONFLICT DO NOTHING").await.map(drop)
}

/// Copies a version of the DAG; returns its id in the target.
async fn copy_version(source: &Client, target: &Transaction<'_>, id: i64) -> Result<Option<i64>> {
    let Some(mut version) = object(source, "dag_version", "id = $1", &[&id]).await? else { return Ok(None) };
    let environment = version["environment"].as_str();
    let has_environment = "SELECT FROM environment WHERE hash = $1";
    if target.query_opt(has_environment, &[&environment]).await?.is_none() {
        version["environment"] = Value::Null;
    }
    let columns: Vec<&str> = version.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
    let columns = columns.into_iter().filter(|name| *name != "id").collect::<Vec<_>>().join(", ");
    // A version of another history may have the same number.
    let number = "(SELECT coalesce(max(version_number), 0) + 1 FROM dag_version o WHERE o.dag_id = v.dag_id)";
    let values = columns.replace("version_number", number);
    let query = format!(
        "INSERT INTO dag_version ({columns}) SELECT {values} FROM json_populate_record(NULL::dag_version, $1::text::json) v
         ON CONFLICT DO NOTHING"
    );
    target.execute(&query, &[&version.to_string()]).await?;
    let query = "SELECT id FROM dag_version WHERE dag_id = $1 AND source_hash = $2";
    let same = target.query_opt(query, &[&version["dag_id"].as_str(), &version["source_hash"].as_str()]).await?;
    Ok(same.map(|row| row.get(0)))
}

/// The row of a table that the condition selects, as JSON.
async fn object(
    client: &Client,
    table: &str,
    condition: &str,
    parameters: &[&(dyn ToSql + Sync)],
) -> Result<Option<Value>> {
    let query = format!("SELECT row_to_json(t)::text FROM {table} t WHERE {condition}");
    let Some(row) = client.query_opt(&query, parameters).await? else { return Ok(None) };
    serde_json::from_str(row.get(0)).map(Some).map_err(|error| StoreError::Invalid(error.to_string()))
}

/// The rows of a run as a JSON array, in which JSON columns keep their text.
async fn texts(client: &Client, table: &str, run: &RunKey) -> Result<String> {
    let query = format!("SELECT coalesce(json_agg(t), '[]')::text FROM {table} t WHERE dag_id = $1 AND run_id = $2");
    Ok(client.query_one(&query, &[&run.dag_id, &run.run_id]).await?.get(0))
}

/// The deadlines that a run has missed, as a JSON array; without those of another version than that of the run. `versions`
/// are the ids of that version in the source and in the target.
async fn missed_deadlines(client: &Client, run: &RunKey, versions: Option<(i64, i64)>) -> Result<String> {
    let Some((version, copied)) = versions else { return Ok("[]".to_owned()) };
    let query = "SELECT coalesce(jsonb_agg(to_jsonb(d) || jsonb_build_object('dag_version_id', $4::bigint)), '[]')::text
                 FROM deadline d WHERE dag_id = $1 AND run_id = $2 AND dag_version_id = $3 AND state IN ('success', 'failed')";
    Ok(client.query_one(query, &[&run.dag_id, &run.run_id, &version, &copied]).await?.get(0))
}

/// Inserts a JSON array of rows.
async fn insert(target: &Transaction<'_>, table: &str, rows: &str, on_conflict: &str) -> Result<u64> {
    let query = format!(
        "INSERT INTO {table} OVERRIDING SYSTEM VALUE
         SELECT * FROM json_populate_recordset(NULL::{table}, $1::text::json) {on_conflict}"
    );
    Ok(target.execute(&query, &[&rows]).await?)
}

//! XComs: what tasks leave for one another. The text that a task wrote is the text that is read.

use super::StoreError;
use super::listing::{Column, Found, Listing, Source};
use crate::engine::keys::{RunKey, TryKey};
use crate::postgres::GenericClient;
use jiff::Timestamp;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

#[derive(Debug, Clone)]
pub struct XCom {
    pub run: RunKey,
    pub task_id: String,
    pub map_index: i32,
    pub key: String,
    pub created_at: Timestamp,
    pub logical_date: Option<Timestamp>,
    pub run_after: Timestamp,
    /// JSON.
    pub value: Option<String>,
}

fn read(row: &Row) -> XCom {
    XCom {
        run: RunKey { dag_id: row.get("dag_id"), run_id: row.get("run_id") },
        task_id: row.get("task_id"),
        map_index: row.get("map_index"),
        key: row.get("key"),
        created_at: row.get("created_at"),
        logical_date: row.get("logical_date"),
        run_after: row.get("run_after"),
        value: row.try_get("value").unwrap_or_default(),
    }
}

const KEY: &[Column] = &[
    Column::text("x.dag_id"),
    Column::text("x.task_id"),
    Column::text("x.run_id"),
    Column::whole("x.map_index"),
    Column::text("x.key"),
];

pub async fn list(client: &impl GenericClient, listing: Listing) -> Result<Found<XCom>, StoreError> {
    let source = Source {
        columns: "x.dag_id, x.run_id, x.task_id, x.map_index, x.key, x.created_at, r.logical_date, r.run_after",
        from: "xcom x",
        joins: &[("r", "JOIN dag_run r USING (dag_id, run_id)")],
        key: KEY,
    };
    listing.fetch(client, &source, read).await
}

pub async fn get(
    client: &impl GenericClient,
    run: &RunKey,
    task_id: &str,
    map_index: i32,
    key: &str,
) -> Result<XCom, StoreError> {
    let query = "SELECT x.dag_id, x.run_id, x.task_id, x.map_index, x.key, x.created_at, x.value::text AS value,
                        r.logical_date, r.run_after
                 FROM xcom x JOIN dag_run r USING (dag_id, run_id)
                 WHERE x.dag_id = $1 AND x.run_id = $2 AND x.task_id = $3 AND x.map_index = $4 AND x.key = $5";
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, &task_id, &map_index, &key]).await?;
    row.as_ref().map(read).ok_or_else(|| StoreError::NotFound { what: "xcom", id: key.to_owned() })
}

/// Whether a value can be kept under that name, here and in the state stores.
pub fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().count() <= 512 && !key.contains('\0')
}

pub fn check_key(key: &str) -> Result<(), StoreError> {
    if !is_key(key) {
        return Err(StoreError::Invalid(format!("XCom key must be a text of 1 to 512 characters. Received: {key:?}")));
    }
    Ok(())
}

/// Writes one of a running try; an older value of the key is replaced.
pub async fn push(client: &impl GenericClient, of: &TryKey, key: &str, value: &str) -> Result<(), StoreError> {
    check_key(key)?;
    let query = "INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value)
                 VALUES ($1, $2, $3, $4, $5, $6::text::json)
                 ON CONFLICT (dag_id, run_id, task_id, map_index, key)
                 DO UPDATE SET value = EXCLUDED.value, created_at = now()";
    client.execute(query, &[&of.run.dag_id, &of.run.run_id, &of.task_id, &of.map_index, &key, &value]).await?;
    Ok(())
}

/// What to pull.
#[derive(Debug)]
pub struct Pull<'a> {
    pub run: &'a RunKey,
    pub task_ids: &'a [String],
    pub key: &'a str,
    /// `None`: of all instances.
    pub map_indexes: Option<&'a [i32]>,
    /// Also from earlier runs of the DAG, the newest that has one.
    pub include_prior_dates: bool,
    /// Of the values in their order, how many to pass over and how many there may be at most.
    pub offset: i64,
    pub limit: Option<i64>,
}

/// In SQL, whether the instance that left the value `x` is there. One that was removed because the list has become
/// shorter keeps its values, as in Airflow, but what reads those of all instances does not see them.
const IS_THERE: &str = "(x.map_index < 0 OR NOT EXISTS (
    SELECT FROM task_instance ti
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (x.dag_id, x.run_id, x.task_id, x.map_index)
      AND ti.state = 'removed'))";

/// The values that some tasks left under a key: task, map index and JSON, in the order of the indexes.
pub async fn pull(client: &impl GenericClient, pull: &Pull<'_>) -> Result<Vec<(String, i32, String)>, StoreError> {
    // Of all instances Airflow gives what each of the runs has left, of one that is named the newest.
    let newest = if pull.map_indexes.is_some() { "DISTINCT ON (x.task_id, x.map_index)" } else { "" };
    let order = if pull.map_indexes.is_some() { "DESC NULLS LAST" } else { "ASC NULLS FIRST" };
    let by_date =
        if pull.map_indexes.is_some() { "x.task_id, x.map_index, r.logical_date" } else { "x.task_id, r.logical_date" };
    let query = format!(
        "SELECT {newest} x.task_id, x.map_index, x.value::text
         FROM xcom x JOIN dag_run r USING (dag_id, run_id)
         WHERE x.dag_id = $1 AND x.task_id = ANY ($3) AND x.key = $4
           AND ($5::integer[] IS NULL AND {IS_THERE} OR x.map_index = ANY ($5))
           AND (x.run_id = $2
                OR $6 AND r.logical_date <= (SELECT logical_date FROM dag_run WHERE dag_id = $1 AND run_id = $2))
         ORDER BY {by_date} {order}, x.map_index OFFSET $7 LIMIT $8"
    );
    let Pull { run, task_ids, key, map_indexes, include_prior_dates, offset, limit } = pull;
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&run.dag_id, &run.run_id, task_ids, key, map_indexes, include_prior_dates, offset, limit];
    let rows = client.query(&query, &parameters).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// How many instances of a task have left one under a key.
pub async fn count(client: &impl GenericClient, run: &RunKey, task_id: &str, key: &str) -> Result<i64, StoreError> {
    let query = format!(
        "SELECT count(*) FROM xcom x
         WHERE x.dag_id = $1 AND x.run_id = $2 AND x.task_id = $3 AND x.key = $4 AND {IS_THERE}"
    );
    Ok(client.query_one(&query, &[&run.dag_id, &run.run_id, &task_id, &key]).await?.get(0))
}

/// One of a running try's own that is not there is no error.
pub async fn delete(client: &impl GenericClient, of: &TryKey, key: &str) -> Result<(), StoreError> {
    let query = "DELETE FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5";
    client.execute(query, &[&of.run.dag_id, &of.run.run_id, &of.task_id, &of.map_index, &key]).await?;
    Ok(())
}

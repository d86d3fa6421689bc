//! XComs. A value is stored and returned as the exact text that a task or the REST API wrote.

use crate::model::keys::{InstanceKey, RunKey};
use crate::store::dag::versions;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use crate::store::rows;
use crate::store::run::runs;
use crate::store::{ReadFor, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

#[derive(Debug, Clone)]
pub struct XCom {
    pub instance: InstanceKey,
    pub key: String,
    pub created_at: Timestamp,
    pub logical_date: Option<Timestamp>,
    pub run_after: Timestamp,
}

/// A value as JSON text. It is not copied from the row that was read, since it may have megabytes.
#[derive(Debug)]
pub struct ValueText(Row);

impl ValueText {
    pub fn as_str(&self) -> &str {
        self.0.get("value")
    }
}

impl AsRef<[u8]> for ValueText {
    fn as_ref(&self) -> &[u8] {
        self.as_str().as_bytes()
    }
}

fn read(row: &Row) -> XCom {
    XCom {
        instance: rows::instance_key(row),
        key: row.get("key"),
        created_at: row.get("created_at"),
        logical_date: row.get("logical_date"),
        run_after: row.get("run_after"),
    }
}

list_fields! {
    /// Fields of XComs, for lists.
    XComField, key: [DagId, TaskId, RunId, MapIndex, Key], filter: XComFilter;
    DagId = text("x.dag_id"),
    TaskId = text("x.task_id"),
    RunId = text("x.run_id"),
    MapIndex = whole("x.map_index"),
    Key = text("x.key"),
    CreatedAt = time("x.created_at"),
    RunAfter = time("r.run_after"),
    LogicalDate = time("r.logical_date"),
}

/// Selects XComs by their task instance; `None` matches all.
#[derive(Debug, Default)]
pub struct XComFilter {
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    pub task_id: Option<String>,
    pub map_index: Option<i32>,
}

impl Filter for XComFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("x.dag_id = {}", self.dag_id);
        conditions.maybe("x.run_id = {}", self.run_id);
        conditions.maybe("x.task_id = {}", self.task_id);
        conditions.maybe("x.map_index = {}", self.map_index);
    }
}

pub async fn list(client: &impl GenericClient, listing: Listing<XComField>) -> Result<ListPage<XCom>, StoreError> {
    let source = Source {
        columns: "x.dag_id, x.run_id, x.task_id, x.map_index, x.key, x.created_at, r.logical_date, r.run_after",
        from: "xcom x",
        joins: &[("r", "JOIN dag_run r USING (dag_id, run_id)")],
    };
    listing.fetch(client, &source, read).await
}

/// An XCom with its value.
pub async fn get(
    client: &impl GenericClient,
    instance: &InstanceKey,
    key: &str,
) -> Result<(XCom, ValueText), StoreError> {
    let InstanceKey { run, task_id, map_index } = instance;
    let query = "SELECT x.dag_id, x.run_id, x.task_id, x.map_index, x.key, x.created_at, x.value::text AS value,
                        r.logical_date, r.run_after
                 FROM xcom x JOIN dag_run r USING (dag_id, run_id)
                 WHERE x.dag_id = $1 AND x.run_id = $2 AND x.task_id = $3 AND x.map_index = $4 AND x.key = $5";
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key]).await?;
    let row = row.ok_or_else(|| StoreError::NotFound { what: "xcom", id: key.to_owned() })?;
    Ok((read(&row), ValueText(row)))
}

/// True if the task instance has an XCom with this key.
pub async fn exists(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<bool, StoreError> {
    let InstanceKey { run, task_id, map_index } = instance;
    let query = "SELECT FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5";
    let row = client.query_opt(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key]).await?;
    Ok(row.is_some())
}

/// The links of a task instance's operator by name, in the version of its run; `None` for a link that the task has not
/// pushed.
pub async fn extra_links(
    client: &impl GenericClient,
    instance: &InstanceKey,
) -> Result<BTreeMap<String, Option<String>>, StoreError> {
    let InstanceKey { run, task_id, map_index } = instance;
    let missing = || StoreError::NotFound { what: "task", id: task_id.clone() };
    let version = runs::get(client, run, ReadFor::Reading).await?.version_id.ok_or_else(missing)?;
    let structure = versions::structure_by_id(client, version).await?;
    let task = structure.tasks.into_iter().find(|task| task.task_id == *task_id).ok_or_else(missing)?;
    let keys: Vec<&str> = task.extra_links.values().map(String::as_str).collect();
    let query = "SELECT key, value #>> '{}' AS link FROM xcom
                 WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = ANY ($5)
                   AND json_typeof(value) = 'string'";
    let rows = client.query(query, &[&run.dag_id, &run.run_id, task_id, map_index, &keys]).await?;
    let pushed: BTreeMap<String, String> = rows.iter().map(|row| (row.get("key"), row.get("link"))).collect();
    let link = |key: &String| pushed.get(key).filter(|link| !link.is_empty()).cloned();
    Ok(task.extra_links.iter().map(|(name, key)| (name.clone(), link(key))).collect())
}

/// True if a value can be stored under that key, here and in the state stores.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().count() <= 512 && !key.contains('\0')
}

pub(crate) fn check_key(key: &str) -> Result<(), StoreError> {
    if !is_key(key) {
        return Err(StoreError::Invalid(format!(
            "XCom key must be a text of 1 to 512 characters without NUL. Received: {key:?}"
        )));
    }
    Ok(())
}

/// Writes an XCom of a task instance; replaces an older value of the key.
pub async fn push(
    client: &impl GenericClient,
    instance: &InstanceKey,
    key: &str,
    value: &str,
) -> Result<(), StoreError> {
    check_key(key)?;
    let query = "INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value)
                 VALUES ($1, $2, $3, $4, $5, $6::text::json)
                 ON CONFLICT (dag_id, run_id, task_id, map_index, key)
                 DO UPDATE SET value = EXCLUDED.value, mapped_length = NULL, created_at = now()";
    let InstanceKey { run, task_id, map_index } = instance;
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key, &value]).await?;
    Ok(())
}

/// The part of the SQL statement in `tries::record` that writes the XComs of an ended try: `$16` are the keys, `$17` the
/// values, `$20` is the length of the return value if other tasks are mapped over it.
pub(crate) const RETURNED: &str = ",
        returned AS (
            INSERT INTO xcom (dag_id, run_id, task_id, map_index, key, value, mapped_length)
            SELECT $1, $2, $3, $4, key, value::json, CASE key WHEN 'return_value' THEN $20::integer END
            FROM unnest($16::text[], $17::text[]) AS new (key, value)
            WHERE EXISTS (SELECT FROM ended)
            ON CONFLICT (dag_id, run_id, task_id, map_index, key)
            DO UPDATE SET value = EXCLUDED.value, mapped_length = EXCLUDED.mapped_length, created_at = now())";

/// Parameters of an XCom pull.
#[derive(Debug)]
pub struct Pull<'a> {
    pub run: &'a RunKey,
    pub task_ids: &'a [String],
    pub key: &'a str,
    /// `None` selects all instances.
    pub map_indexes: Option<&'a [i32]>,
    /// True to include earlier runs of the DAG.
    pub include_prior_dates: bool,
    /// Paging of the ordered values.
    pub offset: i64,
    pub limit: Option<i64>,
}

/// SQL condition: the mapped instance of the value `x` is not in the state `removed`; values of unmapped instances always
/// pass. As in Airflow, an instance that is removed because its list has shrunk keeps its XComs, but a pull of all
/// instances does not return them.
const NOT_REMOVED: &str = "(x.map_index < 0 OR NOT EXISTS (
    SELECT FROM task_instance ti
    WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (x.dag_id, x.run_id, x.task_id, x.map_index)
      AND ti.state = 'removed'))";

/// SQL: the date by which pulls order the runs `r`, as in Airflow; a run may have no logical date.
const RUN_DATE: &str = "coalesce(r.logical_date, r.run_after)";

/// Returns the values of some tasks under a key: task id, map index and JSON text. They are ordered by task, date and map
/// index or, for given map indexes, by task and map index.
pub async fn pull(client: &impl GenericClient, pull: &Pull<'_>) -> Result<Vec<(String, i32, String)>, StoreError> {
    // As in Airflow, a pull of all instances returns the values of every run, oldest first; a pull of named map indexes
    // returns only the newest value of each.
    let (distinct_on, order_by) = match pull.map_indexes {
        Some(_) => (
            "DISTINCT ON (x.task_id, x.map_index)",
            format!("x.task_id, x.map_index, {RUN_DATE} DESC, x.created_at DESC"),
        ),
        None => ("", format!("x.task_id, {RUN_DATE}, x.map_index")),
    };
    let query = format!(
        "SELECT {distinct_on} x.task_id, x.map_index, x.value::text AS value
         FROM xcom x JOIN dag_run r USING (dag_id, run_id)
         WHERE x.dag_id = $1 AND x.task_id = ANY ($3) AND x.key = $4
           AND ($5::integer[] IS NULL AND {NOT_REMOVED} OR x.map_index = ANY ($5))
           AND (x.run_id = $2
                OR $6 AND {RUN_DATE} <= (SELECT {RUN_DATE} FROM dag_run r WHERE dag_id = $1 AND run_id = $2))
         ORDER BY {order_by} OFFSET $7 LIMIT $8"
    );
    let Pull { run, task_ids, key, map_indexes, include_prior_dates, offset, limit } = pull;
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&run.dag_id, &run.run_id, task_ids, key, map_indexes, include_prior_dates, offset, limit];
    let rows = client.query(&query, &parameters).await?;
    Ok(rows.iter().map(|row| (row.get("task_id"), row.get("map_index"), row.get("value"))).collect())
}

/// Number of instances of a task that have an XCom with this key.
pub async fn count(client: &impl GenericClient, run: &RunKey, task_id: &str, key: &str) -> Result<i64, StoreError> {
    let query = format!(
        "SELECT count(*) FROM xcom x
         WHERE x.dag_id = $1 AND x.run_id = $2 AND x.task_id = $3 AND x.key = $4 AND {NOT_REMOVED}"
    );
    Ok(client.query_one(&query, &[&run.dag_id, &run.run_id, &task_id, &key]).await?.get(0))
}

/// Deletes an XCom of a task instance; a missing key is no error.
pub async fn delete(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<(), StoreError> {
    let query = "DELETE FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4 AND key = $5";
    let InstanceKey { run, task_id, map_index } = instance;
    client.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index, &key]).await?;
    Ok(())
}

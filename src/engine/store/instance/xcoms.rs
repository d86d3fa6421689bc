//! XComs. A value is stored and returned as the exact text that a task or the REST API wrote.

use crate::model::keys::{InstanceKey, Position, RunKey};
use crate::store::dag::versions;
use crate::store::instance_key::{INSTANCE, KEY};
use crate::store::list::field::{filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{self, FromRow, execute, fetch_all, fetch_one, from_row};
use crate::store::run::runs;
use crate::store::{ReadFor, Result, StoreError};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::BTreeMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

from_row! {
    #[derive(Debug, Clone)]
    pub struct XCom {
        pub instance: InstanceKey => InstanceKey::from_row,
        pub key: String,
        pub created_at: Timestamp,
        pub logical_date: Option<Timestamp>,
        pub run_after: Timestamp,
    }
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

filter! {
    /// Selects XComs by their task instance; `None` matches all.
    pub struct XComFilter {
        dag_id: String = "x.dag_id = {}",
        run_id: String = "x.run_id = {}",
        task_id: String = "x.task_id = {}",
        position: Position = "x.map_index = {}",
    }
}

/// The columns of an [`XCom`].
fn columns() -> String {
    format!("{}, x.key, x.created_at, r.logical_date, r.run_after", INSTANCE.of("x"))
}

pub async fn list(client: &impl GenericClient, listing: Listing<XComField>) -> Result<ListPage<XCom>> {
    let joins = &[("r", "JOIN dag_run r USING (dag_id, run_id)")];
    listing.fetch(client, &Source { columns: &columns(), from: "xcom x", joins }).await
}

/// An XCom with its value.
pub async fn get(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<(XCom, ValueText)> {
    let query = format!(
        "SELECT {}, x.value::text AS value FROM xcom x JOIN dag_run r USING (dag_id, run_id) WHERE x.key = $1 AND {}",
        columns(),
        INSTANCE.is("x", 2)
    );
    let row = client.query_opt(&query, &instance.after(&[&key])).await?;
    let row = row.ok_or_else(|| StoreError::NotFound { what: "xcom", id: key.to_owned() })?;
    Ok((XCom::from_row(&row)?, ValueText(row)))
}

/// True if the task instance has an XCom with this key.
pub async fn exists(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<bool> {
    let query = format!("SELECT FROM xcom WHERE key = $1 AND {}", INSTANCE.is("xcom", 2));
    rows::exists(client, &query, &instance.after(&[&key])).await
}

/// The links of a task instance's operator by name, in the version of its run; `None` for a link that the task has not
/// pushed.
pub async fn extra_links(
    client: &impl GenericClient,
    instance: &InstanceKey,
) -> Result<BTreeMap<String, Option<String>>> {
    let InstanceKey { run, task_id, .. } = instance;
    let missing = || StoreError::NotFound { what: "task", id: task_id.clone() };
    let version = runs::get(client, run, ReadFor::Reading).await?.version_id.ok_or_else(missing)?;
    let structure = versions::structure_by_id(client, version).await?;
    let task = structure.tasks.into_iter().find(|task| task.task_id == *task_id).ok_or_else(missing)?;
    let keys: Vec<&str> = task.extra_links.values().map(String::as_str).collect();
    let query = format!(
        "SELECT key, value #>> '{{}}' FROM xcom WHERE key = ANY ($1) AND json_typeof(value) = 'string' AND {}",
        INSTANCE.is("xcom", 2)
    );
    let pushed: BTreeMap<String, String> =
        fetch_all(client, &query, &instance.after(&[&keys])).await?.into_iter().collect();
    let link = |key: &String| pushed.get(key).filter(|link| !link.is_empty()).cloned();
    Ok(task.extra_links.iter().map(|(name, key)| (name.clone(), link(key))).collect())
}

/// True if a value can be stored under that key, here and in the state stores.
pub(crate) fn is_key(key: &str) -> bool {
    !key.is_empty() && key.chars().count() <= 512 && !key.contains('\0')
}

pub(crate) fn check_key(key: &str) -> Result<()> {
    if !is_key(key) {
        return Err(StoreError::Invalid(format!(
            "XCom key must be a text of 1 to 512 characters without NUL. Received: {key:?}"
        )));
    }
    Ok(())
}

/// Writes an XCom of a task instance; replaces an older value of the key.
pub async fn push(client: &impl GenericClient, instance: &InstanceKey, key: &str, value: &str) -> Result<()> {
    check_key(key)?;
    let query = format!(
        "INSERT INTO xcom (key, value, {KEY}) VALUES ($1, $2::text::json, {}) ON CONFLICT ({KEY}, key)
         DO UPDATE SET value = EXCLUDED.value, mapped_length = NULL, created_at = now()",
        INSTANCE.parameters(3)
    );
    execute(client, &query, &instance.after(&[&key, &value])).await
}

/// Parameters of an XCom pull.
#[derive(Debug)]
pub struct Pull<'a> {
    pub run: &'a RunKey,
    pub task_ids: &'a [String],
    pub key: &'a str,
    /// `None` selects all instances.
    pub positions: Option<&'a [Position]>,
    /// Without `positions`: selects the instances in this iteration of the loop of the tasks.
    pub iteration: Option<i32>,
    /// True to include earlier runs of the DAG.
    pub include_prior_dates: bool,
    /// Paging of the ordered values.
    pub offset: i64,
    pub limit: Option<i64>,
}

/// SQL condition: the mapped instance of the value `x` is not in the state `removed`; values of unmapped instances always
/// pass. As in Airflow, an instance that is removed because its list has shrunk keeps its XComs, but a pull of all
/// instances does not return them.
fn not_removed() -> String {
    let same = INSTANCE.same("ti", "x");
    format!("(x.map_index = -1 OR NOT EXISTS (SELECT FROM task_instance ti WHERE {same} AND ti.state = 'removed'))")
}

/// SQL: the date by which pulls order the runs `r`, as in Airflow; a run may have no logical date.
const RUN_DATE: &str = "coalesce(r.logical_date, r.run_after)";

/// The bounds of the positions in an iteration of a loop, the last included; without an iteration, of all positions.
fn bounds(iteration: Option<i32>) -> [Position; 2] {
    iteration.map_or([i32::MIN, i32::MAX].map(Position::from_stored), Position::bounds_of)
}

/// Returns the values of some tasks under a key: task id, position and JSON text. They are ordered by task, date and
/// position or, for given positions, by task and position.
pub async fn pull(client: &impl GenericClient, pull: &Pull<'_>) -> Result<Vec<(String, Position, String)>> {
    // As in Airflow, a pull of all instances returns the values of every run, oldest first; a pull of named positions
    // returns only the newest value of each.
    let (distinct_on, order_by) = match pull.positions {
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
           AND ($5::integer[] IS NULL AND {} AND x.map_index BETWEEN $9 AND $10 OR x.map_index = ANY ($5))
           AND (x.run_id = $2
                OR $6 AND {RUN_DATE} <= (SELECT {RUN_DATE} FROM dag_run r WHERE dag_id = $1 AND run_id = $2))
         ORDER BY {order_by} OFFSET $7 LIMIT $8",
        not_removed()
    );
    let Pull { run, task_ids, key, positions, iteration, include_prior_dates, offset, limit } = pull;
    let [first, last] = bounds(*iteration);
    let parameters: [&(dyn ToSql + Sync); 10] =
        [&run.dag_id, &run.run_id, task_ids, key, positions, include_prior_dates, offset, limit, &first, &last];
    fetch_all(client, &query, &parameters).await
}

/// Number of instances of a task, in an iteration of its loop or in all, that have an XCom with this key.
pub async fn count(
    client: &impl GenericClient,
    run: &RunKey,
    task_id: &str,
    key: &str,
    iteration: Option<i32>,
) -> Result<i64> {
    let query = format!(
        "SELECT count(*) FROM xcom x
         WHERE x.dag_id = $1 AND x.run_id = $2 AND x.task_id = $3 AND x.key = $4 AND {}
           AND x.map_index BETWEEN $5 AND $6",
        not_removed()
    );
    let [first, last] = bounds(iteration);
    fetch_one(client, &query, &[&run.dag_id, &run.run_id, &task_id, &key, &first, &last]).await
}

/// Deletes an XCom of a task instance; a missing key is no error.
pub async fn delete(client: &impl GenericClient, instance: &InstanceKey, key: &str) -> Result<()> {
    let query = format!("DELETE FROM xcom WHERE key = $1 AND {}", INSTANCE.is("xcom", 2));
    execute(client, &query, &instance.after(&[&key])).await
}

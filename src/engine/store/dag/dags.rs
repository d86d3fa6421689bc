//! DAGs at their current versions.

use super::dag_fields::DagField;
use super::structures::{Structures, VersionKey};
use crate::model::dag::Structure;

use crate::store::StoreError;
use crate::store::asset::watchers;
use crate::store::events::{self, Event};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use crate::store::rows::{exists, fetch_all, fetch_one, fetch_optional};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A DAG at its current version.
#[derive(Debug, Clone)]
pub struct Dag {
    pub dag_id: String,
    pub is_paused: bool,
    pub is_active: bool,
    pub is_favorite: bool,
    pub fileloc: String,
    pub relative_fileloc: String,
    pub last_parsed_at: Option<Timestamp>,
    /// Seconds.
    pub last_parse_duration: Option<f64>,
    pub has_import_errors: bool,
    pub structure: Arc<Structure>,
    pub version_number: i32,
    pub version_created_at: Timestamp,
    pub version_id: i64,
    /// Due date of the next scheduled run.
    pub next_run_after: Option<Timestamp>,
    pub next_interval: Option<(Timestamp, Timestamp)>,
}

impl Dag {
    pub fn into_structure(self) -> Structure {
        Arc::unwrap_or_clone(self.structure)
    }
}

const COLUMNS: &str = "
    d.*, v.version_number, v.created_at AS version_created_at, v.id AS version_id,
    EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) AS has_import_errors";
const FROM: &str = "dag d JOIN dag_version v ON v.id = d.current_version_id";

fn read(row: &Row, structure: Arc<Structure>) -> Dag {
    Dag {
        dag_id: row.get("dag_id"),
        is_paused: row.get("is_paused"),
        is_active: row.get("is_active"),
        is_favorite: row.get("is_favorite"),
        fileloc: row.get("fileloc"),
        relative_fileloc: row.get("relative_fileloc"),
        last_parsed_at: row.get("last_parsed_at"),
        last_parse_duration: row.get("last_parse_duration"),
        has_import_errors: row.get("has_import_errors"),
        structure,
        version_number: row.get("version_number"),
        version_created_at: row.get("version_created_at"),
        version_id: row.get("version_id"),
        next_run_after: row.get("next_run_after"),
        next_interval: row
            .get::<_, Option<Timestamp>>("next_interval_start")
            .zip(row.get::<_, Option<Timestamp>>("next_interval_end")),
    }
}

pub async fn list(
    client: &impl GenericClient,
    structures: &Structures,
    listing: Listing<DagField>,
) -> Result<ListPage<Dag>, StoreError> {
    let page = listing.fetch_with(client, &Source::new(COLUMNS, FROM), Row::clone).await?;
    let version = |row: &Row| (row.get("version_id"), row.get("version_created_at"));
    let versions: Vec<VersionKey> = page.rows.iter().map(version).collect();
    let known = structures.get(client, &versions).await?;
    // A DAG deleted between the two queries is left out.
    Ok(page.filter_map(|row| known.get(&version(&row)).map(|structure| read(&row, Arc::clone(structure)))))
}

pub async fn get(client: &impl GenericClient, dag_id: &str) -> Result<Dag, StoreError> {
    let query = format!("SELECT {COLUMNS}, v.structure FROM {FROM} WHERE d.dag_id = $1");
    let row = client.query_opt(&query, &[&dag_id]).await?;
    let read_row = |row: &Row| read(row, Arc::new(row.get::<_, Json<Structure>>("structure").0));
    row.as_ref().map(read_row).ok_or_else(|| not_found(dag_id))
}

fn not_found(dag_id: &str) -> StoreError {
    StoreError::NotFound { what: "dag", id: dag_id.to_owned() }
}

/// Number of running runs.
pub async fn active_runs(client: &impl GenericClient, dag_id: &str) -> Result<i64, StoreError> {
    fetch_one(client, "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND state = 'running'", &[&dag_id]).await
}

pub async fn is_paused(client: &impl GenericClient, dag_id: &str) -> Result<bool, StoreError> {
    let is_paused = fetch_optional(client, "SELECT is_paused FROM dag WHERE dag_id = $1", &[&dag_id]).await?;
    is_paused.ok_or_else(|| not_found(dag_id))
}

/// Whether new runs of a DAG are scheduled and its runs advance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pause {
    Paused,
    Unpaused,
}

impl From<bool> for Pause {
    fn from(is_paused: bool) -> Self {
        if is_paused { Self::Paused } else { Self::Unpaused }
    }
}

pub async fn set_paused(client: &impl GenericClient, dag_id: &str, pause: Pause) -> Result<(), StoreError> {
    set_flag(client, "is_paused", dag_id, pause == Pause::Paused).await?;
    watchers::notify_agent(client).await?;
    events::notify_all(client, &[Event::Dags, Event::Sweep]).await?;
    // Running runs did not advance while the DAG was paused.
    let running = "SELECT dag_id, run_id FROM dag_run WHERE dag_id = $1 AND state = 'running'";
    for run in fetch_all(client, running, &[&dag_id]).await? {
        events::notify(client, &Event::Plan(run)).await?;
    }
    Ok(())
}

async fn set_flag(client: &impl GenericClient, column: &str, dag_id: &str, value: bool) -> Result<(), StoreError> {
    match client.execute(&format!("UPDATE dag SET {column} = $2 WHERE dag_id = $1"), &[&dag_id, &value]).await? {
        0 => Err(not_found(dag_id)),
        _ => Ok(()),
    }
}

/// Whether a DAG is among the user's favorites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Favorite {
    Yes,
    No,
}

pub async fn set_favorite(client: &impl GenericClient, dag_id: &str, favorite: Favorite) -> Result<(), StoreError> {
    set_flag(client, "is_favorite", dag_id, favorite == Favorite::Yes).await
}

/// Pauses the DAG if its last `max_failures` finished runs have all failed: Airflow's
/// `max_consecutive_failed_dag_runs`. Returns true if the DAG was paused.
pub(crate) async fn pause_after_failures(
    client: &impl GenericClient,
    dag_id: &str,
    max_failures: i64,
) -> Result<bool, StoreError> {
    let query = "
            UPDATE dag SET is_paused = true WHERE dag_id = $1 AND (
                SELECT count(*) = $2 AND bool_and(state = 'failed') FROM (
                    SELECT state FROM dag_run WHERE dag_id = $1 AND state IN ('success', 'failed')
                    ORDER BY run_after DESC, run_id DESC LIMIT $2) recent)";
    Ok(client.execute(query, &[&dag_id, &max_failures]).await? > 0)
}

/// Deletes a DAG with all of its history. A DAG whose file still exists is created again without history.
pub async fn delete(transaction: &Transaction<'_>, dag_id: &str) -> Result<(), StoreError> {
    // Tasks of cancelled runs that are still being stopped count as running.
    let running = "SELECT FROM task_try WHERE dag_id = $1 AND state = 'running' LIMIT 1";
    if exists(transaction, running, &[&dag_id]).await? {
        return Err(StoreError::Busy(format!("Task instances of dag with id: '{dag_id}' are still running")));
    }
    transaction.execute("DELETE FROM dag_run WHERE dag_id = $1", &[&dag_id]).await?;
    if transaction.execute("DELETE FROM dag WHERE dag_id = $1", &[&dag_id]).await? == 0 {
        return Err(not_found(dag_id));
    }
    // `Stop` makes the agent stop the triggers of deferred tasks.
    events::notify_all(transaction, &[Event::Dags, Event::Stop]).await
}

/// Returns the number of a DAG version and the text of its file; `None` for `version_number` is the current version.
pub async fn source(
    client: &impl GenericClient,
    dag_id: &str,
    version_number: Option<i32>,
) -> Result<Option<(i32, String)>, StoreError> {
    let query = "SELECT v.version_number, v.source FROM dag_version v JOIN dag d USING (dag_id)
                 WHERE dag_id = $1 AND (v.version_number = $2 OR $2 IS NULL AND v.id = d.current_version_id)";
    fetch_optional(client, query, &[&dag_id, &version_number]).await
}

//! DAGs, their versions, and import errors.

use super::dag_fields::{DagField, ImportErrorField};
use super::structures::{Structures, VersionKey};
use crate::model::dag::Structure;
use crate::model::dag_check;
use crate::model::keys::RunKey;
use crate::schedule::timetable::Timetable;
use crate::store::StoreError;
use crate::store::asset::assets;
use crate::store::asset::watchers;
use crate::store::events::{self, Event};
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::{Json, ToSql};

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

/// The result of parsing a file.
#[derive(Debug)]
pub struct ParsedFile {
    pub fileloc: String,
    pub relative_fileloc: String,
    /// Seconds.
    pub duration: f64,
    /// The error is a text for users.
    pub result: Result<ParsedDags, String>,
}

#[derive(Debug)]
pub struct ParsedDags {
    pub dags: Vec<Structure>,
    /// The text of the file.
    pub source: String,
    /// The texts of the file and of every local module that it imported, by path relative to the workspace.
    pub sources: Map<String, Value>,
    /// Hash of the Python environment that the file was parsed with; `None` for the default interpreter.
    pub environment: Option<String>,
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
    let page = listing.fetch(client, &Source::new(COLUMNS, FROM), Row::clone).await?;
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
    row.as_ref().map(read_row).ok_or_else(|| StoreError::NotFound { what: "dag", id: dag_id.to_owned() })
}

/// Number of running runs.
pub async fn active_runs(client: &impl GenericClient, dag_id: &str) -> Result<i64, StoreError> {
    let query = "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND state = 'running'";
    Ok(client.query_one(query, &[&dag_id]).await?.get(0))
}

pub async fn is_paused(client: &impl GenericClient, dag_id: &str) -> Result<bool, StoreError> {
    let row = client.query_opt("SELECT is_paused FROM dag WHERE dag_id = $1", &[&dag_id]).await?;
    row.map(|row| row.get(0)).ok_or_else(|| StoreError::NotFound { what: "dag", id: dag_id.to_owned() })
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
    let is_paused = pause == Pause::Paused;
    let changed = client.execute("UPDATE dag SET is_paused = $2 WHERE dag_id = $1", &[&dag_id, &is_paused]).await?;
    if changed == 0 {
        return Err(StoreError::NotFound { what: "dag", id: dag_id.to_owned() });
    }
    watchers::notify_agent(client).await?;
    events::notify(client, &Event::Dags).await?;
    events::notify(client, &Event::Sweep).await?;
    // Running runs did not advance while the DAG was paused.
    for row in client.query("SELECT run_id FROM dag_run WHERE dag_id = $1 AND state = 'running'", &[&dag_id]).await? {
        let run = RunKey { dag_id: dag_id.to_owned(), run_id: row.get(0) };
        events::notify(client, &Event::Plan(run)).await?;
    }
    Ok(())
}

/// Whether a DAG is among the user's favorites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Favorite {
    Yes,
    No,
}

pub async fn set_favorite(client: &impl GenericClient, dag_id: &str, favorite: Favorite) -> Result<(), StoreError> {
    let is_favorite = favorite == Favorite::Yes;
    let changed = client.execute("UPDATE dag SET is_favorite = $2 WHERE dag_id = $1", &[&dag_id, &is_favorite]).await?;
    if changed == 0 {
        return Err(StoreError::NotFound { what: "dag", id: dag_id.to_owned() });
    }
    Ok(())
}

/// Deletes a DAG with all of its history. A DAG whose file still exists is created again without history.
pub async fn delete(transaction: &Transaction<'_>, dag_id: &str) -> Result<(), StoreError> {
    // Tasks of cancelled runs that are still being stopped count as running.
    let running = "SELECT FROM task_try WHERE dag_id = $1 AND state = 'running' LIMIT 1";
    if transaction.query_opt(running, &[&dag_id]).await?.is_some() {
        return Err(StoreError::Busy(format!("Task instances of dag with id: '{dag_id}' are still running")));
    }
    transaction.execute("DELETE FROM dag_run WHERE dag_id = $1", &[&dag_id]).await?;
    if transaction.execute("DELETE FROM dag WHERE dag_id = $1", &[&dag_id]).await? == 0 {
        return Err(StoreError::NotFound { what: "dag", id: dag_id.to_owned() });
    }
    events::notify(transaction, &Event::Dags).await?;
    // Makes the agent stop the triggers of deferred tasks.
    events::notify(transaction, &Event::Stop).await?;
    Ok(())
}

/// The result of saving a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// True if another file already defines one of the DAGs. The DAG of the other file is kept.
    pub conflicts: bool,
    /// True if the file no longer defines a DAG that it defined before.
    pub released: bool,
}

/// Saves the result of parsing a file.
pub async fn save_file(transaction: &Transaction<'_>, file: &ParsedFile) -> Result<Saved, StoreError> {
    let mut saved = Saved { conflicts: false, released: false };
    let mut error = None;
    let mut saved_dag_ids = Vec::new();
    match &file.result {
        Err(text) => error = Some(text.clone()),
        Ok(parsed) => {
            let owners = owners(transaction, file, &parsed.dags).await?;
            let mut problems = Vec::new();
            for structure in &parsed.dags {
                match owners.get(&structure.dag_id) {
                    Some(other) if *other != file.fileloc => {
                        problems.push(dag_check::used_twice(&structure.dag_id, other, &file.fileloc));
                        saved.conflicts = true;
                    }
                    _ => {
                        save_dag(transaction, file, parsed, structure).await?;
                        saved_dag_ids.push(structure.dag_id.as_str());
                    }
                }
            }
            if !problems.is_empty() {
                error = Some(problems.join("\n"));
            }
        }
    }
    if let Some(text) = &error {
        save_error(transaction, &file.fileloc, text).await?;
    }
    // A file that fails to import keeps its DAGs.
    let settle = "
        WITH deactivated AS (
                UPDATE dag SET is_active = false WHERE fileloc = $1 AND is_active AND dag_id <> ALL ($2) AND $3
                RETURNING dag_id),
             deleted_error AS (DELETE FROM import_error WHERE filename = $1 AND NOT $4)
        SELECT EXISTS (SELECT FROM deactivated)";
    let row =
        transaction.query_one(settle, &[&file.fileloc, &saved_dag_ids, &file.result.is_ok(), &error.is_some()]).await?;
    saved.released = row.get(0);
    if saved.released {
        watchers::notify_agent(transaction).await?;
    }
    events::notify(transaction, &Event::Dags).await?;
    Ok(saved)
}

/// Returns the file that currently defines each of the DAGs. Also takes an advisory lock: a concurrent save of the same
/// file waits for this transaction and then reads the rows that it has written.
async fn owners(
    transaction: &Transaction<'_>,
    file: &ParsedFile,
    dags: &[Structure],
) -> Result<HashMap<String, String>, StoreError> {
    let ids: Vec<&str> = dags.iter().map(|dag| dag.dag_id.as_str()).collect();
    let query = "SELECT d.dag_id, d.fileloc FROM (SELECT pg_advisory_xact_lock(hashtextextended($2, 0))) held
                 LEFT JOIN dag d ON d.dag_id = ANY ($1) AND d.is_active";
    let rows = transaction.query(query, &[&ids, &file.fileloc]).await?;
    Ok(rows.iter().filter_map(|row| Some((row.get::<_, Option<String>>("dag_id")?, row.get("fileloc")))).collect())
}

/// Saves a DAG and, if the file has changed, a new version of it.
async fn save_dag(
    transaction: &Transaction<'_>,
    file: &ParsedFile,
    parsed: &ParsedDags,
    structure: &Structure,
) -> Result<(), StoreError> {
    // As in Airflow, a new DAG with a schedule starts paused.
    let is_manual = structure.schedule.is_none() || structure.timetable == Some(Timetable::PartitionedAtRuntime);
    let is_paused = structure.is_paused_upon_creation.unwrap_or(!is_manual);
    // If the file is the same as at an existing version, that version becomes the current one again.
    let save = "
        WITH new_version AS (
            INSERT INTO dag_version (dag_id, version_number, source_hash, structure, source, relative_fileloc, sources,
                                     environment)
            SELECT $1, 1 + coalesce(max(version_number), 0), $6, $7, $8, $4, $9, $10 FROM dag_version WHERE dag_id = $1
            ON CONFLICT (dag_id, source_hash) DO NOTHING RETURNING id)
        INSERT INTO dag (dag_id, is_paused, fileloc, relative_fileloc, last_parsed_at, last_parse_duration, current_version_id)
        VALUES ($1, $2, $3, $4, now(), $5, coalesce(
            (SELECT id FROM new_version), (SELECT id FROM dag_version WHERE dag_id = $1 AND source_hash = $6)))
        ON CONFLICT (dag_id) DO UPDATE
        SET is_active = true, fileloc = EXCLUDED.fileloc, relative_fileloc = EXCLUDED.relative_fileloc,
            last_parsed_at = now(), last_parse_duration = EXCLUDED.last_parse_duration,
            current_version_id = EXCLUDED.current_version_id";
    let hash = version_hash(file, parsed, structure);
    let (structure_json, sources) = (Json(structure), Json(&parsed.sources));
    let parameters: [&(dyn ToSql + Sync); 10] = [
        &structure.dag_id,
        &is_paused,
        &file.fileloc,
        &file.relative_fileloc,
        &file.duration,
        &hash,
        &structure_json,
        &parsed.source,
        &sources,
        &parsed.environment,
    ];
    transaction.execute(save, &parameters).await?;
    assets::save_references(transaction, structure).await?;
    watchers::save(transaction, structure).await
}

/// Hash of the file, its local modules and the resulting structure. The structure is included because a DAG file may
/// read other files: then its structure can change although its text does not.
fn version_hash(file: &ParsedFile, parsed: &ParsedDags, structure: &Structure) -> String {
    let mut hasher = Sha256::new();
    let mut sources: Vec<(&String, &Value)> = parsed.sources.iter().collect();
    sources.sort_by_key(|(path, _)| *path);
    let content = serde_json::json!([file.relative_fileloc, sources, structure]);
    hasher.update(content.to_string().as_bytes());
    // Empty without an environment, so that the hashes of versions from before environments existed stay the same.
    hasher.update(parsed.environment.as_deref().unwrap_or_default());
    hex::encode(hasher.finalize())
}

/// Saves an import error of a file or folder.
async fn save_error(transaction: &Transaction<'_>, fileloc: &str, text: &str) -> Result<(), StoreError> {
    let query = "INSERT INTO import_error (filename, stack_trace) VALUES ($1, $2)
                 ON CONFLICT (filename) DO UPDATE SET stack_trace = EXCLUDED.stack_trace, created_at = now()";
    // Replaces NUL characters, which Postgres text cannot store.
    transaction.execute(query, &[&fileloc, &text.replace('\0', "\u{fffd}")]).await?;
    Ok(())
}

/// Deactivates DAGs whose file no longer exists, keeping their history, and deletes stale import errors. `files` are
/// the existing files with their paths relative to the workspace: if the workspace has moved, as after a restore, a DAG
/// follows its file and stays active. `unreadable` are the files and folders that could not be read, with the reason:
/// their DAGs stay as they are, and the reason is saved as an import error.
pub async fn keep_only(
    transaction: &Transaction<'_>,
    files: &[(String, String)],
    unreadable: &[(String, String)],
) -> Result<(), StoreError> {
    let (files, relative): (Vec<&str>, Vec<&str>) =
        files.iter().map(|(file, relative)| (file.as_str(), relative.as_str())).unzip();
    let (locations, reasons): (Vec<&str>, Vec<&str>) =
        unreadable.iter().map(|(location, reason)| (location.as_str(), reason.as_str())).unzip();
    let is_inside = |column: &str| {
        format!(
            "EXISTS (SELECT FROM unnest($2::text[]) AS at (place) WHERE {column} = place OR starts_with({column}, place || '/'))"
        )
    };
    let follow_moved = format!(
        "UPDATE dag SET fileloc = here FROM unnest($1::text[], $3::text[]) AS found (here, relative)
         WHERE is_active AND relative_fileloc = relative AND fileloc <> ALL ($1) AND NOT {}",
        is_inside("fileloc")
    );
    transaction.execute(&follow_moved, &[&files, &locations, &relative]).await?;
    let deactivate = format!(
        "UPDATE dag SET is_active = false WHERE is_active AND fileloc <> ALL ($1) AND NOT {}",
        is_inside("fileloc")
    );
    let deactivated = transaction.execute(&deactivate, &[&files, &locations]).await?;
    let delete_errors =
        format!("DELETE FROM import_error WHERE filename <> ALL ($1) AND NOT {}", is_inside("filename"));
    let deleted_errors = transaction.execute(&delete_errors, &[&files, &locations]).await?;
    for (location, reason) in locations.iter().zip(&reasons) {
        save_error(transaction, location, reason).await?;
    }
    if deactivated > 0 {
        watchers::notify_agent(transaction).await?;
    }
    if deactivated + deleted_errors > 0 || !unreadable.is_empty() {
        events::notify(transaction, &Event::Dags).await?;
    }
    Ok(())
}

#[derive(Debug, Clone)]
pub struct ImportError {
    pub id: i64,
    pub filename: String,
    pub stack_trace: String,
    pub created_at: Timestamp,
}

fn read_error(row: &Row) -> ImportError {
    ImportError {
        id: row.get("id"),
        filename: row.get("filename"),
        stack_trace: row.get("stack_trace"),
        created_at: row.get("created_at"),
    }
}

pub async fn import_errors(
    client: &impl GenericClient,
    listing: Listing<ImportErrorField>,
) -> Result<ListPage<ImportError>, StoreError> {
    listing.fetch(client, &Source::new("*", "import_error"), read_error).await
}

pub async fn import_error(client: &impl GenericClient, id: i64) -> Result<ImportError, StoreError> {
    let row = client.query_opt("SELECT * FROM import_error WHERE id = $1", &[&id]).await?;
    row.as_ref().map(read_error).ok_or_else(|| StoreError::NotFound { what: "import error", id: id.to_string() })
}

/// Returns the number of a DAG version and the text of its file; `None` for `version_number` is the current version.
pub async fn source(
    client: &impl GenericClient,
    dag_id: &str,
    version_number: Option<i32>,
) -> Result<Option<(i32, String)>, StoreError> {
    let query = "SELECT v.version_number, v.source FROM dag_version v JOIN dag d USING (dag_id)
                 WHERE dag_id = $1 AND (v.version_number = $2 OR $2 IS NULL AND v.id = d.current_version_id)";
    let row = client.query_opt(query, &[&dag_id, &version_number]).await?;
    Ok(row.map(|row| (row.get("version_number"), row.get("source"))))
}

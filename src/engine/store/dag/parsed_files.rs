//! Saves what the parse of a DAG file has found, and deactivates the DAGs of removed files.

use super::import_errors::save_error;
use crate::model::dag::Structure;
use crate::model::dag_check;
use crate::schedule::timetable::Timetable;
use crate::store::Result;
use crate::store::asset::{assets, watchers};
use crate::store::events::{self, Event};
use crate::store::rows::{fetch_all, fetch_one};
use deadpool_postgres::Transaction;
use serde_json::{Map, Value};
use sha2::{Digest, Sha256};
use std::collections::HashMap;
use tokio_postgres::types::{Json, ToSql};

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

/// The result of saving a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Saved {
    /// True if another file already defines one of the DAGs. The DAG of the other file is kept.
    pub conflicts: bool,
    /// True if the file no longer defines a DAG that it defined before.
    pub released: bool,
}

/// Saves the result of parsing a file.
pub async fn save(transaction: &Transaction<'_>, file: &ParsedFile) -> Result<Saved> {
    let mut saved = Saved { conflicts: false, released: false };
    let mut error = None;
    let (mut saved_dag_ids, mut has_new_version) = (Vec::new(), false);
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
                        has_new_version |= save_dag(transaction, file, parsed, structure).await?;
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
    saved.released =
        fetch_one(transaction, settle, &[&file.fileloc, &saved_dag_ids, &file.result.is_ok(), &error.is_some()])
            .await?;
    if saved.released {
        watchers::notify_agent(transaction).await?;
    }
    events::notify(transaction, &Event::Dags).await?;
    if let Ok(parsed) = &file.result
        && has_new_version
    {
        events::notify(transaction, &Event::Prepare { environment: parsed.environment.clone() }).await?;
    }
    Ok(saved)
}

/// Returns the file that currently defines each of the DAGs. Also takes an advisory lock: a concurrent save of the same
/// file waits for this transaction and then reads the rows that it has written.
async fn owners(
    transaction: &Transaction<'_>,
    file: &ParsedFile,
    dags: &[Structure],
) -> Result<HashMap<String, String>> {
    let ids: Vec<&str> = dags.iter().map(|dag| dag.dag_id.as_str()).collect();
    let query = "SELECT d.dag_id, d.fileloc FROM (SELECT pg_advisory_xact_lock(hashtextextended($2, 0))) held
                 LEFT JOIN dag d ON d.dag_id = ANY ($1) AND d.is_active";
    let rows: Vec<(Option<String>, Option<String>)> = fetch_all(transaction, query, &[&ids, &file.fileloc]).await?;
    Ok(rows.into_iter().filter_map(|(dag_id, file)| dag_id.zip(file)).collect())
}

/// Saves a DAG and, if no version has this `version_hash`, a new version of it; returns whether it did.
async fn save_dag(
    transaction: &Transaction<'_>,
    file: &ParsedFile,
    parsed: &ParsedDags,
    structure: &Structure,
) -> Result<bool> {
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
            current_version_id = EXCLUDED.current_version_id
        RETURNING EXISTS (SELECT FROM new_version)";
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
    let has_new_version = fetch_one(transaction, save, &parameters).await?;
    assets::save_references(transaction, structure).await?;
    watchers::save(transaction, structure).await?;
    Ok(has_new_version)
}

/// Hash of the file, its path, its local modules, its environment and the resulting structure. The structure is
/// included because a DAG file may read other files: then its structure can change although its text does not.
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

/// Deactivates DAGs whose file no longer exists, keeping their history, and deletes stale import errors. `files` are
/// the existing files with their paths relative to the workspace: if the workspace has moved, as after a restore, a DAG
/// follows its file and stays active. `unreadable` are the files and folders that could not be read, with the reason:
/// their DAGs stay as they are, and the reason is saved as an import error.
pub async fn keep_only(
    transaction: &Transaction<'_>,
    files: &[(String, String)],
    unreadable: &[(String, String)],
) -> Result<()> {
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

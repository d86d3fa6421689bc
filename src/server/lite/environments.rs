//! Endpoints for the Python environments of projects, for this user's commands and for the agent.

use crate::app_state::Shared;
use crate::environments::upkeep::Renewal;
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use crate::http::request::Id;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use leoflow_base::sys::blocking;
use leoflow_engine::store::dag::environments as store;
use leoflow_python::environments::{self, Lock, Pruning};
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::Duration;

/// Lists the environments in the datastore, and those that DAG files require with their states.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let all = {
        let client = state.core.database.get().await?;
        store::all(&*client).await?
    };
    let home = state.core.home.clone();
    let find = move || {
        let with_folder =
            |environment: store::StoredEnvironment| (environments::find(&home, &environment.hash), environment);
        all.into_iter().map(with_folder).collect::<Vec<_>>()
    };
    let found = blocking::run(find).await?;
    let views: Vec<Value> = found
        .into_iter()
        .map(|(folder, stored)| {
            let packages = folder.as_deref().map_or_else(|| stored.lock.packages(), environments::installed);
            let packages: Vec<Value> =
                packages.into_iter().map(|(name, version)| json!({"name": name, "version": version})).collect();
            json!({
                "hash": stored.hash, "python": stored.lock.python, "requirements": stored.lock.declared.requirements,
                "packages": packages, "created_at": stored.created_at.to_string(), "dags": stored.dags,
                "files": stored.files, "lock": stored.lock.text, "folder": folder,
            })
        })
        .collect();
    Ok(Json(json!({"environments": views, "wanted": state.environments.required()})))
}

/// Builds an environment unless it exists, and waits for it. 503 when the server exits; the caller asks the next
/// server.
pub async fn build(State(state): Shared, Id(hash): Id) -> Result<Json<Value>, ApiError> {
    let mut shutting_down = state.core.changes.shutting_down.subscribe();
    tokio::select! {
        built = state.environments.with_hash(&hash) => Ok(Json(json!({"problem": built.err().map(|error| error.to_string())}))),
        _ = shutting_down.wait_for(|is_set| *is_set) => Err(ApiError::retry_later("The server is shutting down")),
    }
}

/// Returns the lock that was resolved for these inputs, or null.
pub async fn chosen(Datastore(client): Datastore, Id(inputs): Id) -> Result<Json<Option<Lock>>, ApiError> {
    Ok(Json(store::chosen(&*client, &inputs).await?))
}

#[derive(Deserialize)]
pub struct Update {
    /// A folder of the workspace; `None` for all projects.
    project: Option<String>,
    /// Keeps the versions and fetches their files again.
    #[serde(default)]
    reinstall: bool,
}

/// Resolves and installs the newest allowed packages, or the same ones again, and retries earlier failures.
pub async fn update(State(state): Shared, body: Result<Json<Update>, JsonRejection>) -> Result<Json<Value>, ApiError> {
    let Json(Update { project, reinstall }) = body?;
    let workspace = state.dag_code.workspace();
    let is_selected = |file: &Path| {
        let relative = workspace.and_then(|workspace| file.strip_prefix(workspace).ok()).unwrap_or(file);
        project.as_ref().is_none_or(|project| relative.starts_with(project))
    };
    let renewal = if reinstall { Renewal::Reinstall } else { Renewal::Resolve };
    let updated = state.environments.update(is_selected, renewal).await;
    let (changes, problems) = updated.map_err(|error| ApiError::conflict(error.to_string()))?;
    let lines: Vec<String> = changes.iter().flat_map(|(before, after)| differences(before, after)).collect();
    let reinstalled = if reinstall { changes.len() } else { 0 };
    Ok(Json(json!({"changes": lines, "problems": problems, "reinstalled": reinstalled})))
}

/// One line for each changed package, such as `name 1.0 -> 2.0`.
fn differences(before: &Lock, after: &Lock) -> Vec<String> {
    let (before, after): (BTreeMap<_, _>, BTreeMap<_, _>) =
        (before.packages().into_iter().collect(), after.packages().into_iter().collect());
    let names: BTreeSet<&String> = before.keys().chain(after.keys()).collect();
    let described = |name: &String| match (before.get(name), after.get(name)) {
        (Some(old), Some(new)) if old != new => Some(format!("{name} {old} -> {new}")),
        (None, Some(new)) => Some(format!("{name} {new} is new")),
        (Some(old), None) => Some(format!("{name} {old} is gone")),
        _ => None,
    };
    names.into_iter().filter_map(described).collect()
}

#[derive(Deserialize)]
pub struct PruneBody {
    dry_run: bool,
}

/// Removes, or in a dry run lists, built environments that no current DAG and no unfinished run uses. Removed ones can
/// be rebuilt. `locked` lists the unused Pythons that stay, because a Python is being installed; `uv_cache` is what uv says
/// about its cache, of which it removes unused files.
pub async fn prune(
    State(state): Shared,
    body: Result<Json<PruneBody>, JsonRejection>,
) -> Result<Json<Value>, ApiError> {
    let Json(PruneBody { dry_run }) = body?;
    let pruned = state
        .environments
        .prune(Duration::ZERO, if dry_run { Pruning::ListOnly } else { Pruning::Remove })
        .await
        .map_err(|error| ApiError::conflict(error.to_string()))?;
    Ok(Json(json!({"removed": pruned.removed, "locked": pruned.locked, "uv_cache": pruned.uv_cache})))
}

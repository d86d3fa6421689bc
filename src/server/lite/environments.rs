//! The environments of projects, for this user's own commands and for the agent.

use crate::engine::store::environments as store;
use crate::python::environments::{self, Lock};
use crate::server::api_error::ApiError;
use crate::server::body::bad_body;
use crate::server::request::Id;
use crate::server::state::AppState;
use crate::sys::blocking;
use axum::Json;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

type Shared = State<Arc<AppState>>;

/// Those that are kept, and those that are wanted and not there yet.
pub async fn list(State(state): Shared) -> Result<Json<Value>, ApiError> {
    let all = {
        let client = state.database.get().await?;
        store::all(&*client).await?
    };
    let home = state.home.clone();
    let look = move || all.into_iter().map(|one| (environments::find(&home, &one.hash), one)).collect::<Vec<_>>();
    let looked = blocking::run(look).await.map_err(|error| ApiError::internal(&error))?;
    let kept: Vec<Value> = looked
        .into_iter()
        .map(|(folder, one)| {
            let packages = folder.as_deref().map_or_else(|| one.lock.packages(), environments::installed);
            let packages: Vec<Value> = packages
                .into_iter()
                .map(|(name, version)| json!({"name": name, "version": version}))
                .collect();
            json!({
                "hash": one.hash, "python": one.lock.python, "requirements": one.lock.declared.requirements,
                "packages": packages, "created_at": one.created_at.to_string(), "dags": one.dags, "files": one.files, "lock": one.lock.text, "folder": folder,
            })
        })
        .collect();
    Ok(Json(json!({"environments": kept, "wanted": state.environments.wanted()})))
}

/// Has one built, unless it is there, and waits for it; not when the server leaves: the next one is asked then.
pub async fn build(State(state): Shared, Id(hash): Id) -> Result<Json<Value>, ApiError> {
    let mut leaving = state.changes.leaving.subscribe();
    tokio::select! {
        made = state.environments.with_hash(&hash) => Ok(Json(json!({"problem": made.err()}))),
        _ = leaving.wait_for(|leaving| *leaving) => Err(ApiError::unavailable(&"the server leaves")),
    }
}

/// The lock that was chosen for these inputs, or null.
pub async fn chosen(State(state): Shared, Id(inputs): Id) -> Result<Json<Option<Lock>>, ApiError> {
    let client = state.database.get().await?;
    Ok(Json(store::chosen(&*client, &inputs).await?))
}

#[derive(Deserialize)]
pub struct Update {
    /// A folder of the workspace; all when none is named.
    project: Option<String>,
}

/// Works out anew what is installed, and installs it. What failed before is tried again.
pub async fn update(State(state): Shared, body: Result<Json<Update>, JsonRejection>) -> Result<Json<Value>, ApiError> {
    let Json(Update { project }) = body.map_err(bad_body)?;
    let is_meant = |file: &Path| project.as_deref().is_none_or(|project| file.iter().any(|part| part == project));
    let done = state.environments.update(is_meant).await;
    let (changes, problems) = done.map_err(|reason| ApiError::new(StatusCode::CONFLICT, reason))?;
    let lines: Vec<String> = changes.iter().flat_map(|(before, after)| differences(before, after)).collect();
    Ok(Json(json!({"changes": lines, "problems": problems})))
}

/// `name 1.0 -> 2.0`, a line for each package that is not as it was.
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
pub struct Prune {
    dry_run: bool,
}

/// Removes what is built and not used by any DAG as it is now, nor by a run that is under way. It can be built again.
pub async fn prune(State(state): Shared, body: Result<Json<Prune>, JsonRejection>) -> Result<Json<Value>, ApiError> {
    let Json(Prune { dry_run }) = body.map_err(bad_body)?;
    let removed = state
        .environments
        .prune(Duration::ZERO, dry_run)
        .await
        .map_err(|reason| ApiError::new(StatusCode::CONFLICT, reason))?;
    Ok(Json(json!({"removed": removed})))
}

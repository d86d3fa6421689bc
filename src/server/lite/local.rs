//! Endpoints for this user's commands and tasks, over the Unix socket: variables and connections with their secrets,
//! exports, imports in one transaction, and checks.

use crate::app_state::{AppState, Shared};
use crate::dag_code::providers::ConnectionTest;
use crate::environments;
use crate::http::api_error::ApiError;
use crate::http::request::Id;
use axum::Json;
use axum::body::Bytes;
use axum::extract::State;
use axum::extract::rejection::JsonRejection;
use axum::http::StatusCode;
use leoflow_base::sys::blocking;
use leoflow_engine::store::dag::dag_facts::{self, UnknownPool};
use leoflow_engine::store::dag::import_errors;
use leoflow_engine::store::list::listing::Listing;
use leoflow_engine::store::secret::connections::{self, Connection};
use leoflow_engine::store::secret::variables::{self, Variable};
use leoflow_engine::store::{OnExisting, ReadFor};
use leoflow_python::{environments as python_environments, settings_without_effect};
use serde::{Deserialize, Serialize};
use std::collections::HashSet;
use std::path::{Path, PathBuf};

type Body<T> = Result<Json<Import<T>>, JsonRejection>;

#[derive(Deserialize)]
pub struct Import<T> {
    on_existing: OnExisting,
    entries: Vec<T>,
}

#[derive(Serialize)]
pub struct Imported {
    imported: usize,
    skipped: usize,
}

/// Reports whether a session token is valid.
pub async fn check_session(State(state): Shared, Json(session): Json<Session>) -> Json<serde_json::Value> {
    Json(serde_json::json!({"valid": state.auth.check_token(&session.token).is_some()}))
}

#[derive(Deserialize)]
pub struct Session {
    token: String,
}

/// Returns the Python that runs DAGs, independent of the caller's `PATH`, the environments that failed to build, those
/// whose DAG files cannot be imported, the pools that DAGs name but that do not exist, the DAGs whose schedule makes no
/// progress, and the settings of Airflow without effect.
pub async fn python(State(state): Shared) -> Json<serde_json::Value> {
    let interpreter = state.environments.interpreter.get().await;
    let required = state.environments.required();
    let failed: Vec<&environments::RequiredEnvironment> =
        required.iter().filter(|environment| environment.state == "failed").collect();
    let program = interpreter.ok().map(|interpreter| interpreter.program);
    // An unavailable datastore is reported by other checks.
    let unknown_pools = unknown_pools(&state).await.unwrap_or_default();
    let stalled = stalled_schedules(&state).await.unwrap_or_default();
    let suspect = suspect_environments(&state, &required).await.unwrap_or_default();
    let (home, workspace) = (state.core.home.clone(), state.dag_code.workspace().map(Path::to_owned));
    // `null` if they could not be read.
    let without_effect = blocking::run(move || settings_without_effect(&home, workspace.as_deref()).ok()).await.ok();
    Json(serde_json::json!({
        "python": program, "failed": failed, "unknown_pools": unknown_pools, "suspect": suspect,
        "stalled_schedules": stalled, "without_effect": without_effect,
    }))
}

/// A built environment whose DAG files have import errors, which a damaged file of a package may cause.
#[derive(Serialize)]
struct SuspectEnvironment {
    folder: PathBuf,
    /// DAG files with import errors, relative to the workspace.
    files: Vec<PathBuf>,
}

async fn suspect_environments(
    state: &AppState,
    required: &[environments::RequiredEnvironment],
) -> Result<Vec<SuspectEnvironment>, ApiError> {
    let errors = import_errors::list(&*state.core.database.get().await?, Listing::default()).await?;
    let failing: HashSet<PathBuf> = errors.rows.into_iter().map(|error| PathBuf::from(error.filename)).collect();
    let workspace = state.dag_code.workspace();
    let relative =
        |file: &PathBuf| workspace.and_then(|workspace| file.strip_prefix(workspace).ok()).unwrap_or(file).to_owned();
    let suspect = required.iter().filter_map(|environment| {
        let files: Vec<PathBuf> =
            environment.files.iter().filter(|file| failing.contains(*file)).map(relative).collect();
        let folder = python_environments::find(&state.core.home, environment.hash.as_deref()?)?;
        (!files.is_empty()).then_some(SuspectEnvironment { folder, files })
    });
    Ok(suspect.collect())
}

async fn unknown_pools(state: &AppState) -> Result<Vec<UnknownPool>, ApiError> {
    Ok(dag_facts::unknown_pools(&*state.core.database.get().await?, None).await?)
}

async fn stalled_schedules(state: &AppState) -> Result<Vec<String>, ApiError> {
    Ok(dag_facts::stalled_schedules(&*state.core.database.get().await?, None).await?)
}

pub async fn get_variable(State(state): Shared, Id(key): Id) -> Result<Json<Variable>, ApiError> {
    let client = state.core.database.get().await?;
    Ok(Json(variables::get(&*client, &state.core.cipher, &key, ReadFor::Reading).await?))
}

pub async fn get_connection(State(state): Shared, Id(id): Id) -> Result<Json<Connection>, ApiError> {
    let client = state.core.database.get().await?;
    Ok(Json(connections::get(&*client, &state.core.cipher, &id, ReadFor::Reading).await?))
}

pub async fn test_connection(State(state): Shared, Id(id): Id) -> Result<Json<ConnectionTest>, ApiError> {
    let client = state.core.database.get().await?;
    let connection = connections::get(&*client, &state.core.cipher, &id, ReadFor::Reading).await?;
    drop(client);
    let result = state.dag_code.test_connection(&connection).await;
    result.map(Json).map_err(|error| ApiError::new(StatusCode::BAD_GATEWAY, error.to_string()))
}

pub async fn export_variables(State(state): Shared) -> Result<Json<Vec<Variable>>, ApiError> {
    let client = state.core.database.get().await?;
    Ok(Json(variables::list(&*client, &state.core.cipher, Listing::default()).await?.rows))
}

pub async fn export_connections(State(state): Shared) -> Result<Json<Vec<Connection>>, ApiError> {
    let client = state.core.database.get().await?;
    Ok(Json(connections::list(&*client, &state.core.cipher, Listing::default()).await?.rows))
}

/// Parses the body on another thread, because it may be large.
pub async fn import_variables(State(state): Shared, body: Bytes) -> Result<Json<Imported>, ApiError> {
    let read = blocking::run(move || serde_json::from_slice::<Import<Variable>>(&body));
    let import = match read.await {
        Ok(read) => read.map_err(|error| ApiError::unprocessable(&["body"], "value_error", error.to_string()))?,
        Err(error) => return Err(ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, error.to_string())),
    };
    let total = import.entries.len();
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let imported = variables::import(&transaction, &state.core.cipher, import.entries, import.on_existing).await?;
    transaction.commit().await?;
    Ok(Json(Imported { imported, skipped: total - imported }))
}

pub async fn import_connections(State(state): Shared, body: Body<Connection>) -> Result<Json<Imported>, ApiError> {
    let Json(import) = body?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let mut imported = 0;
    for entry in &import.entries {
        let is_written = connections::import(&transaction, &state.core.cipher, entry, import.on_existing).await?;
        imported += usize::from(is_written);
    }
    transaction.commit().await?;
    Ok(Json(Imported { imported, skipped: import.entries.len() - imported }))
}

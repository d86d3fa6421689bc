//! Lets a command wait until the server has imported the current content of a DAG's file. Without this, a run that is
//! triggered right after a save could use the previous version unnoticed.

use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::request::Params;
use axum::Json;
use axum::extract::State;
use leoflow_engine::store::StoreError;
use leoflow_engine::store::dag::{dags, import_errors};
use leoflow_engine::store::list::listing::Listing;
use serde_json::{Value, json};
use std::path::{Path, PathBuf};
use std::time::Duration;

/// Longest wait for the imports.
const WAIT_LIMIT: Duration = Duration::from_secs(10);

/// `POST /local/dag-refresh?dag_id=ID`, or `?folder=PATH` for all DAG files below a folder. The state in the answer is
/// `current`, `importing` (the imports take longer than [`WAIT_LIMIT`]), `building` (a file waits for its environment),
/// `failed` (the file fails to import) or `unknown` (no file defines the DAG). A folder has none of the last two.
pub async fn refresh(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    if let Some(folder) = params.text("folder") {
        let refresh = state.dag_files.parse_requests.refresh(Some(folder.into()));
        let refreshed = tokio::time::timeout(WAIT_LIMIT, refresh).await;
        let name = match refreshed {
            Err(_) => "importing",
            Ok(building) if building.iter().any(|file| file.starts_with(folder)) => "building",
            Ok(_) => "current",
        };
        return Ok(Json(json!({"state": name})));
    }
    let dag_id = params.text("dag_id").unwrap_or_default().to_owned();
    let file = file_of(&state, &dag_id).await?;
    let refresh = async {
        let building = state.dag_files.parse_requests.refresh(file.clone()).await;
        let current_file = file_of(&state, &dag_id).await?;
        if file.is_none() || current_file == file {
            return Ok::<_, ApiError>((current_file, building));
        }
        // The DAG has moved to another file, or to one that is not imported yet.
        let building = state.dag_files.parse_requests.refresh(current_file).await;
        Ok((file_of(&state, &dag_id).await?, building))
    };
    let Ok(refreshed) = tokio::time::timeout(WAIT_LIMIT, refresh).await else {
        return Ok(Json(json!({"state": "importing", "file": file_of(&state, &dag_id).await?})));
    };
    let (file, building) = refreshed?;
    let Some(file) = file else {
        let errors = import_errors::list(&*state.core.database.get().await?, Listing::default()).await?.rows;
        return Ok(Json(json!({"state": "unknown", "building": building, "failed": errors.len()})));
    };
    let name = if building.contains(&file) {
        "building"
    } else if has_import_error(&state, &file).await? {
        "failed"
    } else {
        "current"
    };
    Ok(Json(json!({"state": name, "file": file})))
}

/// Returns the file of an active DAG; `None` if there is no such DAG.
async fn file_of(state: &AppState, dag_id: &str) -> Result<Option<PathBuf>, ApiError> {
    match dags::get(&*state.core.database.get().await?, dag_id).await {
        Ok(dag) => Ok(Some(PathBuf::from(&dag.fileloc)).filter(|_| dag.is_active)),
        Err(StoreError::NotFound { .. }) => Ok(None),
        Err(error) => Err(error.into()),
    }
}

async fn has_import_error(state: &AppState, file: &Path) -> Result<bool, ApiError> {
    let errors = import_errors::list(&*state.core.database.get().await?, Listing::default()).await?.rows;
    Ok(errors.iter().any(|error| Path::new(&error.filename) == file))
}

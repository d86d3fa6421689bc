//! Chooses the DAG version of a rerun: of a cleared run, a run that a backfill reruns, or a triggered run that is
//! reset. The request decides, else the DAG, else the setting `[core] rerun_with_latest_version`, else the operation's
//! default.

use crate::api::prelude::*;
use leoflow_base::sys::blocking;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::run::version_choice::VersionChoice;
use std::path::PathBuf;

/// Airflow's `[core] rerun_with_latest_version`, in the environment of the server or in a `.env`.
const SETTING: &str = "AIRFLOW__CORE__RERUN_WITH_LATEST_VERSION";

/// Reads the setting that applies to the DAG file at `relative_fileloc` in the workspace, or without a path to the
/// instance. 500 if the value is not a boolean.
pub async fn setting(state: &AppState, relative_fileloc: Option<&str>) -> ApiResult<Option<bool>> {
    let workspace = state.dag_code.workspace().map(ToOwned::to_owned);
    let folders: Vec<PathBuf> = match (workspace, relative_fileloc) {
        (Some(workspace), Some(path)) => leoflow_python::folders(&workspace, &workspace.join(path)),
        (Some(workspace), None) => vec![workspace],
        (None, _) => Vec::new(),
    };
    let invalid = |text: String| ApiError::new(StatusCode::INTERNAL_SERVER_ERROR, text);
    blocking::run(move || leoflow_python::flag(&folders, SETTING).map_err(|error| error.to_string()))
        .await
        .map_err(|error| invalid(error.to_string()))?
        .map_err(invalid)
}

/// Chooses the version for a rerun of a run of `dag`. `requested` is the request's value.
pub async fn of_dag(
    state: &AppState,
    dag: &Dag,
    requested: Option<bool>,
    default: VersionChoice,
) -> ApiResult<VersionChoice> {
    let setting = setting(state, Some(&dag.relative_fileloc)).await?;
    Ok(VersionChoice::resolve(requested, &dag.structure, setting, default))
}

/// Like [`of_dag`], for clearing, whose default is the run's own version.
pub async fn of_clear(
    state: &AppState,
    client: &impl GenericClient,
    dag_id: &str,
    requested: Option<bool>,
) -> ApiResult<VersionChoice> {
    of_dag(state, &dags::get(client, dag_id).await?, requested, VersionChoice::Own).await
}

//! Runs a trial task for the smoke test of `leoflow smoke` and of upgrades: an empty task that runs like any other,
//! through the scheduler, the agent and Python. Its DAG, run and logs are deleted afterwards.

use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use leoflow_base::sys::fs::files;
use leoflow_engine::model::dag::{DEFAULT_POOL, Structure};
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::model::state::RunState;
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::dag::parsed_files::{self, ParsedDags, ParsedFile};
use leoflow_engine::store::instance::tries;
use leoflow_engine::store::pools;
use leoflow_engine::store::run::runs::{self, Run, Trigger};
use leoflow_engine::store::{ReadFor, StoreError};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::time::Instant;

const DAG_ID: &str = "leoflow_trial_task";
/// Files that begin with a dot are never parsed.
const FILE: &str = ".leoflow_trial_task.py";
const SOURCE: &str = "from airflow.sdk import DAG, task\n\nwith DAG(\"leoflow_trial_task\"):\n\n    @task\n    def trial():\n        return 1\n\n    trial()\n";
/// How long the run may take; shorter than the timeout of the request.
const RUN_TIMEOUT: Duration = Duration::from_secs(20);
const REMOVAL_TIMEOUT: Duration = Duration::from_secs(5);
const POLL_INTERVAL: Duration = Duration::from_millis(20);

/// One trial task runs at a time, because all use the same DAG id.
static RUNNING: Mutex<()> = Mutex::const_new(());

pub async fn run(State(state): Shared) -> Result<Json<Value>, ApiError> {
    // A missing Python is no fault of this release.
    if let Err(missing) = state.environments.interpreter.get().await {
        return Ok(Json(json!({"state": "skipped", "reason": missing.reason})));
    }
    if let Some(reason) = no_free_slot(&state).await? {
        return Ok(Json(json!({"state": "skipped", "reason": reason})));
    }
    // In its own task, so that it cleans up even if the client disconnects.
    let trial = tokio::task::spawn_local(async move { run_alone(&state).await });
    trial.await.map_err(|error| ApiError::retry_later(&format!("The trial task failed: {error}")))?
}

async fn run_alone(state: &AppState) -> Result<Json<Value>, ApiError> {
    let _guard = RUNNING.lock().await;
    remove(state).await?;
    let outcome = run_once(state).await;
    let removed = remove(state).await;
    let run = outcome?;
    removed?;
    if matches!(run.state, RunState::Queued | RunState::Running)
        && let Some(reason) = no_free_slot(state).await?
    {
        // The trial task was queued behind other tasks.
        return Ok(Json(json!({"state": "skipped", "reason": reason})));
    }
    match run.state {
        RunState::Success => Ok(Json(json!({"state": "success"}))),
        other => {
            let detail = format!("the trial task is {other}; see leoflow lite logs agent");
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// Returns why no task can start now, if the reason has nothing to do with this release.
async fn no_free_slot(state: &AppState) -> Result<Option<&'static str>, ApiError> {
    let client = state.core.database.get().await?;
    if tries::count_running(&*client).await? >= tries::SLOTS {
        return Ok(Some("the limit of concurrent tasks is reached"));
    }
    let pool = pools::get(&*client, DEFAULT_POOL).await?;
    // Queued tasks do not count: they may wait for an agent that claims nothing.
    let is_full = pool.slots >= 0 && pool.running >= i64::from(pool.slots);
    Ok(is_full.then_some("the default pool has no free slot"))
}

async fn run_once(state: &AppState) -> Result<Run, ApiError> {
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    parsed_files::save(&transaction, &file()).await?;
    let trigger = Trigger { triggered_by: "operator", user: state.auth.admin_email(), ..Trigger::default() };
    let run = runs::trigger(&transaction, DAG_ID, &trigger).await?;
    transaction.commit().await?;
    let key = RunKey { dag_id: DAG_ID.to_owned(), run_id: run.key.run_id };
    let deadline = Instant::now() + RUN_TIMEOUT;
    loop {
        let run = runs::get(&*client, &key, ReadFor::Reading).await?;
        if matches!(run.state, RunState::Success | RunState::Failed) || Instant::now() >= deadline {
            return Ok(run);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

fn file() -> ParsedFile {
    let structure = json!({
        "dag_id": DAG_ID,
        "tasks": [{"task_id": "trial", "operator": "_PythonDecoratedOperator", "operator_name": "@task"}],
    });
    let sources = json!({FILE: SOURCE});
    ParsedFile {
        fileloc: FILE.to_owned(),
        relative_fileloc: FILE.to_owned(),
        duration: 0.0,
        result: match (serde_json::from_value::<Structure>(structure), sources) {
            (Ok(structure), Value::Object(sources)) => {
                Ok(ParsedDags { dags: vec![structure], source: SOURCE.to_owned(), sources, environment: None })
            }
            _ => Err("the trial task is not a valid DAG".to_owned()),
        },
    }
}

/// Deletes the trial task, also one left by a killed server. Waits for a task that still runs.
async fn remove(state: &AppState) -> Result<(), ApiError> {
    let deadline = Instant::now() + REMOVAL_TIMEOUT;
    loop {
        let mut client = state.core.database.get().await?;
        let transaction = client.transaction().await?;
        match dags::delete(&transaction, DAG_ID).await {
            Ok(()) => {
                transaction.commit().await?;
                break;
            }
            Err(StoreError::NotFound { .. }) => break,
            Err(StoreError::Busy(_)) if Instant::now() < deadline => tokio::time::sleep(POLL_INTERVAL).await,
            Err(error) => return Err(error.into()),
        }
    }
    // A log that remains is harmless.
    let _ = files::remove_any(&state.core.home.task_logs().join(DAG_ID));
    Ok(())
}

//! A task that does nothing, run like any other: by the scheduler, the agent and Python. Nothing of it is
//! left. `leoflow smoke` asks for it.

use crate::engine::dag::{DEFAULT_POOL, Structure};
use crate::engine::keys::RunKey;
use crate::engine::state::RunState;
use crate::engine::store::dags::{self, ParsedDags, ParsedFile};
use crate::engine::store::runs::{self, Run, Trigger};
use crate::engine::store::{ReadFor, StoreError};
use crate::engine::store::{pools, tries};
use crate::server::api_error::ApiError;
use crate::server::state::AppState;
use crate::sys::files;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde_json::{Map, Value, json};
use std::sync::Arc;
use std::time::Duration;
use tokio::time::Instant;

const DAG_ID: &str = "leoflow_trial_task";
/// No file of this name is ever parsed, as it begins with a dot.
const FILE: &str = ".leoflow_trial_task.py";
const SOURCE: &str = "from airflow.sdk import DAG, task\n\nwith DAG(\"leoflow_trial_task\"):\n\n    @task\n    def trial():\n        return 1\n\n    trial()\n";
/// The whole of it is shorter than anybody waits.
const PATIENCE: Duration = Duration::from_secs(20);
const REMOVAL: Duration = Duration::from_secs(5);
const PAUSE: Duration = Duration::from_millis(20);

pub async fn run(State(state): State<Arc<AppState>>) -> Result<Json<Value>, ApiError> {
    // Without a Python no task runs, whatever the release.
    if let Err(missing) = state.interpreter.get().await {
        return Ok(Json(json!({"state": "skipped", "reason": missing.reason})));
    }
    if let Some(reason) = no_room(&state).await? {
        return Ok(Json(json!({"state": "skipped", "reason": reason})));
    }
    // In a task of its own: it cleans up also when whoever asked has left.
    let work = tokio::task::spawn_local(async move { alone(&state).await });
    work.await.map_err(|error| ApiError::unavailable(&error))?
}

async fn alone(state: &AppState) -> Result<Json<Value>, ApiError> {
    // One at a time: it has one name.
    let _alone = state.trial_task.lock().await;
    remove(state).await?;
    let outcome = run_once(state).await;
    let removed = remove(state).await;
    let run = outcome?;
    removed?;
    if matches!(run.state, RunState::Queued | RunState::Running)
        && let Some(reason) = no_room(state).await?
    {
        // It waits behind other tasks.
        return Ok(Json(json!({"state": "skipped", "reason": reason})));
    }
    match run.state {
        RunState::Success => Ok(Json(json!({"state": "success"}))),
        other => {
            let detail = format!("the trial task is {other}; leoflow lite logs agent");
            Err(ApiError::new(StatusCode::SERVICE_UNAVAILABLE, detail))
        }
    }
}

/// Why a task has to wait now, whatever the release.
async fn no_room(state: &AppState) -> Result<Option<&'static str>, ApiError> {
    let client = state.database.get().await?;
    if tries::count_running(&*client).await? >= tries::SLOTS {
        return Ok(Some("as many tasks run as ever run at once"));
    }
    let pool = pools::get(&*client, DEFAULT_POOL).await?;
    // What is only queued may wait for an agent that claims nothing.
    let is_full = pool.slots >= 0 && pool.running >= i64::from(pool.slots);
    Ok(is_full.then_some("the default pool has no free slot"))
}

async fn run_once(state: &AppState) -> Result<Run, ApiError> {
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    dags::save_file(&transaction, &file()).await?;
    let run = runs::trigger(&transaction, DAG_ID, &by_hand(state)).await?;
    transaction.commit().await?;
    let key = RunKey { dag_id: DAG_ID.to_owned(), run_id: run.key.run_id };
    let deadline = Instant::now() + PATIENCE;
    loop {
        let run = runs::get(&*client, &key, ReadFor::Reading).await?;
        if matches!(run.state, RunState::Success | RunState::Failed) || Instant::now() >= deadline {
            return Ok(run);
        }
        tokio::time::sleep(PAUSE).await;
    }
}

fn by_hand(state: &AppState) -> Trigger {
    Trigger {
        run_id: None,
        logical_date: None,
        data_interval: None,
        run_after: None,
        conf: Map::new(),
        note: None,
        triggered_by: "operator",
        run_type: None,
        partition_key: None,
        user: state.secrets().admin_email.clone(),
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
            _ => Err("the trial task is not described as a DAG".to_owned()),
        },
    }
}

/// Also what one has left that was killed. A task that still runs is waited for.
async fn remove(state: &AppState) -> Result<(), ApiError> {
    let deadline = Instant::now() + REMOVAL;
    loop {
        let mut client = state.database.get().await?;
        let transaction = client.transaction().await?;
        match dags::delete(&transaction, DAG_ID).await {
            Ok(()) => {
                transaction.commit().await?;
                break;
            }
            Err(StoreError::NotFound { .. }) => break,
            Err(StoreError::Busy(_)) if Instant::now() < deadline => tokio::time::sleep(PAUSE).await,
            Err(error) => return Err(error.into()),
        }
    }
    // A log that stays is in nobody's way.
    let _ = files::remove_any(&state.home.task_logs().join(DAG_ID));
    Ok(())
}

//! `…/dependencies`: what a task instance that has not begun waits for.

use super::task_instances::{AtIndex, missing};
use crate::engine::keys::RunKey;
use crate::engine::state::{RunState, TaskState};
use crate::engine::store::instances::{self, Instance, NOT_MAPPED};
use crate::engine::store::listing::Listing;
use crate::engine::store::runs::Run;
use crate::engine::store::tries::SLOTS;
use crate::engine::store::{ReadFor, StoreError, dags, pools, runs, versions};
use crate::postgres::GenericClient;
use crate::server::api_error::ApiError;
use crate::server::query::Asked;
use crate::server::request::Segments;
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use schemars::JsonSchema;
use serde::Serialize;
use serde_json::json;
use std::collections::BTreeMap;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

#[derive(Serialize, JsonSchema)]
struct TaskDependencyResponse {
    name: &'static str,
    reason: String,
}

#[derive(Serialize, JsonSchema)]
pub struct TaskDependencyCollectionResponse {
    dependencies: Vec<TaskDependencyResponse>,
}

type Answer = Result<Json<TaskDependencyCollectionResponse>, ApiError>;

fn dependency(name: &'static str, reason: String) -> TaskDependencyResponse {
    TaskDependencyResponse { name, reason }
}

/// By the names that Airflow has for them, in the order of these.
async fn waits_for(
    client: &impl GenericClient,
    run: &Run,
    instance: &Instance,
) -> Result<Vec<TaskDependencyResponse>, StoreError> {
    let mut found = Vec::new();
    let dag = dags::get(client, &run.key.dag_id).await?;
    if dag.is_paused {
        found.push(dependency("Dag Not Paused", "Task's DAG is paused.".to_owned()));
    }
    if run.state != RunState::Running {
        let reason = format!("The run is not in the state 'running' but in the state '{}'.", run.state);
        found.push(dependency("Dagrun Running", reason));
    }
    if instance.state.as_deref() == Some("scheduled") {
        let pool = match pools::get(client, &instance.pool).await {
            Ok(pool) => Some(pool),
            Err(StoreError::NotFound { .. }) => None,
            Err(error) => return Err(error),
        };
        let open = pool.map_or(0, |pool| if pool.slots < 0 { i64::MAX } else { pool.open() });
        if open < i64::from(instance.pool_slots) {
            let (pool, takes) = (&instance.pool, instance.pool_slots);
            let reason = format!("Pool '{pool}' has {open} open slots, and the task takes {takes}.");
            found.push(dependency("Pool Slots Available", reason));
        } else if run.state == RunState::Running && !dag.is_paused {
            let reason = format!(
                "As many tasks run as may at once: {SLOTS} of all DAGs, {} of a run of this one, or fewer of this task.",
                dag.structure.max_active_tasks
            );
            found.push(dependency("Task Concurrency", reason));
        }
        return Ok(found);
    }
    // With the arrows that the run was begun with.
    let structure = match run.version_id {
        Some(id) => versions::version(client, id).await?.structure,
        None => dag.into_structure(),
    };
    let Some(task) = structure.tasks.iter().find(|task| task.task_id == instance.task_id) else { return Ok(found) };
    let mut above = Listing::default();
    above.conditions.add_run(&run.key);
    above.conditions.with("ti.task_id = ANY ({})", task.upstream.clone());
    let mut unfinished: BTreeMap<String, String> = BTreeMap::new();
    for one in instances::list(client, above).await?.rows {
        let state = one.state.as_deref().unwrap_or("none");
        if !TaskState::parse(state).is_some_and(TaskState::is_finished) {
            unfinished.insert(one.task_id, state.to_owned());
        }
    }
    if !unfinished.is_empty() {
        let all: Vec<String> = unfinished.iter().map(|(id, state)| format!("{id} ({state})")).collect();
        let reason = format!(
            "The trigger rule '{}' waits for upstream tasks that are not done: {}.",
            json!(task.trigger_rule).as_str().unwrap_or_default(),
            all.join(", ")
        );
        found.push(dependency("Trigger Rule", reason));
    }
    Ok(found)
}

async fn answer(state: &AppState, key: RunKey, task_id: &str, map_index: i32) -> Answer {
    let client = state.database.get().await?;
    let absent = |error| match error {
        StoreError::NotFound { .. } => missing(&key, task_id, Some(map_index)),
        other => other.into(),
    };
    let instance = instances::get(&*client, &key, task_id, map_index).await.map_err(absent)?;
    let dependencies = match instance.state.as_deref() {
        None | Some("scheduled") => {
            let run = runs::get(&*client, &key, ReadFor::Reading).await.map_err(absent)?;
            waits_for(&*client, &run, &instance).await?
        }
        Some(_) => Vec::new(),
    };
    Ok(Json(TaskDependencyCollectionResponse { dependencies }))
}

pub async fn get(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): Segments<(String, String, String)>,
    params: Asked<AtIndex>,
) -> Answer {
    let map_index = params.map_index()?.unwrap_or(NOT_MAPPED);
    answer(&state, RunKey { dag_id, run_id }, &task_id, map_index).await
}

pub async fn get_mapped(
    State(state): Shared,
    Segments((dag_id, run_id, task_id, map_index)): Segments<(String, String, String, i32)>,
) -> Answer {
    answer(&state, RunKey { dag_id, run_id }, &task_id, map_index).await
}

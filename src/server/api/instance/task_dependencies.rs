//! `…/dependencies`: the unmet dependencies of a task instance that has not started.

use super::task_instances::{MapIndexQuery, instance_not_found};
use crate::api::instance_path::{MappedInstance, instance_key_from_query};
use crate::api::prelude::*;
use leoflow_engine::model::dag::Task;
use leoflow_engine::planner::graph::Graph;
use leoflow_engine::scheduler::past;
use leoflow_engine::store::dag::dags::{self, Dag};
use leoflow_engine::store::dag::versions;
use leoflow_engine::store::instance::instances::{self, Instance, InstanceFilter};
use leoflow_engine::store::instance::tries::SLOTS;
use leoflow_engine::store::pools;
use leoflow_engine::store::run::new_run::isoformat;
use leoflow_engine::store::run::runs::{self, Run};
use std::collections::BTreeMap;

#[derive(Serialize, JsonSchema)]
struct TaskDependencyResponse {
    name: &'static str,
    reason: String,
}

#[derive(Serialize, JsonSchema)]
pub struct TaskDependencyCollectionResponse {
    dependencies: Vec<TaskDependencyResponse>,
}

type DependencyResult = JsonResult<TaskDependencyCollectionResponse>;

fn dependency(name: &'static str, reason: String) -> TaskDependencyResponse {
    TaskDependencyResponse { name, reason }
}

/// Returns the unmet dependencies, with Airflow's names for them.
async fn unmet_dependencies(
    client: &impl GenericClient,
    run: &Run,
    instance: &Instance,
) -> Result<Vec<TaskDependencyResponse>, StoreError> {
    let mut unmet = Vec::new();
    let dag = dags::get(client, &run.key.dag_id).await?;
    if dag.is_paused {
        unmet.push(dependency("Dag Not Paused", "Task's DAG is paused.".to_owned()));
    }
    let now = Timestamp::now();
    if let Some(date) = run.logical_date.filter(|date| *date > now) {
        let reason =
            format!("Logical date {} is in the future (the current date is {}).", isoformat(date), isoformat(now));
        unmet.push(dependency("Logical Date", reason));
    }
    if run.state != RunState::Running {
        let reason = format!("The run is not in the state 'running' but in the state '{}'.", run.state);
        unmet.push(dependency("Dagrun Running", reason));
    }
    if instance.state == Some(TaskState::Scheduled) {
        unmet.extend(unmet_capacity(client, run, instance, &dag).await?);
    } else {
        // The structure of the version that the run started with.
        let structure = match run.version_id {
            Some(id) => versions::version(client, id).await?.structure,
            None => dag.into_structure(),
        };
        let graph = Graph::new(structure);
        if let Some(index) = graph.task_index(&instance.key.task_id) {
            unmet.extend(unmet_past(client, run, &graph, index).await?);
            unmet.extend(unmet_trigger_rule(client, run, graph.task(index)).await?);
        }
    }
    Ok(unmet)
}

/// Returns why a scheduled instance does not start: its pool is full or a concurrency limit is reached.
async fn unmet_capacity(
    client: &impl GenericClient,
    run: &Run,
    instance: &Instance,
    dag: &Dag,
) -> Result<Option<TaskDependencyResponse>, StoreError> {
    let pool = match pools::get(client, &instance.pool).await {
        Ok(pool) => Some(pool),
        Err(StoreError::NotFound { .. }) => None,
        Err(error) => return Err(error),
    };
    let open = pool.map_or(0, |pool| if pool.slots < 0 { i64::MAX } else { pool.open() });
    if open < i64::from(instance.pool_slots) {
        let (pool, needed) = (&instance.pool, instance.pool_slots);
        let reason = format!("Pool '{pool}' has {open} open slots, but the task needs {needed}.");
        return Ok(Some(dependency("Pool Slots Available", reason)));
    }
    if run.state != RunState::Running || dag.is_paused {
        return Ok(None);
    }
    let reason = format!(
        "The limit of concurrent tasks is reached: {SLOTS} in total, {} per run of this DAG, or this task's own.",
        dag.structure.max_active_tasks
    );
    Ok(Some(dependency("Task Concurrency", reason)))
}

/// Returns the previous run that the task waits for by `depends_on_past` or `wait_for_downstream`.
async fn unmet_past(
    client: &impl GenericClient,
    run: &Run,
    graph: &Graph,
    task_index: usize,
) -> Result<Option<TaskDependencyResponse>, StoreError> {
    let held = past::held_by_past(client, &run.key, graph, run.logical_date).await?;
    let previous = held.previous_run.filter(|_| held.tasks.contains(&task_index));
    let reason = |id| format!("The task waits for its success in the previous run {id} (depends_on_past).");
    Ok(previous.map(|id| dependency("Previous Dagrun State", reason(id))))
}

/// Returns the upstream tasks that the task's trigger rule waits for.
async fn unmet_trigger_rule(
    client: &impl GenericClient,
    run: &Run,
    task: &Task,
) -> Result<Option<TaskDependencyResponse>, StoreError> {
    let upstream = InstanceFilter { task_ids: Some(task.upstream.clone()), ..InstanceFilter::of_run(&run.key) };
    let mut unfinished: BTreeMap<String, &str> = BTreeMap::new();
    for upstream in instances::list(client, Listing::of(upstream)).await?.rows {
        if !upstream.state.is_some_and(TaskState::is_finished) {
            unfinished.insert(upstream.key.task_id, upstream.state.map_or("none", TaskState::as_str));
        }
    }
    if unfinished.is_empty() {
        return Ok(None);
    }
    let upstream_states: Vec<String> = unfinished.iter().map(|(id, state)| format!("{id} ({state})")).collect();
    let reason = format!(
        "The trigger rule '{}' waits for upstream tasks that are not done: {}.",
        json!(task.trigger_rule).as_str().unwrap_or_default(),
        upstream_states.join(", ")
    );
    Ok(Some(dependency("Trigger Rule", reason)))
}

async fn respond(state: &AppState, key: InstanceKey) -> DependencyResult {
    let client = state.core.database.get().await?;
    let instance = instances::get(&*client, &key).await.map_err(instance_not_found(&key))?;
    let dependencies = match instance.state {
        None | Some(TaskState::Scheduled) => {
            let run = runs::get(&*client, &key.run, ReadFor::Reading).await.map_err(instance_not_found(&key))?;
            unmet_dependencies(&*client, &run, &instance).await?
        }
        Some(_) => Vec::new(),
    };
    Ok(Json(TaskDependencyCollectionResponse { dependencies }))
}

pub async fn get(
    State(state): Shared,
    Segments(path): Segments<TaskPath>,
    params: QueryParams<MapIndexQuery>,
) -> DependencyResult {
    respond(&state, instance_key_from_query(path, &params)?).await
}

pub async fn get_mapped(State(state): Shared, MappedInstance(key): MappedInstance) -> DependencyResult {
    respond(&state, key).await
}

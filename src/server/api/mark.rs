//! Giving task instances a state or a note by hand, and removing them, with Airflow's names and shapes.

use super::clear::{check_note, shown};
use super::instance_views::TaskInstanceCollectionResponse;
use super::task_instances::{AtIndex, missing, of_group};
use crate::engine::keys::{InstanceKey, RunKey};
use crate::engine::state::TaskState;
use crate::engine::store::dags;
use crate::engine::store::instances::{self, NOT_MAPPED};
use crate::engine::store::mark::{self, Marking};
use crate::engine::store::runs;
use crate::server::api_error::ApiError;
use crate::server::body::{Body, given};
use crate::server::openapi::operation::Schemas;
use crate::server::query::{Asked, Kind, Parameter, Query, UPDATE_MASK, WithMask};
use crate::server::request::{Params, PathParts, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use deadpool_postgres::Transaction;
use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::Value;
use std::slice;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

/// States that somebody may give.
const STATES: [TaskState; 3] = [TaskState::Success, TaskState::Failed, TaskState::Skipped];

#[derive(Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PatchTaskInstanceBody {
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<TaskState>")]
    new_state: Option<Option<String>>,
    #[serde(default, deserialize_with = "given")]
    #[schemars(with = "Option<String>", length(max = 1000))]
    note: Option<Option<String>>,
    #[serde(default)]
    include_upstream: bool,
    #[serde(default)]
    include_downstream: bool,
    #[serde(default)]
    include_future: bool,
    #[serde(default)]
    include_past: bool,
}

/// What a body and a mask ask for.
pub struct Wanted {
    /// `Some(None)` removes it.
    note: Option<Option<String>>,
    pub state: Option<TaskState>,
    patch: PatchTaskInstanceBody,
}

impl PatchTaskInstanceBody {
    pub fn wanted(self, mask: &[String]) -> Result<Wanted, ApiError> {
        let counts = |field: &str| mask.is_empty() || mask.iter().any(|name| name == field);
        let state = self.new_state.as_ref().map(|state| state_of(state.as_deref())).transpose()?;
        check_note(self.note.as_ref().and_then(Option::as_deref))?;
        let note = match &self.note {
            _ if !counts("note") => None,
            None => None,
            // Nothing is said of it but with a mask.
            Some(None) => (!mask.is_empty()).then_some(None),
            Some(Some(text)) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
        };
        Ok(Wanted { note, state: state.filter(|_| counts("new_state")), patch: self })
    }
}

fn state_of(text: Option<&str>) -> Result<TaskState, ApiError> {
    let invalid = |message: String| ApiError::unprocessable(&["body", "new_state"], "value_error", message);
    let text = text.ok_or_else(|| invalid("Value error, 'new_state' should not be empty".to_owned()))?;
    let text = text.to_lowercase();
    let found = STATES.into_iter().find(|state| state.as_str() == text);
    found.ok_or_else(|| invalid(format!("Value error, '{text}' is not one of ['success', 'failed', 'skipped']")))
}

impl Wanted {
    pub fn marking(&self, tasks: Vec<String>, map_index: Option<i32>) -> Option<Marking> {
        Some(Marking {
            tasks,
            map_index,
            state: self.state?,
            upstream: self.patch.include_upstream,
            downstream: self.patch.include_downstream,
            future: self.patch.include_future,
            past: self.patch.include_past,
        })
    }

    /// Returns the instances that have changed their state; `None` where none was asked for.
    pub async fn apply(
        &self,
        transaction: &Transaction<'_>,
        run: &RunKey,
        keys: &[InstanceKey],
        marking: Option<&Marking>,
    ) -> Result<Option<Vec<InstanceKey>>, ApiError> {
        // Runs first, as everybody else holds them.
        runs::lock(transaction, slice::from_ref(run)).await?;
        if let Some(note) = &self.note {
            instances::set_note(transaction, keys, note.as_deref()).await?;
        }
        match marking {
            Some(marking) => Ok(Some(mark::mark(transaction, run, marking).await?)),
            None => Ok(None),
        }
    }
}

pub fn same_state(what: &str, state: Option<TaskState>) -> ApiError {
    let state = state.map_or("", TaskState::as_str);
    ApiError::new(StatusCode::CONFLICT, format!("{what} already in {state} state"))
}

/// The instances of a task of the DAG that the path names.
async fn of_task(
    transaction: &Transaction<'_>,
    run: &RunKey,
    task_id: &str,
    map_index: Option<i32>,
) -> Result<Vec<InstanceKey>, ApiError> {
    let dag = dags::get(transaction, &run.dag_id).await?;
    if dag.structure.tasks.iter().all(|task| task.task_id != task_id) {
        let detail = format!("Task '{task_id}' not found in Dag '{}'", run.dag_id);
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let mut keys = instances::of_task(transaction, run, task_id).await?;
    keys.retain(|key| map_index.is_none_or(|at| at == key.map_index));
    if keys.is_empty() {
        return Err(missing(run, task_id, map_index));
    }
    Ok(keys)
}

/// The instances of a group, and which tasks it has.
async fn of_task_group(
    transaction: &Transaction<'_>,
    run: &RunKey,
    group_id: &str,
) -> Result<(Vec<String>, Vec<InstanceKey>), ApiError> {
    let structure = dags::get(transaction, &run.dag_id).await?.structure;
    let not_found = |detail: String| Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    if structure.groups.iter().all(|group| group.group_id != group_id) {
        return not_found(format!("Task group '{group_id}' not found in DAG '{}'", run.dag_id));
    }
    let tasks = of_group(&structure, group_id);
    let mut keys = Vec::new();
    for task in &tasks {
        keys.extend(instances::of_task(transaction, run, task).await?);
    }
    if keys.is_empty() {
        let detail = format!("No task instances found for task group '{group_id}' in dag run '{}'", run.run_id);
        return not_found(detail);
    }
    Ok((tasks, keys))
}

/// What the path names: a task, or one instance of it.
#[derive(Deserialize)]
pub struct OfTask {
    dag_id: String,
    #[serde(rename = "dag_run_id")]
    run_id: String,
    task_id: String,
    map_index: Option<i32>,
}

impl PathParts for OfTask {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
        <(String, String, String, i32)>::schemas(schemas)
    }
}

/// What may name the instance in the query.
pub struct OfInstance;

impl Query for OfInstance {
    const OTHERS: &'static [Parameter] = &[Parameter::new("map_index", Kind::Whole), UPDATE_MASK];
}

impl OfTask {
    /// The query may name the instance too, where the path does not.
    fn read(self, params: &Params) -> Result<(RunKey, String, Option<i32>), ApiError> {
        let map_index = match self.map_index {
            None => params.map_index()?,
            index => index,
        };
        Ok((RunKey { dag_id: self.dag_id, run_id: self.run_id }, self.task_id, map_index))
    }
}

pub async fn patch(
    State(state): Shared,
    Segments(of): Segments<OfTask>,
    params: Asked<OfInstance>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (run, task_id, map_index) = of.read(&params)?;
    let wanted = body.wanted(&params.texts("update_mask"))?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let keys = of_task(&transaction, &run, &task_id, map_index).await?;
    let marking = wanted.marking(vec![task_id.clone()], map_index);
    if wanted.apply(&transaction, &run, &keys, marking.as_ref()).await?.is_some_and(|changed| changed.is_empty()) {
        return Err(same_state(&format!("Task id {task_id} is"), wanted.state));
    }
    let answer = shown(&transaction, &keys).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// The same of an instance that the path names.
pub async fn patch_mapped(
    state: Shared,
    of: Segments<OfTask>,
    asked: Asked<WithMask>,
    body: Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    patch(state, of, asked.cast(), body).await
}

pub async fn dry_run(
    State(state): Shared,
    Segments(of): Segments<OfTask>,
    params: Asked<OfInstance>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let (run, task_id, map_index) = of.read(&params)?;
    let wanted = body.wanted(&params.texts("update_mask"))?;
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let keys = of_task(&transaction, &run, &task_id, map_index).await?;
    match wanted.marking(vec![task_id], map_index) {
        Some(marking) => shown(&transaction, &mark::select(&transaction, &run, &marking).await?).await,
        None => shown(&transaction, &keys).await,
    }
}

/// The same of an instance that the path names.
pub async fn dry_run_mapped(
    state: Shared,
    of: Segments<OfTask>,
    asked: Asked<WithMask>,
    body: Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    dry_run(state, of, asked.cast(), body).await
}

type TaskPath = Segments<(String, String, String)>;

pub async fn patch_group(
    State(state): Shared,
    Segments((dag_id, run_id, group_id)): TaskPath,
    params: Asked<WithMask>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let wanted = body.wanted(&params.texts("update_mask"))?;
    let run = RunKey { dag_id, run_id };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let (tasks, keys) = of_task_group(&transaction, &run, &group_id).await?;
    let marking = wanted.marking(tasks, None);
    let changed = wanted.apply(&transaction, &run, &keys, marking.as_ref()).await?;
    if changed.as_ref().is_some_and(Vec::is_empty) {
        return Err(same_state("All task instances in the group are", wanted.state));
    }
    let answer = shown(&transaction, changed.as_ref().unwrap_or(&keys)).await?;
    transaction.commit().await?;
    Ok(answer)
}

pub async fn dry_run_group(
    State(state): Shared,
    Segments((dag_id, run_id, group_id)): TaskPath,
    Body(body): Body<PatchTaskInstanceBody>,
) -> Result<Json<TaskInstanceCollectionResponse>, ApiError> {
    let wanted = body.wanted(&[])?;
    let run = RunKey { dag_id, run_id };
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    let (tasks, keys) = of_task_group(&transaction, &run, &group_id).await?;
    match wanted.marking(tasks, None) {
        Some(marking) => shown(&transaction, &mark::select(&transaction, &run, &marking).await?).await,
        None => shown(&transaction, &keys).await,
    }
}

pub async fn delete(
    State(state): Shared,
    Segments((dag_id, run_id, task_id)): TaskPath,
    params: Asked<AtIndex>,
) -> Result<Json<Value>, ApiError> {
    let run = RunKey { dag_id, run_id };
    let map_index = params.map_index()?.unwrap_or(NOT_MAPPED);
    let mut client = state.database.get().await?;
    let transaction = client.transaction().await?;
    if !instances::of_task(&transaction, &run, &task_id).await?.iter().any(|key| key.map_index == map_index) {
        return Err(missing(&run, &task_id, Some(map_index)));
    }
    mark::delete_instance(&transaction, &InstanceKey { run, task_id, map_index }).await?;
    transaction.commit().await?;
    Ok(Json(Value::Null))
}

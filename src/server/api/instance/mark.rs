//! Sets the state or note of task instances and deletes them, with Airflow's names and shapes.

use super::clear::{check_note, response};
use super::instance_views::TaskInstanceCollectionResponse;
use super::task_instances::{MapIndexQuery, missing_instances, tasks_of_group};
use crate::api::instance_path::instance_key_from_query;
use crate::api::prelude::*;
use crate::api::regions::{self, Region};
use crate::api::views::Uuid;
use crate::history::deleted_logs::DeletedLogs;
use crate::http::body::nullable;
use crate::http::changes::is_in_mask;
use crate::http::openapi::operation::Schemas;
use crate::http::query::{Query, UPDATE_MASK, UpdateMaskQuery};
use crate::http::request::PathParts;
use leoflow_engine::model::keys::{NOT_MAPPED, Position};
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::instance::instances;
use leoflow_engine::store::instance::mark::{self, Marking};
use leoflow_engine::store::run::runs;
use schemars::Schema;
use std::slice;

/// States that can be set by hand.
const STATES: [TaskState; 3] = [TaskState::Success, TaskState::Failed, TaskState::Skipped];

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct PatchTaskInstanceBody {
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<TaskState>")]
    new_state: Option<Option<String>>,
    #[serde(deserialize_with = "nullable")]
    #[schemars(with = "Option<String>", length(max = 1000))]
    note: Option<Option<String>>,
    #[schemars(with = "Option<Uuid>")]
    region_id: Option<String>,
    region_index: Option<i32>,
    include_upstream: bool,
    include_downstream: bool,
    include_future: bool,
    include_past: bool,
}

/// The requested change: the body's fields, limited by `update_mask`.
pub struct Change {
    /// `Some(None)` removes the note.
    note: Option<Option<String>>,
    pub state: Option<TaskState>,
    patch: PatchTaskInstanceBody,
}

impl PatchTaskInstanceBody {
    /// Returns the position that the request selects; `position` is the one of its path or query. In a loop the region
    /// tells the whole position, and the other names only its index, or nothing with -1.
    fn position(&self, position: Option<Position>) -> ApiResult<Option<Position>> {
        let named = regions::position("body", self.region_id.as_deref(), self.region_index, None)?;
        let (Some(named), Some(position)) = (named, position) else { return Ok(named.or(position)) };
        let is_its_index = |index| index == NOT_MAPPED || Some(index) == self.region_index;
        let agree = named == position
            || (named.iteration().is_some() && position.iteration().is_none() && is_its_index(position.map_index()));
        match agree {
            true => Ok(Some(named)),
            false => Err(ApiError::bad_request("map_index and region_index must identify the same stored index")),
        }
    }

    /// Refuses a group in one iteration of a loop.
    fn check_group(&self) -> ApiResult<()> {
        match self.position(None)?.and_then(Position::iteration) {
            Some(iteration) => Err(ApiError::bad_request(format!(
                "A task group cannot be marked in one iteration; mark its tasks in the iteration {iteration} one by one"
            ))),
            None => Ok(()),
        }
    }

    pub fn into_change(self, mask: &[String]) -> ApiResult<Change> {
        let state = self.new_state.as_ref().map(|state| parse_state(state.as_deref())).transpose()?;
        check_note(self.note.as_ref().and_then(Option::as_deref))?;
        let note = match &self.note {
            _ if !is_in_mask(mask, "note") => None,
            None => None,
            // A null note removes the note only if the mask names `note`.
            Some(None) => (!mask.is_empty()).then_some(None),
            Some(Some(text)) => Some(Some(text.clone()).filter(|text| !text.is_empty())),
        };
        Ok(Change { note, state: state.filter(|_| is_in_mask(mask, "new_state")), patch: self })
    }
}

fn parse_state(text: Option<&str>) -> ApiResult<TaskState> {
    let invalid = |message: String| ApiError::unprocessable(&["body", "new_state"], "value_error", message);
    let text = text.ok_or_else(|| invalid("Value error, 'new_state' should not be empty".to_owned()))?;
    let text = text.to_lowercase();
    let state = STATES.into_iter().find(|state| state.as_str() == text);
    state.ok_or_else(|| invalid(format!("Value error, '{text}' is not one of ['success', 'failed', 'skipped']")))
}

impl Change {
    /// Returns how to set the state of these tasks; `None` when no state is requested.
    pub fn marking(&self, tasks: Vec<String>, position: Option<Position>) -> Option<Marking> {
        Some(Marking {
            tasks,
            position,
            state: self.state?,
            upstream: self.patch.include_upstream,
            downstream: self.patch.include_downstream,
            future: self.patch.include_future,
            past: self.patch.include_past,
        })
    }

    /// Applies the change. Returns the instances whose state changed; `None` when no state was requested.
    pub async fn apply(
        &self,
        transaction: &Transaction<'_>,
        run: &RunKey,
        keys: &[InstanceKey],
        marking: Option<&Marking>,
    ) -> ApiResult<Option<Vec<InstanceKey>>> {
        // Locks the run before its instances, the order of every other writer.
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

/// The answer of a dry run: the instances whose state `marking` would change, or `keys` when no state is requested.
async fn preview(
    transaction: &Transaction<'_>,
    run: &RunKey,
    keys: &[InstanceKey],
    marking: Option<Marking>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    match marking {
        Some(marking) => response(transaction, &mark::select(transaction, run, &marking).await?).await,
        None => response(transaction, keys).await,
    }
}

/// 409: nothing changes because the instances have the state already. `subject` is a noun with its verb, such as
/// `Task id t is`.
pub fn same_state(subject: &str, state: Option<TaskState>) -> ApiError {
    let state = state.map_or("", TaskState::as_str);
    ApiError::conflict(format!("{subject} already in {state} state"))
}

/// Returns the task's instances in the run; 404 when the DAG has no such task.
async fn task_keys(
    transaction: &Transaction<'_>,
    run: &RunKey,
    task_id: &str,
    position: Option<Position>,
) -> ApiResult<Vec<InstanceKey>> {
    let dag = dags::get(transaction, &run.dag_id).await?;
    if dag.structure.tasks.iter().all(|task| task.task_id != task_id) {
        let detail = format!("Task '{task_id}' not found in Dag '{}'", run.dag_id);
        return Err(ApiError::not_found(detail));
    }
    let mut keys = instances::of_task(transaction, run, task_id).await?;
    keys.retain(|key| position.is_none_or(|position| position == key.position));
    if keys.is_empty() {
        return Err(ApiError::not_found(missing_instances(run, task_id, position)));
    }
    Ok(keys)
}

/// Returns the tasks of a group and their instances.
async fn group_tasks_and_keys(
    transaction: &Transaction<'_>,
    run: &RunKey,
    group_id: &str,
) -> ApiResult<(Vec<String>, Vec<InstanceKey>)> {
    let not_found = |detail: String| Err(ApiError::not_found(detail));
    let tasks = tasks_of_group(transaction, &run.dag_id, group_id).await?;
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

/// Path parameters: a task, or one instance of it.
#[derive(Deserialize)]
pub struct InstancePath {
    dag_id: String,
    #[serde(rename = "dag_run_id")]
    run_id: String,
    task_id: String,
    map_index: Option<i32>,
}

impl PathParts for InstancePath {
    fn schemas(schemas: &mut Schemas) -> Vec<Schema> {
        <(String, String, String, i32)>::schemas(schemas)
    }
}

query! {
    /// The query of a change: optionally the map index, which selects one instance, and the update mask.
    pub InstanceQuery {
        Parameter::new("map_index", Kind::Whole),
        UPDATE_MASK,
    }
}

impl InstancePath {
    /// Resolves the position from the region in a loop, or else from the path, or else from the query.
    fn read(self, region: Position, params: &Params) -> ApiResult<(RunKey, String, Option<Position>)> {
        let position = match self.map_index {
            _ if region.iteration().is_some() => Some(region),
            Some(map_index) => Some(Position::mapped(map_index)),
            None => params.position()?,
        };
        Ok((RunKey { dag_id: self.dag_id, run_id: self.run_id }, self.task_id, position))
    }
}

/// `Q` is [`UpdateMaskQuery`] where the path has the map index, otherwise [`InstanceQuery`].
pub async fn patch<Q: Query>(
    State(state): Shared,
    Segments(path): Segments<InstancePath>,
    Region(region): Region,
    params: QueryParams<Q>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    let (run, task_id, position) = path.read(region, &params)?;
    let position = body.position(position)?;
    let change = body.into_change(&params.texts("update_mask"))?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let keys = task_keys(&transaction, &run, &task_id, position).await?;
    let marking = change.marking(vec![task_id.clone()], position);
    if change.apply(&transaction, &run, &keys, marking.as_ref()).await?.is_some_and(|changed| changed.is_empty()) {
        return Err(same_state(&format!("Task id {task_id} is"), change.state));
    }
    let answer = response(&transaction, &keys).await?;
    transaction.commit().await?;
    Ok(answer)
}

/// `Q` as for [`patch`].
pub async fn dry_run<Q: Query>(
    Datastore(mut client): Datastore,
    Segments(path): Segments<InstancePath>,
    Region(region): Region,
    params: QueryParams<Q>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    let (run, task_id, position) = path.read(region, &params)?;
    let position = body.position(position)?;
    let change = body.into_change(&params.texts("update_mask"))?;
    let transaction = client.transaction().await?;
    let keys = task_keys(&transaction, &run, &task_id, position).await?;
    preview(&transaction, &run, &keys, change.marking(vec![task_id], position)).await
}

pub async fn patch_group(
    State(state): Shared,
    Segments((dag_id, run_id, group_id)): Segments<TaskPath>,
    params: QueryParams<UpdateMaskQuery>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    body.check_group()?;
    let change = body.into_change(&params.texts("update_mask"))?;
    let run = RunKey { dag_id, run_id };
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let (tasks, keys) = group_tasks_and_keys(&transaction, &run, &group_id).await?;
    let marking = change.marking(tasks, None);
    let changed = change.apply(&transaction, &run, &keys, marking.as_ref()).await?;
    if changed.as_ref().is_some_and(Vec::is_empty) {
        return Err(same_state("All task instances in the group are", change.state));
    }
    let answer = response(&transaction, changed.as_ref().unwrap_or(&keys)).await?;
    transaction.commit().await?;
    Ok(answer)
}

pub async fn dry_run_group(
    Datastore(mut client): Datastore,
    Segments((dag_id, run_id, group_id)): Segments<TaskPath>,
    Body(body): Body<PatchTaskInstanceBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    body.check_group()?;
    let change = body.into_change(&[])?;
    let run = RunKey { dag_id, run_id };
    let transaction = client.transaction().await?;
    let (tasks, keys) = group_tasks_and_keys(&transaction, &run, &group_id).await?;
    preview(&transaction, &run, &keys, change.marking(tasks, None)).await
}

pub async fn delete(
    State(state): Shared,
    Segments(path): Segments<TaskPath>,
    params: QueryParams<MapIndexQuery>,
) -> JsonResult<Value> {
    let key = instance_key_from_query(path, &params)?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    if !instances::of_task(&transaction, &key.run, &key.task_id).await?.contains(&key) {
        return Err(ApiError::not_found(missing_instances(&key.run, &key.task_id, Some(key.position))));
    }
    mark::delete_instance(&transaction, &key).await?;
    let logs = DeletedLogs::quarantine(&state.core.home, key.log_folder(&state.core.home)).await;
    transaction.commit().await?;
    logs.remove();
    Ok(Json(Value::Null))
}

//! `clearTaskInstances`: clears task instances, so that they run again.

use super::instance_views::{TaskInstanceCollectionResponse, instance, instance_id};
use super::task_instances::tasks_of_group;
use crate::api::prelude::*;
use crate::api::run::rerun_version;
use crate::api::views::Uuid;
use leoflow_engine::model::keys::Position;
use leoflow_engine::store::instance::clear::{Clearing, Selection};
use leoflow_engine::store::instance::{instances, states};
use leoflow_engine::store::run::runs;
use std::collections::HashMap;

/// Airflow's limit for a note, in characters.
pub const MAX_NOTE_CHARS: usize = 1000;

pub fn check_note(note: Option<&str>) -> ApiResult<()> {
    if note.is_none_or(|note| note.chars().count() <= MAX_NOTE_CHARS) {
        return Ok(());
    }
    let message = format!("String should have at most {MAX_NOTE_CHARS} characters");
    Err(ApiError::unprocessable(&["body", "note"], "string_too_long", message))
}

/// 422 in the form of an error that a pydantic validator in Airflow raises.
pub fn invalid(message: &str) -> ApiError {
    ApiError::unprocessable(&["body"], "value_error", format!("Value error, {message}"))
}

/// Serde default for flags that are true if the body does not set them.
pub fn yes() -> bool {
    true
}

/// A task id, or a pair of task id and map index.
#[derive(Deserialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
#[expect(dead_code, reason = "only for the JSON schema; `parse_task` parses the values")]
enum NamedTask {
    Task(String),
    Mapped((String, i32)),
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClearTaskInstancesBody {
    #[serde(default = "yes")]
    dry_run: bool,
    start_date: Option<Timestamp>,
    end_date: Option<Timestamp>,
    #[schemars(with = "bool", default = "yes")]
    only_failed: Option<bool>,
    only_running: bool,
    #[serde(default = "yes")]
    reset_dag_runs: bool,
    #[schemars(with = "Option<Vec<NamedTask>>")]
    task_ids: Option<Vec<Value>>,
    task_group_id: Option<String>,
    /// Ids of instances of one run, as answers name them.
    #[schemars(with = "Option<Vec<Uuid>>", length(min = 1))]
    task_instance_ids: Option<Vec<String>>,
    /// Those whose task is cleared with all of its instances.
    #[schemars(with = "Vec<Uuid>")]
    whole_expansion_ids: Vec<String>,
    #[serde(default = "yes")]
    include_later_loop_iterations: bool,
    dag_run_id: Option<String>,
    include_upstream: bool,
    include_downstream: bool,
    include_future: bool,
    include_past: bool,
    run_on_latest_version: Option<bool>,
    prevent_running_task: bool,
    /// False deletes what the tasks have kept in their state store. Unless it is set, that stays.
    #[schemars(with = "bool", default)]
    keep_task_state: Option<bool>,
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

impl ClearTaskInstancesBody {
    fn check(&self) -> ApiResult<()> {
        check_note(self.note.as_deref())?;
        if self.only_failed == Some(true) && self.only_running {
            return Err(invalid("only_failed and only_running both are set to True"));
        }
        let by_id = self.task_instance_ids.is_some();
        if [self.task_ids.is_some(), self.task_group_id.is_some(), by_id].into_iter().filter(|given| *given).count() > 1
        {
            return Err(invalid("Only one of task_ids, task_group_id and task_instance_ids may be provided"));
        }
        if by_id && (self.dag_run_id.is_none() || self.include_past || self.include_future) {
            return Err(invalid("task_instance_ids requires one dag_run_id without include_past or include_future"));
        }
        let ids = self.task_instance_ids.as_deref().unwrap_or_default();
        if by_id && ids.is_empty() {
            return Err(invalid("task_instance_ids list should have at least 1 element."));
        }
        if !self.whole_expansion_ids.iter().all(|id| ids.contains(id)) {
            return Err(invalid("whole_expansion_ids must be a subset of task_instance_ids"));
        }
        if self.start_date.zip(self.end_date).is_some_and(|(start, end)| start > end) {
            return Err(invalid("end_date is sooner than start_date"));
        }
        let given_dates = match (self.start_date, self.end_date) {
            (Some(_), Some(_)) => "(start_date and end_date)",
            (Some(_), None) => "start_date",
            (None, Some(_)) => "end_date",
            (None, None) => return Ok(()),
        };
        if self.dag_run_id.is_some() {
            return Err(invalid(&format!("Exactly one of dag_run_id or {given_dates} must be provided")));
        }
        Ok(())
    }

    /// Returns which instances of a run the request selects.
    async fn selection(&self, transaction: &Transaction<'_>, dag_id: &str) -> ApiResult<Selection> {
        let tasks = match &self.task_ids {
            _ if let Some(group_id) = &self.task_group_id => {
                let tasks = tasks_of_group(transaction, dag_id, group_id).await?;
                if tasks.is_empty() {
                    return Err(ApiError::not_found(format!("Task group '{group_id}' has no tasks")));
                }
                tasks.into_iter().map(|task_id| (task_id, None)).collect()
            }
            _ if let Some(ids) = &self.task_instance_ids => {
                let run_id = self.dag_run_id.clone().unwrap_or_default();
                self.tasks_of_ids(transaction, &RunKey { dag_id: dag_id.to_owned(), run_id }, ids).await?
            }
            Some(list) if list.is_empty() => return Err(invalid("task_ids list should have at least 1 element.")),
            Some(list) => list.iter().map(parse_task).collect::<Option<Vec<_>>>().ok_or_else(|| {
                let message = "Input should be a task id, or a pair of task id and map index";
                ApiError::unprocessable(&["body", "task_ids"], "value_error", message)
            })?,
            None => Vec::new(),
        };
        Ok(Selection {
            tasks,
            upstream: self.include_upstream,
            downstream: self.include_downstream,
            only_failed: self.only_failed.unwrap_or(true),
            only_running: self.only_running,
            except: Vec::new(),
            leaves_run: !self.reset_dag_runs,
            keeps_later_iterations: !self.include_later_loop_iterations,
        })
    }

    /// Returns the instances of a run that ids name; 404 unless each of them exists.
    async fn tasks_of_ids(
        &self,
        transaction: &Transaction<'_>,
        run: &RunKey,
        ids: &[String],
    ) -> ApiResult<Vec<(String, Option<Position>)>> {
        let known: HashMap<String, InstanceKey> = instances::attempts_of_run(transaction, run)
            .await?
            .into_iter()
            .map(|(key, try_number)| (instance_id(&key, try_number), key))
            .collect();
        let task = |id: &String| match known.get(&id.to_lowercase()) {
            None => Err(ApiError::not_found(format!("Task instance {id} not found in run {}", run.run_id))),
            Some(key) if !self.whole_expansion_ids.contains(id) => Ok(vec![(key.task_id.clone(), Some(key.position))]),
            Some(key) if key.position.iteration().is_none() => Ok(vec![(key.task_id.clone(), None)]),
            // In a loop, the instances of the same iteration.
            Some(key) => {
                let is_sibling = |other: &&InstanceKey| {
                    other.task_id == key.task_id && other.position.iteration() == key.position.iteration()
                };
                let siblings = known.values().filter(is_sibling);
                Ok(siblings.map(|other| (other.task_id.clone(), Some(other.position))).collect())
            }
        };
        let tasks: Vec<Vec<_>> = ids.iter().map(task).collect::<ApiResult<_>>()?;
        Ok(tasks.concat())
    }

    /// Returns the runs whose instances the request selects.
    async fn runs(&self, transaction: &Transaction<'_>, dag_id: &str) -> ApiResult<Vec<RunKey>> {
        let Some(run_id) = &self.dag_run_id else {
            return Ok(runs::between(transaction, dag_id, self.start_date, self.end_date).await?);
        };
        let key = RunKey { dag_id: dag_id.to_owned(), run_id: run_id.clone() };
        let detail = || format!("Dag Run id {run_id} not found in dag {dag_id}");
        let run = runs::get(transaction, &key, ReadFor::Reading).await.map_err(ApiError::or_not_found(detail))?;
        if !self.include_past && !self.include_future {
            return Ok(vec![key]);
        }
        let Some(date) = run.logical_date else {
            let detail =
                "Cannot use include_past or include_future with no logical_date(e.g. manually or asset-triggered).";
            return Err(ApiError::bad_request(detail));
        };
        let (from, to) = ((!self.include_past).then_some(date), (!self.include_future).then_some(date));
        Ok(runs::between(transaction, dag_id, from, to).await?)
    }
}

/// Parses a task id, or a pair of task id and map index.
fn parse_task(value: &Value) -> Option<(String, Option<Position>)> {
    match value {
        Value::String(id) => Some((id.clone(), None)),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(id), index] => {
                let stored = i32::try_from(index.as_i64()?).ok()?;
                Some((id.clone(), Some(Position::from_stored(stored))))
            }
            _ => None,
        },
        _ => None,
    }
}

/// Returns the instances with these keys as the response.
pub async fn response(
    transaction: &Transaction<'_>,
    keys: &[InstanceKey],
) -> JsonResult<TaskInstanceCollectionResponse> {
    Ok(Json(instances::by_keys(transaction, keys).await?.into_iter().map(instance).collect()))
}

/// `POST …/clearTaskInstances`.
pub async fn task_instances(
    State(state): Shared,
    Id(dag_id): Id,
    Body(body): Body<ClearTaskInstancesBody>,
) -> JsonResult<TaskInstanceCollectionResponse> {
    body.check()?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let selection = body.selection(&transaction, &dag_id).await?;
    let version_choice = rerun_version::of_clear(&state, &transaction, &dag_id, body.run_on_latest_version).await?;
    let mut clearing = Clearing::load(&transaction, &dag_id, &selection, version_choice).await?;
    let runs = body.runs(&transaction, &dag_id).await?;
    if !body.dry_run {
        runs::lock(&transaction, &runs).await?;
    }
    let mut selected = Vec::new();
    for run in runs {
        let keys = clearing.select(&transaction, &run).await?;
        let all = [keys.as_slice(), &clearing.removed_by(&transaction, &run, &keys).await?].concat();
        if body.dry_run || keys.is_empty() {
            selected.extend(all);
            continue;
        }
        if body.prevent_running_task {
            refuse_running(&transaction, &all).await?;
        }
        clearing.clear(&transaction, &run, &keys).await?;
        if body.keep_task_state == Some(false) {
            for key in &all {
                states::delete_of_task(&transaction, key, None).await?;
            }
        }
        selected.extend(all);
    }
    if let Some(note) = body.note.as_deref().filter(|_| !body.dry_run) {
        instances::set_note(&transaction, &selected, Some(note).filter(|note| !note.is_empty())).await?;
    }
    let answer = response(&transaction, &selected).await?;
    transaction.commit().await?;
    Ok(answer)
}

async fn refuse_running(transaction: &Transaction<'_>, keys: &[InstanceKey]) -> ApiResult<()> {
    // Locks the instances, so that none starts before the transaction ends.
    let states = instances::lock(transaction, keys).await?;
    if !states.iter().any(|state| matches!(state, Some(TaskState::Running | TaskState::Restarting))) {
        return Ok(());
    }
    let detail = "AirflowClearRunningTaskException: Disable 'prevent_running_task' to proceed, or wait until the task is \
                  not running, queued, or scheduled state.";
    Err(ApiError::conflict(detail))
}

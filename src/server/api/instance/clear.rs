//! `clearTaskInstances`: clears task instances, so that they run again.

use super::instance_views::{TaskInstanceCollectionResponse, instance};
use crate::api::prelude::*;
use crate::api::run::rerun_version;
use leoflow_engine::store::instance::clear::{Clearing, Selection};
use leoflow_engine::store::instance::instances;
use leoflow_engine::store::run::runs;

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
    dag_run_id: Option<String>,
    include_upstream: bool,
    include_downstream: bool,
    include_future: bool,
    include_past: bool,
    run_on_latest_version: Option<bool>,
    prevent_running_task: bool,
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

impl ClearTaskInstancesBody {
    fn check(&self) -> ApiResult<()> {
        check_note(self.note.as_deref())?;
        if self.only_failed == Some(true) && self.only_running {
            return Err(invalid("only_failed and only_running both are set to True"));
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
    fn selection(&self) -> ApiResult<Selection> {
        let tasks = match &self.task_ids {
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
        })
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
fn parse_task(value: &Value) -> Option<(String, Option<i32>)> {
    match value {
        Value::String(id) => Some((id.clone(), None)),
        Value::Array(pair) => match pair.as_slice() {
            [Value::String(id), index] => Some((id.clone(), Some(i32::try_from(index.as_i64()?).ok()?))),
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
    let selection = body.selection()?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let version_choice = rerun_version::of_clear(&state, &transaction, &dag_id, body.run_on_latest_version).await?;
    let mut clearing = Clearing::load(&transaction, &dag_id, &selection, version_choice).await?;
    let runs = body.runs(&transaction, &dag_id).await?;
    if !body.dry_run {
        runs::lock(&transaction, &runs).await?;
    }
    let mut selected = Vec::new();
    for run in runs {
        let keys = clearing.select(&transaction, &run).await?;
        if body.dry_run || keys.is_empty() {
            selected.extend(keys);
            continue;
        }
        if body.prevent_running_task {
            refuse_running(&transaction, &keys).await?;
        }
        clearing.clear(&transaction, &run, &keys).await?;
        selected.extend(keys);
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

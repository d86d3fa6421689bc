//! `clear` and `clearDagRuns` clear whole runs, so that they run again; `clearPartitions` detaches runs from their
//! partitions.

use super::dag_run_lists::specific_id;
use super::dag_runs::run_not_found;
use super::dag_runs_bulk::BulkDAGRunBody;
use super::partition_selector::{OtherSelector, Partitions};
use super::rerun_version;
use crate::api::instance::clear::{check_note, invalid, yes};
use crate::api::instance::instance_views::{TaskInstanceResponse, instance};
use crate::api::prelude::*;
use crate::api::views::{self, DAGRunCollectionResponse, DAGRunResponse};
use leoflow_engine::store::asset::partitions::{self, RunSelector};
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::instance::clear::{self, Clearing, Selection};
use leoflow_engine::store::instance::instances;
use leoflow_engine::store::run::runs;
use leoflow_engine::store::run::version_choice::VersionChoice;
use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

/// The body of `clear`; `clearDagRuns` has the same options.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(rename = "DAGRunClearBody")]
pub struct Options {
    #[serde(default = "yes")]
    dry_run: bool,
    only_failed: bool,
    only_new: bool,
    run_on_latest_version: Option<bool>,
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

/// A task instance that would run again, or a new task without an instance yet.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Affected {
    Instance(Box<TaskInstanceResponse>),
    New(NewTaskResponse),
}

/// A task that the DAG has now but the run does not.
#[derive(Serialize, JsonSchema)]
pub struct NewTaskResponse {
    task_id: String,
    task_display_name: String,
}

collection! { ClearTaskInstanceCollectionResponse { task_instances: Affected } }

impl Options {
    fn check(&self) -> ApiResult<()> {
        check_note(self.note.as_deref())?;
        if self.only_new && self.only_failed {
            return Err(invalid("only_new and only_failed are mutually exclusive"));
        }
        Ok(())
    }

    fn selection(&self) -> Selection {
        Selection { only_failed: self.only_failed, ..Selection::default() }
    }

    /// Returns the instances that would run again and the tasks that would be added, for a dry run.
    async fn affected(
        &self,
        transaction: &Transaction<'_>,
        clearing: &mut Clearing<'_>,
        key: &RunKey,
    ) -> ApiResult<Vec<Affected>> {
        if self.only_new {
            let new = clear::new_tasks(transaction, key).await?.into_iter();
            let responses = new.map(|id| NewTaskResponse { task_display_name: id.clone(), task_id: id });
            return Ok(responses.map(Affected::New).collect());
        }
        let keys = clearing.select(transaction, key).await?;
        let instances = instances::by_keys(transaction, &keys).await?.into_iter();
        Ok(instances.map(|row| Affected::Instance(Box::new(instance(row)))).collect())
    }

    /// Clears one run, or only adds its missing tasks.
    async fn apply(&self, transaction: &Transaction<'_>, clearing: &mut Clearing<'_>, key: &RunKey) -> ApiResult<()> {
        if self.only_new {
            clear::add_new_tasks(transaction, key).await?;
        } else {
            let selected = clearing.select(transaction, key).await?;
            clearing.clear(transaction, key, &selected).await?;
        }
        if let Some(note) = &self.note {
            runs::set_note(transaction, key, Some(note.as_str()).filter(|note| !note.is_empty())).await?;
        }
        Ok(())
    }

    /// Clears the runs in one transaction; a dry run only returns what clearing would affect.
    async fn run(&self, state: &AppState, keys: &[RunKey]) -> ApiResult<Outcome> {
        let mut client = state.core.database.get().await?;
        let transaction = client.transaction().await?;
        let mut outcome = Outcome::default();
        if !self.dry_run {
            runs::lock(&transaction, keys).await?;
        }
        let selection = self.selection();
        let mut clearing_by_dag: HashMap<&str, Clearing<'_>> = HashMap::new();
        for key in keys {
            runs::get(&transaction, key, ReadFor::Reading).await.map_err(run_not_found(key))?;
            let clearing = match clearing_by_dag.entry(&key.dag_id) {
                Entry::Occupied(known) => known.into_mut(),
                Entry::Vacant(new) => {
                    let requested = self.run_on_latest_version;
                    let version_choice = rerun_version::of_clear(state, &transaction, &key.dag_id, requested).await?;
                    new.insert(Clearing::load(&transaction, &key.dag_id, &selection, version_choice).await?)
                }
            };
            if self.dry_run {
                outcome.affected.extend(self.affected(&transaction, clearing, key).await?);
                continue;
            }
            self.apply(&transaction, clearing, key).await?;
            outcome.runs.push(views::run(runs::get(&transaction, key, ReadFor::Reading).await?));
        }
        transaction.commit().await?;
        Ok(outcome)
    }
}

/// The result of clearing runs.
#[derive(Default)]
struct Outcome {
    /// Filled by a dry run only.
    affected: Vec<Affected>,
    runs: Vec<DAGRunResponse>,
}

impl Outcome {
    fn affected(self) -> ClearTaskInstanceCollectionResponse {
        self.affected.into_iter().collect()
    }
}

/// The affected task instances after a dry run, otherwise the cleared runs.
#[derive(Serialize, JsonSchema)]
#[serde(untagged)]
#[schemars(inline)]
pub enum Cleared<T> {
    DryRun(ClearTaskInstanceCollectionResponse),
    Done(T),
}

/// `POST …/dagRuns/{run_id}/clear`.
pub async fn clear_run(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<RunPath>,
    Body(options): Body<Options>,
) -> JsonResult<Cleared<DAGRunResponse>> {
    options.check()?;
    let mut outcome = options.run(&state, &[RunKey { dag_id, run_id }]).await?;
    Ok(Json(outcome.runs.pop().map_or_else(|| Cleared::DryRun(outcome.affected()), Cleared::Done)))
}

/// A selection of runs, with the options.
#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct BulkDAGRunClearBody {
    dag_runs: Vec<BulkDAGRunBody>,
    partition_key: Option<String>,
    #[schemars(with = "Option<Stamp>")]
    partition_date_start: Option<String>,
    #[schemars(with = "Option<Stamp>")]
    partition_date_end: Option<String>,
    #[serde(default = "yes")]
    dry_run: bool,
    only_failed: bool,
    only_new: bool,
    run_on_latest_version: Option<bool>,
    #[schemars(length(max = 1000))]
    note: Option<String>,
}

/// `POST …/clearDagRuns`.
pub async fn clear_dag_runs(
    State(state): Shared,
    Id(dag_id): Id,
    Body(body): Body<BulkDAGRunClearBody>,
) -> JsonResult<Cleared<DAGRunCollectionResponse>> {
    let options = Options {
        dry_run: body.dry_run,
        only_failed: body.only_failed,
        only_new: body.only_new,
        run_on_latest_version: body.run_on_latest_version,
        note: body.note,
    };
    options.check()?;
    let partitions = Partitions::parse(body.partition_key, body.partition_date_start, body.partition_date_end)?;
    partitions.check(&OtherSelector { name: "dag_runs (non-empty)", is_given: !body.dag_runs.is_empty() })?;
    let keys = if body.dag_runs.is_empty() {
        let Some(dag_id) = specific_id(&dag_id) else {
            let detail = "Partition selectors require a concrete dag_id; '~' is not supported.";
            return Err(ApiError::bad_request(detail));
        };
        let client = state.core.database.get().await?;
        let dag = dags::get(&*client, dag_id).await?;
        let runs =
            partitions::runs(&*client, dag_id, &partitions.run_selector(dag.structure.timetable.as_ref())?).await?;
        runs.into_iter().map(|run| run.key).collect()
    } else {
        run_keys(&dag_id, body.dag_runs)?
    };
    let outcome = options.run(&state, &keys).await?;
    if options.dry_run {
        return Ok(Json(Cleared::DryRun(outcome.affected())));
    }
    Ok(Json(Cleared::Done(outcome.runs.into_iter().collect())))
}

/// Returns the keys of the runs in the body, without duplicates and in the order of the request.
fn run_keys(dag_id: &str, entries: Vec<BulkDAGRunBody>) -> ApiResult<Vec<RunKey>> {
    let refuse = |detail: String| Err(ApiError::bad_request(detail));
    let (mut keys, mut seen): (Vec<RunKey>, HashSet<RunKey>) = (Vec::new(), HashSet::new());
    for BulkDAGRunBody { dag_run_id: run_id, dag_id: entry_dag_id, .. } in entries {
        let key = match (specific_id(dag_id), entry_dag_id.filter(|entry_dag_id| !entry_dag_id.is_empty())) {
            (None, Some(entry_dag_id)) if entry_dag_id != "~" => RunKey { dag_id: entry_dag_id, run_id },
            (None, _) => {
                return refuse(format!(
                    "When the URL dag_id is '~', every entry must provide a concrete dag_id (missing on dag_run_id: \
                     '{run_id}')."
                ));
            }
            (Some(dag_id), Some(entry_dag_id)) if entry_dag_id != dag_id => {
                return refuse(format!("Entry dag_id '{entry_dag_id}' does not match the URL dag_id '{dag_id}'."));
            }
            (Some(dag_id), _) => RunKey { dag_id: dag_id.to_owned(), run_id },
        };
        if seen.insert(key.clone()) {
            keys.push(key);
        }
    }
    Ok(keys)
}

#[derive(Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub struct ClearPartitionsBody {
    run_id: Option<String>,
    partition_key: Option<String>,
    #[schemars(with = "Option<Stamp>")]
    partition_date_start: Option<String>,
    #[schemars(with = "Option<Stamp>")]
    partition_date_end: Option<String>,
    clear_task_instances: bool,
    #[serde(default = "yes")]
    dry_run: bool,
}

#[derive(Serialize, JsonSchema)]
pub struct ClearPartitionsResponse {
    dag_runs_cleared: usize,
    task_instances_cleared: usize,
    dry_run: bool,
}

/// `POST …/clearPartitions`: detaches the runs from their partitions, and clears their instances on request.
pub async fn partitions(
    State(state): Shared,
    Id(dag_id): Id,
    Body(body): Body<ClearPartitionsBody>,
) -> JsonResult<ClearPartitionsResponse> {
    let partitions = Partitions::parse(body.partition_key, body.partition_date_start, body.partition_date_end)?;
    partitions.check(&OtherSelector { name: "run_id", is_given: body.run_id.is_some() })?;
    let mut client = state.core.database.get().await?;
    let transaction = client.transaction().await?;
    let dag = dags::get(&transaction, &dag_id).await?;
    let selector = match body.run_id {
        Some(run_id) => RunSelector::Run(run_id),
        None => partitions.run_selector(dag.structure.timetable.as_ref())?,
    };
    let mut counts = ClearPartitionsResponse { dag_runs_cleared: 0, task_instances_cleared: 0, dry_run: body.dry_run };
    let selection = Selection::default();
    let version_choice = rerun_version::of_dag(&state, &dag, None, VersionChoice::Own).await?;
    let mut clearing = Clearing::load(&transaction, &dag_id, &selection, version_choice).await?;
    let runs = partitions::runs(&transaction, &dag_id, &selector).await?;
    if !body.dry_run {
        let keys: Vec<RunKey> = runs.iter().map(|run| run.key.clone()).collect();
        runs::lock(&transaction, &keys).await?;
    }
    for run in runs {
        if run.has_partition {
            counts.dag_runs_cleared += 1;
            if !body.dry_run {
                partitions::forget(&transaction, &run.key).await?;
            }
        }
        if body.clear_task_instances {
            let selected = clearing.select(&transaction, &run.key).await?;
            counts.task_instances_cleared += selected.len();
            if !body.dry_run {
                clearing.clear(&transaction, &run.key, &selected).await?;
            }
        }
    }
    transaction.commit().await?;
    Ok(Json(counts))
}

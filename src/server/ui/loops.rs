//! `/ui/grid/loop` and `/ui/grid/loop-history`: the iterations of a loop of Airflow 3.4.

use super::grid::shown_state;
use super::structure::not_found;
use crate::api::instance_path::TaskPath;
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::run::dag_runs::run_not_found;
use crate::api::views::{optional_stamp, stamp};
use leoflow_engine::model::dag::{Loop, Structure};
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::ReadFor;
use leoflow_engine::store::dag::{dags, versions};
use leoflow_engine::store::instance::iterations::{self, LoopedInstance};
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::list::listing::Page;
use leoflow_engine::store::run::runs::{self, Run, RunField, RunFilter};
use std::collections::BTreeMap;

/// Default number of runs in the history of a loop.
const RUNS: i64 = 14;

/// The definition of a loop: its settings and its tasks.
fn definition(structure: &Structure, group_id: &str) -> ApiResult<(Loop, Vec<String>)> {
    let group = structure.groups.iter().find(|group| group.group_id == group_id);
    let missing = || ApiError::not_found(format!("Task group '{group_id}' not found in DAG {}", structure.dag_id));
    let not_loop = || ApiError::new(StatusCode::UNPROCESSABLE_ENTITY, "Task group is not a loop");
    let repeats = group.ok_or_else(missing)?.repeats.clone().ok_or_else(not_loop)?;
    Ok((repeats, structure.tasks_of_group(group_id)))
}

/// `/ui/grid/loop/{dag_id}/{run_id}/{group_id}`.
pub async fn summary(
    Datastore(client): Datastore,
    Segments((dag_id, run_id, group_id)): Segments<TaskPath>,
    params: Params,
) -> JsonResult<Value> {
    let key = RunKey { dag_id, run_id };
    let run = runs::get(&*client, &key, ReadFor::Reading).await.map_err(run_not_found(&key))?;
    let region = regions::of_loops(&key);
    if params.text("loop_region_id").is_some_and(|id| !id.eq_ignore_ascii_case(&region)) {
        return Err(ApiError::not_found("Loop invocation not found in this Dag run"));
    }
    let version = run.version_id.ok_or_else(|| not_found(&key.dag_id))?;
    let structure = versions::version(&*client, version).await?.structure;
    let (repeats, tasks) = definition(&structure, &group_id)?;
    let instances = iterations::of_loop(&*client, &key.dag_id, &[&key.run_id], &tasks).await?;
    let mut summary = Summary::new(&repeats, &instances.iter().collect::<Vec<_>>()).fields;
    let regions = [json!({"region_id": region})];
    summary.extend([
        ("dag_id".to_owned(), key.dag_id.into()),
        ("run_id".to_owned(), key.run_id.into()),
        ("group_id".to_owned(), group_id.into()),
        ("loop_region_id".to_owned(), if instances.is_empty() { Value::Null } else { region.into() }),
        ("loop_regions".to_owned(), if instances.is_empty() { json!([]) } else { json!(regions) }),
    ]);
    Ok(Json(summary.into()))
}

/// `/ui/grid/loop-history/{dag_id}/{group_id}`: the loop in the newest runs, oldest first.
pub async fn history(
    Datastore(client): Datastore,
    Segments((dag_id, group_id)): Segments<(String, String)>,
    params: Params,
) -> JsonResult<Value> {
    let dag = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let (repeats, tasks) = definition(&dag.structure, &group_id)?;
    let mut listing: Listing<RunField> = Listing::of(RunFilter::of_dag(&dag_id));
    listing.order_by_default(Order::descending(RunField::RunAfter));
    listing.page = Page::first(params.number("limit", RUNS)?.clamp(1, 100));
    let mut newest = runs::list(&*client, listing).await?.rows;
    newest.reverse();
    let run_ids: Vec<&str> = newest.iter().map(|run| run.key.run_id.as_str()).collect();
    let instances = iterations::of_loop(&*client, &dag_id, &run_ids, &tasks).await?;
    let row = |run: &Run| {
        let of_run: Vec<&LoopedInstance> = instances.iter().filter(|instance| instance.run == run.key).collect();
        let mut fields = Summary::new(&repeats, &of_run).fields;
        fields.retain(|name, _| ["max_iterations", "iterations_ran", "status", "reason"].contains(&name.as_str()));
        fields.extend([
            ("run_id".to_owned(), run.key.run_id.as_str().into()),
            ("run_after".to_owned(), stamp(run.run_after).into()),
            ("logical_date".to_owned(), optional_stamp(run.logical_date)),
            ("loop_region_id".to_owned(), regions::of_loops(&run.key).into()),
        ]);
        Value::from(fields)
    };
    let rows: Vec<Value> = newest.iter().map(row).collect();
    Ok(Json(json!({"dag_id": dag_id, "group_id": group_id, "runs": rows})))
}

/// What a loop has done in a run.
struct Summary {
    fields: Map<String, Value>,
}

impl Summary {
    /// The instances are ordered by iteration.
    fn new(repeats: &Loop, instances: &[&LoopedInstance]) -> Self {
        let mut by_iteration: BTreeMap<i32, Vec<&LoopedInstance>> = BTreeMap::new();
        for instance in instances {
            by_iteration.entry(instance.position.iteration().unwrap_or_default()).or_default().push(instance);
        }
        let is_finished = |instance: &&LoopedInstance| instance.state.is_some_and(TaskState::is_finished);
        let failed = instances.iter().find(|instance| instance.state == Some(TaskState::Failed));
        let gate = instances.iter().rfind(|instance| instance.task_id == repeats.gate);
        let gate_iteration = gate.and_then(|gate| gate.position.iteration());
        let is_last = gate_iteration == Some(repeats.max_iterations - 1);
        let status = match gate.and_then(|gate| gate.state).filter(|_| instances.iter().all(is_finished)) {
            _ if failed.is_some() => "failed",
            Some(TaskState::Skipped) => "skipped",
            Some(TaskState::UpstreamFailed) => "failed",
            Some(TaskState::Success) if is_last => "ran_to_cap",
            Some(TaskState::Success) => "stopped_early",
            _ => "running",
        };
        let reason = match status {
            _ if failed.is_some() => Some("iteration_failed"),
            "ran_to_cap" if !repeats.has_condition => Some("cap_reached"),
            _ => None,
        };
        let has_started = |instance: &&LoopedInstance| {
            instance.start_date.is_some() && instance.state.is_some_and(|state| state != TaskState::UpstreamFailed)
        };
        let rows: Vec<Value> = by_iteration.iter().map(|(index, of_one)| iteration(*index, of_one)).collect();
        let exit_name = repeats.gate.rsplit('.').next().filter(|_| repeats.has_condition);
        let fields = Map::from_iter(
            [
                ("max_iterations", repeats.max_iterations.into()),
                (
                    "iterations_ran",
                    by_iteration.values().filter(|of_one| of_one.iter().any(has_started)).count().into(),
                ),
                ("status", status.into()),
                ("stopped_at_iteration", gate_iteration.filter(|_| status == "stopped_early").into()),
                ("failed_at_iteration", failed.and_then(|failed| failed.position.iteration()).into()),
                ("exit_criteria_name", exit_name.into()),
                ("exit_criteria_doc", repeats.doc.as_deref().filter(|_| repeats.has_condition).into()),
                ("reason", reason.into()),
                ("reason_task_id", failed.map(|failed| failed.task_id.as_str()).into()),
                ("iterations", rows.into()),
            ]
            .map(|(name, value): (&str, Value)| (name.to_owned(), value)),
        );
        Self { fields }
    }
}

fn iteration(index: i32, instances: &[&LoopedInstance]) -> Value {
    let is_over = instances.iter().all(|instance| instance.state.is_some_and(TaskState::is_finished));
    let mut row = json!({
        "index": index, "task_count": instances.len(),
        "state": shown_state(instances.iter().map(|instance| instance.state)),
        "start_date": optional_stamp(instances.iter().filter_map(|instance| instance.start_date).min()),
        "end_date": optional_stamp(instances.iter().filter_map(|instance| instance.end_date).max().filter(|_| is_over)),
    });
    if let Some(reason) = instances.iter().find_map(|instance| instance.reason.as_deref()) {
        row["decision_reason"] = reason.into();
    }
    row
}

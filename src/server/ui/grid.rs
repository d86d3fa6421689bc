//! `/ui/grid` and `/ui/gantt`: a DAG's tasks across its runs.

use super::structure::{not_found, parse_part, setup_or_teardown};
use super::tree::{Node, loop_fields, tree};
use crate::api::instance::instance_views::{instance_id, loop_iteration};
use crate::api::prelude::*;
use crate::api::regions;
use crate::api::views::{optional_stamp, stamp, version};
use axum::body::{Body, Bytes};
use axum::http::header;
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream;
use jiff::Unit;
use leoflow_engine::model::keys::{NOT_MAPPED, Position};
use leoflow_engine::store::dag::dags;
use leoflow_engine::store::dag::structures::VersionKey;
use leoflow_engine::store::instance::grid::{self, Instances, StateCounts, Summary, Version};
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::run::deadline_lists;
use leoflow_engine::store::run::runs::{self, RunField, RunFilter};
use serde::Serializer;
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

const RUNS: Fields<RunField> = Fields {
    order: &[
        ("run_after", RunField::RunAfter),
        ("logical_date", RunField::LogicalDate),
        ("start_date", RunField::StartDate),
        ("end_date", RunField::EndDate),
    ],
    ranges: &[("run_after", RunField::RunAfter)],
    exact: &[("run_type", RunField::RunType), ("state", RunField::State)],
    patterns: &[("run_id", RunField::RunId)],
    ..Fields::NONE
};

/// Lists the runs shown as columns of the grid; the newest by default.
fn run_listing(params: &Params, dag_id: &str) -> ApiResult<Listing<RunField>> {
    let mut listing = params.listing(&RUNS)?;
    listing.order_by_default(Order::descending(RunField::RunAfter));
    listing.filter = RunFilter {
        triggering_user_contains: params.text("triggering_user").map(str::to_owned),
        triggering_user_prefix: params.text("triggering_user_prefix").map(str::to_owned),
        ..RunFilter::of_dag(dag_id)
    };
    Ok(listing)
}

/// `/ui/grid/structure/{dag_id}`: the newest version, merged with nodes of the shown runs' versions.
pub async fn structure(State(state): Shared, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let client = state.core.database.get().await?;
    let newest = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let page = runs::list(&*client, run_listing(&params, &dag_id)?).await?;
    let run_ids: Vec<String> = page.rows.into_iter().map(|run| run.key.run_id).collect();
    let selected_part = parse_part(&params)?;
    let newest_id = newest.version_id;
    let mut nodes = nodes_json(&tree(&selected_part.reduce(newest.into_structure())), false);
    let mut other_versions: Vec<Version> = grid::versions(&*client, &dag_id, &run_ids).await?.into_values().collect();
    other_versions.retain(|version| version.key.0 != newest_id);
    other_versions.sort_unstable_by_key(|version| Reverse(version.number));
    let keys: Vec<VersionKey> = other_versions.iter().map(|version| version.key).collect();
    let mut structures = state.dag_files.structures.get(&*client, &keys).await?;
    // Merges each structure once, even if many runs share it.
    for structure in keys.iter().filter_map(|key| structures.remove(key)) {
        merge(&mut nodes, nodes_json(&tree(&selected_part.reduce(Arc::unwrap_or_clone(structure))), false));
    }
    Ok(Json(nodes.into()))
}

/// Returns the nodes as JSON; those within a mapped group count as mapped.
fn nodes_json(nodes: &[Node<'_>], is_within_mapped: bool) -> Vec<Value> {
    nodes.iter().map(|node| node_json(node, is_within_mapped)).collect()
}

/// Returns a node as JSON, without empty fields.
fn node_json(node: &Node<'_>, is_within_mapped: bool) -> Value {
    let mut fields = Map::from_iter([("id".to_owned(), node.id().into()), ("label".to_owned(), node.label().into())]);
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    match node {
        Node::Task(task) => {
            if task.mapped || is_within_mapped {
                set("is_mapped", true.into());
            }
            let kind = setup_or_teardown(task);
            if !kind.is_null() {
                set("setup_teardown_type", kind);
            }
        }
        Node::Group { group, children, is_mapped } => {
            if *is_mapped {
                set("is_mapped", true.into());
            }
            loop_fields(group).into_iter().for_each(|(name, value)| set(name, value));
            set("children", nodes_json(children, is_within_mapped || *is_mapped).into());
        }
    }
    fields.into()
}

/// Adds the nodes of another version that `nodes` lacks.
fn merge(nodes: &mut Vec<Value>, others: Vec<Value>) {
    let index_by_id: HashMap<String, usize> =
        nodes.iter().enumerate().filter_map(|(index, node)| Some((node["id"].as_str()?.to_owned(), index))).collect();
    for mut other in others {
        let Some(index) = other["id"].as_str().and_then(|id| index_by_id.get(id)) else {
            nodes.push(other);
            continue;
        };
        let (children, new_children) = (nodes[*index].get_mut("children"), other["children"].take());
        if let (Some(Value::Array(children)), Value::Array(new_children)) = (children, new_children) {
            merge(children, new_children);
        }
    }
}

/// `/ui/grid/runs/{dag_id}`.
pub async fn runs(State(state): Shared, Id(dag_id): Id, params: Params) -> JsonResult<Value> {
    let client = state.core.database.get().await?;
    dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let page = runs::list(&*client, run_listing(&params, &dag_id)?).await?;
    let run_ids: Vec<&str> = page.rows.iter().map(|run| run.key.run_id.as_str()).collect();
    let late_runs = deadline_lists::late_runs(&*client, &dag_id, &run_ids).await?;
    let now = Timestamp::now();
    let seconds = |start: Option<Timestamp>, end: Option<Timestamp>| {
        start.and_then(|start| (end.unwrap_or(now) - start).total(Unit::Second).ok()).unwrap_or(0.0)
    };
    let rows: Vec<Value> = page
        .rows
        .iter()
        .map(|run| {
            let mut fields = json!({
                "dag_id": run.key.dag_id, "run_id": run.key.run_id, "queued_at": stamp(run.queued_at),
                "run_after": stamp(run.run_after), "state": run.state, "run_type": run.run_type,
                "dag_versions": run.version.iter().map(version).collect::<Vec<_>>(),
                "has_missed_deadline": late_runs.contains(&run.key.run_id), "has_note": run.note.is_some(),
                "duration": seconds(run.start_date, run.end_date),
            });
            for (name, time) in [("start_date", run.start_date), ("end_date", run.end_date)] {
                if let Some(time) = time {
                    fields[name] = stamp(time).into();
                }
            }
            fields
        })
        .collect();
    Ok(Json(rows.into()))
}

/// The state shown for several instances is the first of these that occurs.
const PRIORITY: [Option<TaskState>; 14] = [
    Some(TaskState::Failed),
    Some(TaskState::UpstreamFailed),
    Some(TaskState::UpForRetry),
    Some(TaskState::UpForReschedule),
    Some(TaskState::Running),
    Some(TaskState::Restarting),
    Some(TaskState::Deferred),
    Some(TaskState::AwaitingInput),
    Some(TaskState::Queued),
    Some(TaskState::Scheduled),
    None,
    Some(TaskState::Success),
    Some(TaskState::Skipped),
    Some(TaskState::Removed),
];

/// Maximum number of runs whose queries are sent at once.
const MAX_PIPELINED: usize = 8;
/// Typical size of a cell, in bytes, including separators.
const CELL_BYTES: usize = 256;

/// A line of `/ui/grid/ti_summaries`.
#[derive(Serialize)]
struct RunSummaries<'a> {
    run_id: &'a str,
    dag_id: &'a str,
    task_instances: Vec<TaskSummary<'a>>,
}

/// A cell of the grid. A dedicated type, since tens of thousands are serialized.
#[derive(Serialize)]
struct TaskSummary<'a> {
    task_id: &'a str,
    task_display_name: &'a str,
    state: Option<TaskState>,
    child_states: Option<CountsByName>,
    min_start_date: Option<Stamp>,
    max_end_date: Option<Stamp>,
    dag_version_number: Option<i32>,
    has_note: bool,
    /// Of a loop: the number of iterations that have begun.
    #[serde(skip_serializing_if = "Option::is_none")]
    loop_iterations_count: Option<i32>,
    // Of a task in a loop: the instance in the newest iteration.
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_region_id: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    latest_region_index: Option<i32>,
}

/// Counts of instances, serialized by the name of their state.
struct CountsByName(StateCounts);

impl Serialize for CountsByName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(state, count)| (state.map_or("none", TaskState::as_str), count)))
    }
}

impl<'a> TaskSummary<'a> {
    /// `is_single` is true for a task with one instance, which has no `child_states`.
    fn new(task_id: &'a str, label: &'a str, summary: &Summary, version: Option<Version>, is_single: bool) -> Self {
        Self {
            task_id,
            task_display_name: label,
            state: shown_state(summary.states.iter().map(|(state, _)| state)),
            child_states: (!is_single).then_some(CountsByName(summary.states)),
            min_start_date: summary.min_start_date.map(Stamp),
            max_end_date: summary.max_end_date.map(Stamp),
            dag_version_number: version.map(|version| version.number),
            has_note: summary.has_note,
            loop_iterations_count: None,
            latest_region_id: None,
            latest_region_index: None,
        }
    }
}

/// The state that stands for those of several instances.
pub fn shown_state(states: impl Iterator<Item = Option<TaskState>>) -> Option<TaskState> {
    let occurring: HashSet<Option<TaskState>> = states.collect();
    PRIORITY.into_iter().find(|state| occurring.contains(state)).flatten()
}

/// The task summaries of a run, with its version.
struct RunTasks<'a> {
    run: &'a RunKey,
    tasks: HashMap<&'a str, Summary>,
    version: Option<Version>,
}

impl<'a> RunTasks<'a> {
    /// Appends cells for the nodes, groups before their children. Returns the merged summary.
    fn add<'b>(&mut self, nodes: &[Node<'b>], cells: &mut Vec<TaskSummary<'b>>) -> Summary {
        let mut total = Summary::default();
        for node in nodes {
            match node {
                Node::Task(task) => {
                    let stored = self.tasks.remove(task.task_id.as_str());
                    let mut summary = stored.unwrap_or_default();
                    if task.mapped && stored.is_none() {
                        summary.states.add(None);
                    }
                    let label = task.display_name.as_deref().unwrap_or(&task.task_id);
                    let is_single = !task.mapped && task.loop_id.is_none();
                    let mut cell = TaskSummary::new(&task.task_id, label, &summary, self.version, is_single);
                    if let Some(position) = summary.newest.filter(|position| position.iteration().is_some()) {
                        let newest = InstanceKey::new(self.run.clone(), &task.task_id, position);
                        let (region_id, region_index) = regions::of_instance(&newest);
                        (cell.latest_region_id, cell.latest_region_index) = (Some(region_id), Some(region_index));
                    }
                    cells.push(cell);
                    total.merge(&summary);
                }
                Node::Group { group, children, .. } => {
                    let (id, index) = (group.group_id.as_str(), cells.len());
                    // A task of an older version may have the group's id; only the group is shown.
                    self.tasks.remove(id);
                    cells.push(TaskSummary::new(id, id, &Summary::default(), self.version, false));
                    let summary = self.add(children, cells);
                    cells[index] = TaskSummary::new(id, id, &summary, self.version, false);
                    if group.repeats.is_some() {
                        let newest = summary.newest_started.and_then(Position::iteration);
                        cells[index].loop_iterations_count = Some(newest.map_or(0, |newest| newest + 1));
                    }
                    total.merge(&summary);
                }
            }
        }
        total
    }

    /// Returns cells for all nodes, and for tasks that the version no longer has.
    fn cells(mut self, nodes: &[Node<'a>]) -> Vec<TaskSummary<'a>> {
        let mut cells = Vec::with_capacity(self.tasks.len());
        self.add(nodes, &mut cells);
        let removed: BTreeMap<&str, Summary> = self.tasks.into_iter().collect();
        cells.extend(removed.iter().map(|(id, summary)| TaskSummary::new(id, id, summary, self.version, true)));
        cells
    }
}

/// `/ui/grid/ti_summaries/{dag_id}`: one JSON line per run, in the requested order.
pub async fn ti_summaries(State(state): Shared, Id(dag_id): Id, params: Params) -> ApiResult<Response> {
    let mut run_ids = params.texts("run_ids");
    let mut seen = HashSet::new();
    run_ids.retain(|run_id| seen.insert(run_id.clone()));
    let client = state.core.database.get().await?;
    let versions = grid::versions(&*client, &dag_id, &run_ids).await?;
    let keys: Vec<VersionKey> = versions.values().map(|version| version.key).collect();
    let structures = state.dag_files.structures.get(&*client, &keys).await?;
    let trees: HashMap<VersionKey, Vec<Node<'_>>> =
        structures.iter().map(|(key, structure)| (*key, tree(structure))).collect();
    let line = async |run_id: &String| -> ApiResult<Bytes> {
        let instances = Instances::load(&*client, &dag_id, run_id).await?;
        let run = RunKey { dag_id: dag_id.clone(), run_id: run_id.clone() };
        let run_tasks = RunTasks { run: &run, tasks: instances.by_task()?, version: versions.get(run_id).copied() };
        if run_tasks.tasks.is_empty() {
            return Ok(Bytes::new());
        }
        let nodes = run_tasks.version.and_then(|version| trees.get(&version.key)).map_or(&[][..], Vec::as_slice);
        let mut text = Vec::with_capacity(run_tasks.tasks.len() * CELL_BYTES);
        let line = RunSummaries { run_id, dag_id: &dag_id, task_instances: run_tasks.cells(nodes) };
        serde_json::to_writer(&mut text, &line).map_err(|error| ApiError::internal(&error))?;
        text.push(b'\n');
        Ok(text.into())
    };
    // Queries are pipelined, so that Postgres works on the next run while a line is written.
    let mut lines = Vec::with_capacity(run_ids.len());
    for chunk in run_ids.chunks(MAX_PIPELINED) {
        lines.extend(try_join_all(chunk.iter().map(&line)).await?);
    }
    let body = Body::from_stream(stream::iter(lines.into_iter().map(Ok::<_, Infallible>)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// `/ui/gantt/{dag_id}/{run_id}`.
pub async fn gantt(State(state): Shared, Segments((dag_id, run_id)): Segments<RunPath>) -> JsonResult<Value> {
    let key = RunKey { dag_id, run_id };
    let bars = grid::bars(&*state.core.database.get().await?, &key).await?;
    if bars.is_empty() {
        let detail = format!("No task instances for dag_id={} run_id={}", key.dag_id, key.run_id);
        return Err(ApiError::not_found(detail));
    }
    let bars_json: Vec<Value> = bars
        .iter()
        .map(|bar| {
            let instance = InstanceKey::new(key.clone(), &bar.task_id, bar.position);
            let (region_id, region_index) = regions::of_instance(&instance);
            json!({
                "id": instance_id(&instance, bar.try_number), "region_id": region_id, "region_index": region_index,
                "loop_iteration": loop_iteration(bar.loop_id.clone(), bar.position), "map_index": NOT_MAPPED,
                "task_id": bar.task_id, "task_display_name": bar.task_id, "try_number": bar.try_number, "state": bar.state,
                "scheduled_dttm": optional_stamp(bar.scheduled_at.or(bar.queued_at)),
                "queued_dttm": optional_stamp(bar.queued_at), "start_date": optional_stamp(bar.start_date),
                "end_date": optional_stamp(bar.end_date), "is_group": false, "is_mapped": false,
            })
        })
        .collect();
    Ok(Json(json!({"dag_id": key.dag_id, "run_id": key.run_id, "task_instances": bars_json})))
}

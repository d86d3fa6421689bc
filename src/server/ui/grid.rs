//! `/ui/grid` and `/ui/gantt`: the tasks of a DAG over its runs.

use super::structure::{not_found, part, setup_or_teardown};
use super::tree::{Node, tree};
use crate::engine::keys::RunKey;
use crate::engine::state::TaskState;
use crate::engine::store::grid::{self, Instances, States, Summary, Version};
use crate::engine::store::listing::{Column, Listing, Order};
use crate::engine::store::structures::VersionKey;
use crate::engine::store::{dags, runs};
use crate::server::api::views::{Stamp, maybe, stamp, version};
use crate::server::api_error::ApiError;
use crate::server::listing::{Fields, NOTHING};
use crate::server::request::{Params, Segments};
use crate::server::state::AppState;
use axum::Json;
use axum::body::{Body, Bytes};
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::{IntoResponse, Response};
use futures_util::future::try_join_all;
use futures_util::stream;
use jiff::{Timestamp, Unit};
use serde::{Serialize, Serializer};
use serde_json::{Map, Value, json};
use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::convert::Infallible;
use std::sync::Arc;

type Shared = State<Arc<AppState>>;

const RUN_AFTER: Column = Column::time("r.run_after");
const RUNS: Fields = Fields {
    order: &[
        ("run_after", RUN_AFTER),
        ("logical_date", Column::time("r.logical_date")),
        ("start_date", Column::time("r.start_date")),
        ("end_date", Column::time("r.end_date")),
    ],
    ranges: &[("run_after", RUN_AFTER)],
    exact: &[("run_type", Column::text("r.run_type")), ("state", Column::text("r.state"))],
    ..NOTHING
};

/// The runs that a grid has as its columns; the newest where nothing else is asked for.
fn columns(params: &Params, dag_id: &str) -> Result<Listing, ApiError> {
    let mut listing = params.listing(&RUNS)?;
    if listing.order.is_empty() {
        listing.order.push(Order { column: RUN_AFTER, descending: true });
    }
    let conditions = &mut listing.conditions;
    conditions.with("r.dag_id = {}", dag_id.to_owned());
    let user = params.text("triggering_user").map(|text| format!("%{text}%"));
    conditions.maybe("r.triggering_user_name ILIKE {}", user);
    let prefix = params.text("triggering_user_prefix").map(str::to_owned);
    conditions.maybe("starts_with(r.triggering_user_name, {}::text)", prefix);
    Ok(listing)
}

/// `/ui/grid/structure/{dag_id}`: of the newest version, and what the versions of the shown runs have beside it.
pub async fn structure(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    let newest = dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let found = runs::list(&*client, columns(&params, &dag_id)?).await?;
    let run_ids: Vec<String> = found.rows.into_iter().map(|run| run.key.run_id).collect();
    let part = part(&params)?;
    let newest_id = newest.version_id;
    let mut nodes = shown(&tree(&part.of(newest.into_structure())), false);
    let mut others: Vec<Version> = grid::versions(&*client, &dag_id, &run_ids).await?.into_values().collect();
    others.retain(|version| version.key.0 != newest_id);
    others.sort_unstable_by_key(|version| Reverse(version.number));
    let keys: Vec<VersionKey> = others.iter().map(|version| version.key).collect();
    let mut structures = state.structures.of(&*client, &keys).await?;
    // Each of them once, however many runs it has.
    for structure in keys.iter().filter_map(|key| structures.remove(key)) {
        merge(&mut nodes, shown(&tree(&part.of(Arc::unwrap_or_clone(structure))), false));
    }
    Ok(Json(nodes.into()))
}

fn shown(nodes: &[Node<'_>], is_within_mapped: bool) -> Vec<Value> {
    nodes.iter().map(|node| shown_one(node, is_within_mapped)).collect()
}

/// Without the fields that say nothing.
fn shown_one(node: &Node<'_>, is_within_mapped: bool) -> Value {
    let mut fields = Map::from_iter([("id".to_owned(), node.id().into()), ("label".to_owned(), node.label().into())]);
    let mut set = |name: &str, value: Value| drop(fields.insert(name.to_owned(), value));
    match node {
        Node::Task(task) => {
            if task.mapped || is_within_mapped {
                set("is_mapped", true.into());
            }
            let kind = setup_or_teardown(task.is_setup, task.is_teardown);
            if !kind.is_null() {
                set("setup_teardown_type", kind);
            }
        }
        Node::Group { children, is_mapped, .. } => {
            if *is_mapped {
                set("is_mapped", true.into());
            }
            set("children", shown(children, is_within_mapped || *is_mapped).into());
        }
    }
    fields.into()
}

/// What another version has that is not there yet.
fn merge(nodes: &mut Vec<Value>, others: Vec<Value>) {
    let places: HashMap<String, usize> =
        nodes.iter().enumerate().filter_map(|(at, node)| Some((node["id"].as_str()?.to_owned(), at))).collect();
    for mut other in others {
        let Some(at) = other["id"].as_str().and_then(|id| places.get(id)) else {
            nodes.push(other);
            continue;
        };
        let (inner, more) = (nodes[*at].get_mut("children"), other["children"].take());
        if let (Some(Value::Array(inner)), Value::Array(more)) = (inner, more) {
            merge(inner, more);
        }
    }
}

/// `/ui/grid/runs/{dag_id}`.
pub async fn runs(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let client = state.database.get().await?;
    dags::get(&*client, &dag_id).await.map_err(|_| not_found(&dag_id))?;
    let found = runs::list(&*client, columns(&params, &dag_id)?).await?;
    let now = Timestamp::now();
    let seconds = |start: Option<Timestamp>, end: Option<Timestamp>| {
        start.and_then(|start| (end.unwrap_or(now) - start).total(Unit::Second).ok()).unwrap_or(0.0)
    };
    let shown: Vec<Value> = found
        .rows
        .iter()
        .map(|run| {
            let mut fields = json!({
                "dag_id": run.key.dag_id, "run_id": run.key.run_id, "queued_at": stamp(run.queued_at),
                "run_after": stamp(run.run_after), "state": run.state, "run_type": run.run_type,
                "dag_versions": run.version.iter().map(version).collect::<Vec<_>>(),
                "has_missed_deadline": false, "has_note": run.note.is_some(),
                "duration": seconds(run.start_date, run.end_date),
            });
            for (name, at) in [("start_date", run.start_date), ("end_date", run.end_date)] {
                if let Some(at) = at {
                    fields[name] = stamp(at).into();
                }
            }
            fields
        })
        .collect();
    Ok(Json(shown.into()))
}

/// Of all states of several, the one that is shown.
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

/// Runs that Postgres is asked for before the first of them is there.
const AT_ONCE: usize = 8;
/// In bytes, with what is around it.
const USUAL_CELL: usize = 256;

/// A line of what `/ui/grid/ti_summaries` answers.
#[derive(Serialize)]
struct OfRun<'a> {
    run_id: &'a str,
    dag_id: &'a str,
    task_instances: Vec<OfTask<'a>>,
}

/// A cell of the grid. It is written by the tens of thousands, hence of a type of its own.
#[derive(Serialize)]
struct OfTask<'a> {
    task_id: &'a str,
    task_display_name: &'a str,
    state: Option<TaskState>,
    child_states: Option<ByName>,
    min_start_date: Option<Stamp>,
    max_end_date: Option<Stamp>,
    dag_version_number: Option<i32>,
    has_note: bool,
}

struct ByName(States);

impl Serialize for ByName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_map(self.0.iter().map(|(state, count)| (state.map_or("none", TaskState::as_str), count)))
    }
}

impl<'a> OfTask<'a> {
    fn new(task_id: &'a str, label: &'a str, of: &Summary, version: Option<Version>, is_alone: bool) -> Self {
        Self {
            task_id,
            task_display_name: label,
            state: PRIORITY.into_iter().find(|state| of.states.count(*state) > 0).flatten(),
            child_states: (!is_alone).then_some(ByName(of.states)),
            min_start_date: of.min_start_date.map(Stamp),
            max_end_date: of.max_end_date.map(Stamp),
            dag_version_number: version.map(|version| version.number),
            has_note: of.has_note,
        }
    }
}

/// What a run has of each task, and of what it is a run.
struct Found<'a> {
    tasks: HashMap<&'a str, Summary>,
    version: Option<Version>,
}

impl<'a> Found<'a> {
    /// The nodes with those within them, groups before what they have. Returns the sum of all.
    fn add<'b>(&mut self, nodes: &[Node<'b>], shown: &mut Vec<OfTask<'b>>) -> Summary {
        let mut all = Summary::default();
        for node in nodes {
            match node {
                Node::Task(task) => {
                    let found = self.tasks.remove(task.task_id.as_str());
                    let mut of = found.unwrap_or_default();
                    if task.mapped && found.is_none() {
                        of.states.add(None);
                    }
                    let label = task.display_name.as_deref().unwrap_or(&task.task_id);
                    shown.push(OfTask::new(&task.task_id, label, &of, self.version, !task.mapped));
                    all.merge(&of);
                }
                Node::Group { group, children, .. } => {
                    let (id, at) = (group.group_id.as_str(), shown.len());
                    // A task that was called as a group is now is not shown beside it.
                    self.tasks.remove(id);
                    shown.push(OfTask::new(id, id, &Summary::default(), self.version, false));
                    let of = self.add(children, shown);
                    shown[at] = OfTask::new(id, id, &of, self.version, false);
                    all.merge(&of);
                }
            }
        }
        all
    }

    /// All nodes, and what the version has no more.
    fn cells(mut self, nodes: &[Node<'a>]) -> Vec<OfTask<'a>> {
        let mut shown = Vec::with_capacity(self.tasks.len());
        self.add(nodes, &mut shown);
        let lost: BTreeMap<&str, Summary> = self.tasks.into_iter().collect();
        shown.extend(lost.iter().map(|(id, of)| OfTask::new(id, id, of, self.version, true)));
        shown
    }
}

/// `/ui/grid/ti_summaries/{dag_id}`: a line of JSON for each run, in the order in which they were asked for.
pub async fn ti_summaries(
    State(state): Shared,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Response, ApiError> {
    let mut run_ids = params.texts("run_ids");
    let mut seen = HashSet::new();
    run_ids.retain(|run_id| seen.insert(run_id.clone()));
    let client = state.database.get().await?;
    let known = grid::versions(&*client, &dag_id, &run_ids).await?;
    let keys: Vec<VersionKey> = known.values().map(|version| version.key).collect();
    let structures = state.structures.of(&*client, &keys).await?;
    let trees: HashMap<VersionKey, Vec<Node<'_>>> = structures.iter().map(|(key, of)| (*key, tree(of))).collect();
    let line = async |run_id: &String| -> Result<Bytes, ApiError> {
        let instances = Instances::of(&*client, &dag_id, run_id).await?;
        let found = Found { tasks: instances.by_task(), version: known.get(run_id).copied() };
        if found.tasks.is_empty() {
            return Ok(Bytes::new());
        }
        let nodes = found.version.and_then(|version| trees.get(&version.key)).map_or(&[][..], Vec::as_slice);
        let mut text = Vec::with_capacity(found.tasks.len() * USUAL_CELL);
        let line = OfRun { run_id, dag_id: &dag_id, task_instances: found.cells(nodes) };
        serde_json::to_writer(&mut text, &line).map_err(|error| ApiError::internal(&error))?;
        text.push(b'\n');
        Ok(text.into())
    };
    // Postgres has several questions at once, and looks for the next run's while a line is written.
    let mut lines = Vec::with_capacity(run_ids.len());
    for some in run_ids.chunks(AT_ONCE) {
        lines.extend(try_join_all(some.iter().map(&line)).await?);
    }
    let body = Body::from_stream(stream::iter(lines.into_iter().map(Ok::<_, Infallible>)));
    Ok(([(header::CONTENT_TYPE, "application/x-ndjson")], body).into_response())
}

/// `/ui/gantt/{dag_id}/{run_id}`.
pub async fn gantt(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
) -> Result<Json<Value>, ApiError> {
    let key = RunKey { dag_id, run_id };
    let bars = grid::bars(&*state.database.get().await?, &key).await?;
    let RunKey { dag_id, run_id } = key;
    if bars.is_empty() {
        let detail = format!("No task instances for dag_id={dag_id} run_id={run_id}");
        return Err(ApiError::new(StatusCode::NOT_FOUND, detail));
    }
    let shown: Vec<Value> = bars
        .iter()
        .map(|bar| {
            json!({
                "task_id": bar.task_id, "task_display_name": bar.task_id, "try_number": bar.try_number, "state": bar.state,
                "scheduled_dttm": maybe(bar.scheduled_at.or(bar.queued_at)), "queued_dttm": maybe(bar.queued_at),
                "start_date": maybe(bar.start_date), "end_date": maybe(bar.end_date), "is_group": false, "is_mapped": false,
            })
        })
        .collect();
    Ok(Json(json!({"dag_id": dag_id, "run_id": run_id, "task_instances": shown})))
}

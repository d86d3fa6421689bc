//! Overviews for the command line: all DAGs with their last runs and import errors, one DAG with its next runs, and a
//! run with all of its tasks.

use super::queue::{self, Waiting};
use crate::api::run::backfills as backfill_views;
use crate::api::views;
use crate::app_state::{AppState, Shared};
use crate::http::api_error::ApiError;
use crate::http::datastore::Datastore;
use crate::http::request::{Params, Segments};
use axum::Json;
use axum::extract::State;
use jiff::{SignedDuration, Timestamp};
use leoflow_engine::model::keys::{NOT_MAPPED, Position, RunKey};
use leoflow_engine::model::state::{RunState, TaskState};
use leoflow_engine::planner::graph::Graph;
use leoflow_engine::schedule::timetable::Interval;
use leoflow_engine::schedule::upcoming::upcoming;
use leoflow_engine::scheduler::past;
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::dag::dags::{self, Activity, Dag, DagFilter};
use leoflow_engine::store::dag::import_errors::{self, ImportError};
use leoflow_engine::store::event_log::{self, LoggedEvent};
use leoflow_engine::store::instance::backlog;
use leoflow_engine::store::instance::instances::{self, Instance, InstanceFilter};
use leoflow_engine::store::list::column::Order;
use leoflow_engine::store::list::listing::{ListPage, Listing, Page};
use leoflow_engine::store::run::backfills;
use leoflow_engine::store::run::runs::{self, Run, RunField, RunFilter};
use leoflow_engine::store::{ReadFor, pools};
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value, json};
use std::collections::{BTreeMap, HashMap};
use std::time::{Duration, Instant};

/// Runs per DAG in the list.
const LAST_RUNS: i64 = 10;
/// Maximum delay between the end of a task, whose time its keeper process records, and the write to the datastore.
const MAX_END_DELAY: SignedDuration = SignedDuration::from_secs(2);
const NEXT_RUN_LIMIT: Duration = Duration::from_secs(5);
const NEXT_RUN_POLL: Duration = Duration::from_millis(20);
/// Backfills per DAG.
const LAST_BACKFILLS: i64 = 5;

pub async fn dags(State(state): Shared, params: Params) -> Result<Json<Value>, ApiError> {
    // Before the DAGs are read, so that none is imported in between.
    let importing = *state.dag_files.initial_files.borrow();
    let client = state.core.database.get().await?;
    let activity = if params.flag("all")?.unwrap_or(false) { Activity::Any } else { Activity::Active };
    let filter = DagFilter { activity, ..DagFilter::default() };
    let listed = dags::list(&*client, &state.dag_files.structures, Listing::of(filter)).await?.rows;
    let errors = import_errors::list(&*client, Listing::default()).await?.rows;
    let newest = runs::newest(&*client, None, LAST_RUNS).await?;
    let mut by_dag: HashMap<&str, Vec<&Run>> = HashMap::new();
    for run in &newest {
        by_dag.entry(&run.key.dag_id).or_default().push(run);
    }
    let view = |dag: &Dag| {
        let error = errors.iter().find(|error| error.filename == dag.fileloc);
        dag_view(dag, by_dag.get(dag.dag_id.as_str()).map_or(&[][..], Vec::as_slice), error)
    };
    let list: Vec<Value> = listed.iter().map(view).collect();
    let errors: Vec<Value> = errors.iter().map(error_view).collect();
    Ok(Json(json!({
        "dags": list, "import_errors": errors, "being_built": being_built(&state), "importing": importing,
    })))
}

fn dag_view(dag: &Dag, runs: &[&Run], error: Option<&ImportError>) -> Value {
    let newest = runs.iter().max_by_key(|run| (run.run_after, run.queued_at));
    let run_view = |run: &&Run| {
        json!({
            "dag_run_id": run.key.run_id, "state": run.state, "run_after": views::stamp(run.run_after),
            "start_date": run.start_date.map(views::stamp), "end_date": run.end_date.map(views::stamp),
        })
    };
    json!({
        "dag_id": dag.dag_id,
        "is_paused": dag.is_paused,
        "is_stale": !dag.is_active,
        "fileloc": dag.fileloc,
        "relative_fileloc": dag.relative_fileloc,
        "bundle_name": views::BUNDLE,
        "owners": dag.structure.owners,
        "schedule": dag.structure.schedule,
        "description": dag.structure.description,
        "tags": dag.structure.tags,
        "tasks": dag.structure.tasks.len(),
        "last_parse_duration": dag.last_parse_duration,
        "last_run_state": newest.map(|run| &run.state),
        "import_error": error.map(|error| &error.stack_trace),
        "next_run_after": dag.next_run_after.map(views::stamp),
        "last_runs": runs.iter().map(run_view).collect::<Vec<_>>(),
    })
}

/// The environments that are being built, with the files that wait for them.
fn being_built(state: &AppState) -> Vec<Value> {
    state
        .environments
        .required()
        .iter()
        .filter(|required| required.state == "building")
        .map(|required| {
            let (requirements, detail) = (&required.declared.requirements, &required.detail);
            json!({"files": required.files, "requirements": requirements, "detail": detail})
        })
        .collect()
}

fn error_view(error: &ImportError) -> Value {
    json!({"filename": error.filename, "stack_trace": error.stack_trace})
}

/// Returns a DAG with its newest runs and its tasks.
pub async fn dag(Datastore(client): Datastore, Segments(dag_id): Segments<String>) -> Result<Json<Value>, ApiError> {
    let dag = dags::get(&*client, &dag_id).await?;
    let mut newest = Listing::of(RunFilter::of_dag(&dag_id)).with_page(Page::first(50));
    newest.order.push(Order::descending(RunField::RunAfter));
    let ListPage { rows: runs, total, .. } = runs::list(&*client, newest).await?;
    let errors = import_errors::list(&*client, Listing::default()).await?.rows;
    let error = errors.iter().find(|error| error.filename == dag.fileloc).map(|error| &error.stack_trace);
    let mut last_backfills = Vec::new();
    for (backfill, states) in backfills::newest(&*client, &dag_id, LAST_BACKFILLS).await? {
        let mut view = json!(backfill_views::view(backfill));
        view["states"] = states.into();
        last_backfills.push(view);
    }
    let is_periodic = dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.can_be_backfilled());
    let unknown_pools = unknown_pools(&*client, &dag_id).await?;
    let is_stalled = !dag_facts::stalled_schedules(&*client, Some(&dag_id)).await?.is_empty();
    Ok(Json(json!({
        "dag_id": dag.dag_id,
        "unknown_pools": unknown_pools,
        "next_run_after": dag.next_run_after.map(views::stamp),
        "is_schedule_stalled": is_stalled,
        "is_backfillable": is_periodic,
        "backfills": last_backfills,
        "is_paused": dag.is_paused,
        "is_stale": !dag.is_active,
        "fileloc": dag.fileloc,
        "schedule": dag.structure.schedule,
        "description": dag.structure.description,
        "doc_md": dag.structure.doc_md,
        "tags": dag.structure.tags,
        "params": dag.structure.params,
        "version_number": dag.version_number,
        "import_error": error,
        "tasks": dag.structure.tasks,
        "runs": runs.into_iter().map(views::run).collect::<Vec<_>>(),
        "total_runs": total,
    })))
}

/// Returns when the next `?count=` runs of a DAG are due; fewer if only the DAG's own code can compute them. Waits up to
/// `NEXT_RUN_LIMIT` for the scheduler, which computes the next run of a new version.
pub async fn next(
    Datastore(client): Datastore,
    Segments(dag_id): Segments<String>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let count = params.whole("count")?.and_then(|count| usize::try_from(count).ok()).unwrap_or(1).min(1000);
    let start = Instant::now();
    while start.elapsed() < NEXT_RUN_LIMIT && dag_facts::is_next_run_stale(&*client, &dag_id).await? {
        tokio::time::sleep(NEXT_RUN_POLL).await;
    }
    let dag = dags::get(&*client, &dag_id).await?;
    let first = dag.next_run_after.map(|at| (at, dag.next_interval.map(|(start, end)| Interval { start, end })));
    let (timetable, restriction) = (dag.structure.timetable.as_ref(), dag.structure.restriction());
    let next: Vec<Value> = first
        .map(|first| upcoming(timetable, restriction, first, count, jiff::Timestamp::now()))
        .unwrap_or_default()
        .into_iter()
        .map(|(run_after, logical_date)| {
            json!({"run_after": views::stamp(run_after), "logical_date": logical_date.map(views::stamp)})
        })
        .collect();
    Ok(Json(json!({"next": next})))
}

/// Returns a run with all of its task instances, in the order of the DAG. `?fold=N` replaces the instances of a mapped
/// task with more than N by counts per state. `?changed_after=TIME`, the `as_of` of an earlier answer, returns only the
/// instances that changed since, in any order.
pub async fn run(
    State(state): Shared,
    Segments((dag_id, run_id)): Segments<(String, String)>,
    params: Params,
) -> Result<Json<Value>, ApiError> {
    let fold = params.whole("fold")?.map(|most| usize::try_from(most).unwrap_or(0));
    let changed_after = params.time("changed_after")?;
    let as_of = Timestamp::now() - MAX_END_DELAY;
    let key = RunKey { dag_id, run_id };
    let client = state.core.database.get().await?;
    let run = runs::get(&*client, &key, ReadFor::Reading).await?;
    let filter = InstanceFilter { changed_after, ..InstanceFilter::of_run(&key) };
    let mut instances = instances::list(&*client, Listing::of(filter)).await?.rows;
    let (is_paused, graph) = if changed_after.is_some() {
        (dags::is_paused(&*client, &key.dag_id).await?, None)
    } else {
        let dag = dags::get(&*client, &key.dag_id).await?;
        let is_paused = dag.is_paused;
        let graph = Graph::new(dag.into_structure());
        let position = |instance: &Instance| {
            (graph.task_index(&instance.key.task_id).unwrap_or(usize::MAX), instance.key.position)
        };
        instances.sort_by_cached_key(position);
        (is_paused, Some(graph))
    };
    // Only when all instances are read, because a command that follows a run reads changes several times a second.
    let is_finished = matches!(run.state, RunState::Success | RunState::Failed);
    let waiting = match graph.filter(|_| !is_finished) {
        Some(graph) => waiting_of(&*client, &run, &graph, &instances).await?,
        None => Vec::new(),
    };
    let callback_failures = match changed_after {
        Some(_) => Vec::new(),
        // Failures before the run was cleared are those of an earlier end.
        None => event_log::failed_callbacks(&*client, Some(&key), run.queued_at).await?,
    };
    let stamp = |at: Option<jiff::Timestamp>| at.map(views::stamp);
    Ok(Json(json!({
        "dag_id": key.dag_id,
        "dag_run_id": key.run_id,
        "state": run.state,
        "start_date": stamp(run.start_date),
        "end_date": stamp(run.end_date),
        "run_after": views::stamp(run.run_after),
        "run_type": run.run_type,
        "logical_date": stamp(run.logical_date),
        "data_interval_start": stamp(run.data_interval_start),
        "data_interval_end": stamp(run.data_interval_end),
        "conf": run.conf,
        "note": run.note,
        "is_paused": is_paused,
        "as_of": views::stamp(as_of),
        "waiting": waiting,
        "callback_failures": callback_failures.into_iter().rev().map(callback_failure).collect::<Vec<_>>(),
        "task_instances": instance_views(&instances, fold),
    })))
}

/// Returns the fields `callback`, `error` and `log` of an event, and its time; for a try also `try_number` and the task.
fn callback_failure(event: LoggedEvent) -> Value {
    let fields = event.what.extra.and_then(|extra| serde_json::from_str(&extra).ok());
    let mut fields: Map<String, Value> = fields.unwrap_or_default();
    fields.insert("time".to_owned(), views::stamp(event.created_at).into());
    if fields.contains_key("try_number") {
        fields.insert("task_id".to_owned(), event.what.task_id.into());
        fields.insert("map_index".to_owned(), event.what.position.map(Position::map_index).into());
    }
    fields.into()
}

/// Returns the reasons why a run or its tasks wait.
async fn waiting_of(
    client: &impl GenericClient,
    run: &Run,
    graph: &Graph,
    instances: &[Instance],
) -> Result<Vec<Waiting>, ApiError> {
    let backlog = backlog::of_run(client, &run.key, Timestamp::now()).await?;
    let pools = match backlog.scheduled.is_empty() {
        true => Vec::new(),
        false => pools::list(client, Listing::default()).await?.rows,
    };
    let mut waiting = queue::of_backlog(&backlog, &pools);
    if run.state == RunState::Running {
        let held = past::held_by_past(client, &run.key, graph, run.logical_date).await?;
        let is_held = |instance: &&Instance| {
            let task_index = graph.task_index(&instance.key.task_id);
            instance.state.is_none() && task_index.is_some_and(|index| held.tasks.contains(&index))
        };
        let count = instances.iter().filter(is_held).count();
        if let Some(previous) = held.previous_run.as_ref().filter(|_| count > 0) {
            waiting.push(queue::of_past(count, &run.key.dag_id, previous));
        }
    }
    Ok(waiting)
}

/// Returns the pools that a DAG's tasks name but that do not exist.
async fn unknown_pools(client: &impl GenericClient, dag_id: &str) -> Result<Vec<String>, ApiError> {
    let unknown = dag_facts::unknown_pools(client, Some(dag_id)).await?;
    Ok(unknown.into_iter().map(|unknown| unknown.pool).collect())
}

/// Returns the instances as JSON. A mapped task with more than `fold` instances becomes counts per state.
fn instance_views(instances: &[Instance], fold: Option<usize>) -> Vec<Value> {
    let mut views = Vec::with_capacity(instances.len());
    for task_instances in instances.chunk_by(|instance, next| instance.key.task_id == next.key.task_id) {
        let is_mapped = task_instances[0].key.position != Position::ONLY;
        match fold {
            Some(most) if is_mapped && task_instances.len() > most => views.push(folded(task_instances)),
            _ => views.extend(task_instances.iter().map(instance_view)),
        }
    }
    views
}

fn instance_view(instance: &Instance) -> Value {
    json!({
        "task_id": instance.key.task_id,
        "map_index": instance.key.position.map_index(), "iteration": instance.key.position.iteration(),
        "rendered_map_index": instance.rendered_map_index,
        "state": instance.state,
        "try_number": instance.try_number,
        "start_date": instance.start_date.map(views::stamp),
        "end_date": instance.end_date.map(views::stamp),
        "operator": instance.operator,
        "max_tries": instance.max_tries,
        "next_try_at": instance.due_at.filter(|_| instance.state == Some(TaskState::UpForRetry)).map(views::stamp),
        "outcome": instance.outcome,
    })
}

/// Folds the instances of a mapped task into counts per state.
fn folded(instances: &[Instance]) -> Value {
    let mut states: BTreeMap<&str, usize> = BTreeMap::new();
    for instance in instances {
        *states.entry(instance.state.map_or("none", TaskState::as_str)).or_default() += 1;
    }
    json!({
        "task_id": instances[0].key.task_id,
        "map_index": NOT_MAPPED,
        "operator": instances[0].operator,
        "mapped": {"total": instances.len(), "states": states},
    })
}

//! Sets the state of runs and task instances manually, and deletes instances.

use super::clear::{Clearing, Selection};
use super::relatives::{InstanceSet, Relation, Relatives};
use super::{instances, planner_input};
use crate::model::keys::{InstanceKey, Position, RunKey};
use crate::model::state::{RunState, TaskState};
use crate::planner::graph::Graph;
use crate::store::dag::callbacks;
use crate::store::dag::dags::{self, Dag};
use crate::store::events::{self, Event};
use crate::store::instance_key::{INSTANCE, KEY};
use crate::store::rows::{exists, fetch_all};
use crate::store::run::version_choice::VersionChoice;
use crate::store::run::{new_run, runs};
use crate::store::transition::{self, instance};
use crate::store::{ReadFor, Result, StoreError, notifications};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

/// Selects the task instances of a run, and related ones, that get a state.
#[derive(Debug, Clone)]
pub struct Marking {
    pub tasks: Vec<String>,
    /// Selects only the instances with this position.
    pub position: Option<Position>,
    pub state: TaskState,
    pub upstream: bool,
    pub downstream: bool,
    /// Also marks the tasks in later runs.
    pub future: bool,
    /// Also marks the tasks in earlier runs.
    pub past: bool,
}

impl Marking {
    /// The bounds of the logical dates of the marked runs, if the marking applies to several runs. `date` is the logical
    /// date of the run itself.
    fn dates(&self, date: Option<Timestamp>) -> Option<(Option<Timestamp>, Option<Timestamp>)> {
        let date = date.filter(|_| self.future || self.past)?;
        Some(((!self.past).then_some(date), (!self.future).then_some(date)))
    }
}

/// Returns the runs that a marking applies to.
async fn runs_to_mark(client: &impl GenericClient, dag: &Dag, key: &RunKey, marking: &Marking) -> Result<Vec<RunKey>> {
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let Some((from, to)) = marking.dates(run.logical_date) else { return Ok(vec![key.clone()]) };
    let timetable = dag.structure.timetable.as_ref();
    let is_unscheduled = dag.structure.schedule.is_none();
    if !is_unscheduled && !timetable.is_some_and(|timetable| timetable.is_periodic()) {
        return Ok(vec![key.clone()]);
    }
    // With a periodic schedule, selects only scheduled and backfill runs, and the run itself.
    let query = "
        SELECT dag_id, run_id FROM dag_run
        WHERE dag_id = $1 AND logical_date IS NOT NULL AND ($2::timestamptz IS NULL OR logical_date >= $2)
          AND ($3::timestamptz IS NULL OR logical_date <= $3)
          AND ($4 OR run_id = $5 OR run_type IN ('scheduled', 'backfill')) ORDER BY logical_date, run_id";
    fetch_all(client, query, &[&key.dag_id, &from, &to, &is_unscheduled, &key.run_id]).await
}

/// Returns the other runs whose failed downstream instances are cleared with a marking of several runs. As in Airflow,
/// they are the runs of any type with such a date, or all runs.
async fn others_to_clear(
    client: &impl GenericClient,
    key: &RunKey,
    marking: &Marking,
    marked: &[RunKey],
) -> Result<Vec<RunKey>> {
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let Some((from, to)) = marking.dates(run.logical_date) else { return Ok(Vec::new()) };
    let marked: Vec<&str> = marked.iter().map(|run| run.run_id.as_str()).collect();
    let query = "
        SELECT dag_id, run_id FROM dag_run r
        WHERE dag_id = $1 AND ($2::timestamptz IS NULL OR logical_date >= $2)
          AND ($3::timestamptz IS NULL OR logical_date <= $3) AND run_id <> ALL ($4)
          AND EXISTS (SELECT FROM task_instance ti WHERE ti.dag_id = r.dag_id AND ti.run_id = r.run_id
                      AND ti.state IN ('failed', 'upstream_failed'))";
    fetch_all(client, query, &[&key.dag_id, &from, &to, &marked]).await
}

/// Returns the instances that a marking would change.
pub async fn select(client: &impl GenericClient, key: &RunKey, marking: &Marking) -> Result<Vec<InstanceKey>> {
    let dag = dags::get(client, &key.dag_id).await?;
    let graph = Graph::new((*dag.structure).clone());
    let mut selected = Vec::new();
    for run in runs_to_mark(client, &dag, key, marking).await? {
        selected.extend(of_run(client, &run, marking, &graph).await?);
    }
    Ok(selected)
}

/// Selects the instances of one run. Selects removed instances, which belong to no element of the list, only by their
/// map index.
async fn of_run(
    client: &impl GenericClient,
    run: &RunKey,
    marking: &Marking,
    graph: &Graph,
) -> Result<Vec<InstanceKey>> {
    let unrolled = planner_input::unroll(client, run, graph).await?;
    let graph = unrolled.as_ref().unwrap_or(graph);
    let relatives = relatives(client, run, marking, graph).await?;
    let query =
        format!("SELECT task_id, map_index, state FROM task_instance WHERE dag_id = $1 AND run_id = $2 ORDER BY {KEY}");
    let mut selected = Vec::new();
    for (task_id, position, state) in
        fetch_all::<(String, Position, Option<TaskState>)>(client, &query, &[&run.dag_id, &run.run_id]).await?
    {
        let exists = state != Some(TaskState::Removed);
        // An instance of a removed iteration would have no place in the run.
        let may_be_named = exists || position.iteration().is_none();
        let is_named = may_be_named
            && marking.tasks.contains(&task_id)
            && marking.position.map_or(exists, |marked| marked == position);
        let index = graph.index_in(&task_id, position.iteration());
        let is_related = exists && index.is_some_and(|index| relatives.contains(index, position.map_index()));
        if state != Some(marking.state) && (is_named || is_related) {
            selected.push(InstanceKey { run: run.clone(), task_id, position });
        }
    }
    Ok(selected)
}

/// Returns the requested upstream and downstream instances; within a mapped group, those of the same copy. Downstream
/// teardowns are excluded.
async fn relatives(client: &impl GenericClient, run: &RunKey, marking: &Marking, graph: &Graph) -> Result<InstanceSet> {
    if !marking.upstream && !marking.downstream {
        return Ok(InstanceSet::default());
    }
    let lengths = planner_input::lengths(client, run, graph).await?;
    let relatives = Relatives { graph, lengths: &lengths };
    let named = InstanceSet::named(graph, marking.tasks.iter().map(|id| (id.as_str(), marking.position)));
    let mut related = InstanceSet::default();
    if marking.downstream {
        related = relatives.related_to(&named, Relation::Downstream);
        related.whole_tasks.retain(|task_index| !graph.task(*task_index).is_teardown);
        related.single_instances.retain(|(task_index, _)| !graph.task(*task_index).is_teardown);
    }
    if marking.upstream {
        related.extend(relatives.related_to(&named, Relation::Upstream));
    }
    Ok(related)
}

/// Marks the instances, stops those that run, and clears failed downstream instances. Returns the marked instances.
pub async fn mark(transaction: &Transaction<'_>, key: &RunKey, marking: &Marking) -> Result<Vec<InstanceKey>> {
    let failed_downstream = Selection {
        tasks: marking.tasks.iter().map(|id| (id.clone(), marking.position)).collect(),
        downstream: true,
        only_failed: true,
        except: marking.tasks.clone(),
        ..Selection::default()
    };
    let mut clearing = Clearing::load(transaction, &key.dag_id, &failed_downstream, VersionChoice::Own).await?;
    let graph = Graph::new((*clearing.versions.dag.structure).clone());
    let runs = runs_to_mark(transaction, &clearing.versions.dag, key, marking).await?;
    let others = others_to_clear(transaction, key, marking, &runs).await?;
    // The scheduler takes the same lock to plan a run.
    runs::lock(transaction, &[runs.as_slice(), &others].concat()).await?;
    let mut changed = Vec::new();
    for run in &runs {
        let marked = of_run(transaction, run, marking, &graph).await?;
        if !marked.is_empty() {
            set_state(transaction, run, &marked, marking.state).await?;
        }
        changed.extend(marked);
    }
    for run in runs.iter().chain(&others) {
        let to_clear = clearing.select(transaction, run).await?;
        if !to_clear.is_empty() {
            clearing.clear(transaction, run, &to_clear).await?;
        }
    }
    Ok(changed)
}

/// Sets the state of instances of one run, and notifies the scheduler and the agent.
async fn set_state(
    transaction: &Transaction<'_>,
    run: &RunKey,
    marked: &[InstanceKey],
    state: TaskState,
) -> Result<()> {
    instance::mark(transaction, marked, state).await?;
    if state == TaskState::Success {
        let tasks: Vec<&str> = marked.iter().map(|key| key.task_id.as_str()).collect();
        notifications::end_failures(transaction, &run.dag_id, Some(&tasks)).await?;
    }
    runs::bump_revision(transaction, run).await?;
    let events = [Event::Stop, Event::Triggers, Event::Plan(run.clone()), Event::Capacity, Event::Changed(run.clone())];
    events::notify_all(transaction, &events).await
}

/// Marks a run, as Airflow does: running and suspended instances get the run's state and are stopped, other unfinished
/// ones are skipped, and teardowns still run, after which the run ends. `Queued` requeues the run without a change of
/// its instances; `Running` changes nothing.
pub async fn run(transaction: &Transaction<'_>, key: &RunKey, state: RunState) -> Result<()> {
    let run = runs::get(transaction, key, ReadFor::Update).await?;
    if state == RunState::Queued {
        transition::run::requeue(transaction, key, new_run::now()).await?;
        events::notify(transaction, &Event::Sweep).await?;
    } else if state.is_finished() {
        let teardowns = teardowns(transaction, key).await?;
        instance::end_unfinished(transaction, key, state, &teardowns).await?;
        if run.state.is_finished() || !has_unfinished(transaction, key).await? {
            transition::run::mark(transaction, key, run.state, state).await?;
            callbacks::add_marked(transaction, key, state).await?;
            if state == RunState::Success {
                notifications::end_failures(transaction, &key.dag_id, None).await?;
            }
            runs::complete_backfill_of(transaction, key).await?;
        } else {
            transition::run::set_mark(transaction, key, Some(state)).await?;
            events::notify(transaction, &Event::Plan(key.clone())).await?;
        }
        runs::notify_waiting_runs(transaction, key).await?;
        // With `Sweep`, a queued run may be waiting for this one to end.
        events::notify_all(transaction, &[Event::Stop, Event::Triggers, Event::Sweep]).await?;
    }
    events::notify(transaction, &Event::Changed(key.clone())).await
}

/// The teardown tasks of the run's version.
async fn teardowns(client: &impl GenericClient, key: &RunKey) -> Result<Vec<String>> {
    let query = "
        SELECT task->>'task_id' FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id
        CROSS JOIN LATERAL jsonb_array_elements(v.structure->'tasks') AS task
        WHERE r.dag_id = $1 AND r.run_id = $2 AND (task->>'is_teardown')::boolean";
    fetch_all(client, query, &[&key.dag_id, &key.run_id]).await
}

async fn has_unfinished(client: &impl GenericClient, key: &RunKey) -> Result<bool> {
    let query = "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2
                 AND (state IS NULL OR state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed')) LIMIT 1";
    exists(client, query, &[&key.dag_id, &key.run_id]).await
}

/// Deletes an instance with its tries, XComs and stored state.
pub async fn delete_instance(transaction: &Transaction<'_>, key: &InstanceKey) -> Result<()> {
    let InstanceKey { run, task_id, position } = key;
    runs::get(transaction, run, ReadFor::Update).await?;
    instances::lock(transaction, std::slice::from_ref(key)).await?;
    // A process that still runs could write to a new instance with the same key.
    let running = format!("SELECT FROM task_try WHERE {} AND state = 'running'", INSTANCE.is("task_try", 1));
    if exists(transaction, &running, &key.after(&[])).await? {
        return Err(StoreError::Busy(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{task_id}` and map_index: `{}` cannot \
             be deleted while it is running; set its state first",
            run.dag_id,
            run.run_id,
            position.map_index()
        )));
    }
    for table in ["task_state", "task_instance"] {
        let query = format!("DELETE FROM {table} WHERE {}", INSTANCE.is(table, 1));
        transaction.execute(&query, &key.after(&[])).await?;
    }
    runs::bump_revision(transaction, run).await?;
    let events = [Event::Plan(run.clone()), Event::Capacity, Event::Changed(run.clone())];
    events::notify_all(transaction, &events).await
}

//! Sets the state of runs and task instances manually, and deletes instances.

use super::clear::{Clearing, Selection};
use super::instances;
use super::relatives::{InstanceSet, Relation, Relatives};
use crate::model::keys::{InstanceKey, RunKey};
use crate::model::state::{RunState, TaskState};
use crate::planner::graph::Graph;
use crate::store::dag::callbacks;
use crate::store::dag::dags::{self, Dag};
use crate::store::events::{self, Event};
use crate::store::run::backfill_end;
use crate::store::run::lengths;
use crate::store::run::new_run;
use crate::store::run::runs;
use crate::store::run::version_choice::VersionChoice;
use crate::store::transition::{self, instance};
use crate::store::{ReadFor, StoreError};
use deadpool_postgres::Transaction;
use leoflow_postgres::GenericClient;
use tokio_postgres::types::ToSql;

/// Selects the task instances of a run, and related ones, that get a state.
#[derive(Debug, Clone)]
pub struct Marking {
    pub tasks: Vec<String>,
    /// Selects only the instances with this map index.
    pub map_index: Option<i32>,
    pub state: TaskState,
    pub upstream: bool,
    pub downstream: bool,
    /// Also marks the tasks in later runs.
    pub future: bool,
    /// Also marks the tasks in earlier runs.
    pub past: bool,
}

/// Returns the runs that a marking applies to.
async fn runs_to_mark(
    client: &impl GenericClient,
    dag: &Dag,
    key: &RunKey,
    marking: &Marking,
) -> Result<Vec<RunKey>, StoreError> {
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let Some(date) = run.logical_date.filter(|_| marking.future || marking.past) else { return Ok(vec![key.clone()]) };
    let timetable = dag.structure.timetable.as_ref();
    let is_unscheduled = dag.structure.schedule.is_none();
    if !is_unscheduled && !timetable.is_some_and(|timetable| timetable.is_periodic()) {
        return Ok(vec![key.clone()]);
    }
    let (from, to) = ((!marking.past).then_some(date), (!marking.future).then_some(date));
    // With a periodic schedule, selects only scheduled and backfill runs, and the run itself.
    let query = "
        SELECT run_id FROM dag_run
        WHERE dag_id = $1 AND logical_date IS NOT NULL AND ($2::timestamptz IS NULL OR logical_date >= $2)
          AND ($3::timestamptz IS NULL OR logical_date <= $3)
          AND ($4 OR run_id = $5 OR run_type IN ('scheduled', 'backfill')) ORDER BY logical_date, run_id";
    let rows = client.query(query, &[&key.dag_id, &from, &to, &is_unscheduled, &key.run_id]).await?;
    Ok(rows.iter().map(|row| RunKey { dag_id: key.dag_id.clone(), run_id: row.get(0) }).collect())
}

/// Returns the other runs whose failed downstream instances are cleared with a marking of several runs. As in Airflow,
/// they are the runs of any type with such a date, or all runs.
async fn others_to_clear(
    client: &impl GenericClient,
    key: &RunKey,
    marking: &Marking,
    marked: &[RunKey],
) -> Result<Vec<RunKey>, StoreError> {
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let Some(date) = run.logical_date.filter(|_| marking.future || marking.past) else { return Ok(Vec::new()) };
    let (from, to) = ((!marking.past).then_some(date), (!marking.future).then_some(date));
    let marked: Vec<&str> = marked.iter().map(|run| run.run_id.as_str()).collect();
    let query = "
        SELECT run_id FROM dag_run r
        WHERE dag_id = $1 AND ($2::timestamptz IS NULL OR logical_date >= $2)
          AND ($3::timestamptz IS NULL OR logical_date <= $3) AND run_id <> ALL ($4)
          AND EXISTS (SELECT FROM task_instance ti WHERE ti.dag_id = r.dag_id AND ti.run_id = r.run_id
                      AND ti.state IN ('failed', 'upstream_failed'))";
    let rows = client.query(query, &[&key.dag_id, &from, &to, &marked]).await?;
    Ok(rows.iter().map(|row| RunKey { dag_id: key.dag_id.clone(), run_id: row.get(0) }).collect())
}

/// Returns the instances that a marking would change.
pub async fn select(
    client: &impl GenericClient,
    key: &RunKey,
    marking: &Marking,
) -> Result<Vec<InstanceKey>, StoreError> {
    let dag = dags::get(client, &key.dag_id).await?;
    let graph = Graph::new((*dag.structure).clone());
    let mut selected = Vec::new();
    for run in runs_to_mark(client, &dag, key, marking).await? {
        selected.extend(of_run(client, run, marking, &graph).await?);
    }
    Ok(selected)
}

/// Selects the instances of one run. Selects removed instances, which belong to no element of the list, only by their
/// map index.
async fn of_run(
    client: &impl GenericClient,
    run: RunKey,
    marking: &Marking,
    graph: &Graph,
) -> Result<Vec<InstanceKey>, StoreError> {
    let relatives = relatives(client, &run, marking, graph).await?;
    let id = |task_index: &usize| graph.task(*task_index).task_id.as_str();
    let whole_tasks: Vec<&str> = relatives.whole_tasks.iter().map(id).collect();
    let (tasks, indexes): (Vec<&str>, Vec<i32>) =
        relatives.single_instances.iter().map(|(task_index, map_index)| (id(task_index), *map_index)).unzip();
    let query = "
        SELECT task_id, map_index FROM task_instance
        WHERE dag_id = $1 AND run_id = $2 AND state IS DISTINCT FROM $3
          AND (task_id = ANY ($5) AND map_index = $6 OR state IS DISTINCT FROM 'removed'
               AND (task_id = ANY ($4) OR task_id = ANY ($5) AND $6::integer IS NULL
                    OR (task_id, map_index) IN (SELECT * FROM unnest($7::text[], $8::integer[]))))
        ORDER BY task_id, map_index";
    let state = marking.state.as_str();
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&run.dag_id, &run.run_id, &state, &whole_tasks, &marking.tasks, &marking.map_index, &tasks, &indexes];
    let rows = client.query(query, &parameters).await?;
    let instance_key = |task_id, map_index| InstanceKey { run: run.clone(), task_id, map_index };
    Ok(rows.iter().map(|row| instance_key(row.get("task_id"), row.get("map_index"))).collect())
}

/// Returns the requested upstream and downstream instances; within a mapped group, those of the same copy. Downstream
/// teardowns are excluded.
async fn relatives(
    client: &impl GenericClient,
    run: &RunKey,
    marking: &Marking,
    graph: &Graph,
) -> Result<InstanceSet, StoreError> {
    if !marking.upstream && !marking.downstream {
        return Ok(InstanceSet::default());
    }
    let lengths = lengths::of_run(client, run, graph).await?;
    let relatives = Relatives { graph, lengths: &lengths };
    let named = InstanceSet::named(graph, marking.tasks.iter().map(|id| (id.as_str(), marking.map_index)));
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
pub async fn mark(
    transaction: &Transaction<'_>,
    key: &RunKey,
    marking: &Marking,
) -> Result<Vec<InstanceKey>, StoreError> {
    let failed_downstream = Selection {
        tasks: marking.tasks.iter().map(|id| (id.clone(), marking.map_index)).collect(),
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
    for run in runs {
        let marked = of_run(transaction, run.clone(), marking, &graph).await?;
        if !marked.is_empty() {
            set_state(transaction, &run, &marked, marking.state).await?;
        }
        let to_clear = clearing.select(transaction, &run).await?;
        if !to_clear.is_empty() {
            clearing.clear(transaction, &run, &to_clear).await?;
        }
        changed.extend(marked);
    }
    for run in others {
        let to_clear = clearing.select(transaction, &run).await?;
        if !to_clear.is_empty() {
            clearing.clear(transaction, &run, &to_clear).await?;
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
) -> Result<(), StoreError> {
    instance::mark(transaction, run, marked, state).await?;
    runs::bump_revision(transaction, run).await?;
    for event in [Event::Stop, Event::Triggers, Event::Plan(run.clone()), Event::Capacity, Event::Changed(run.clone())]
    {
        events::notify(transaction, &event).await?;
    }
    Ok(())
}

/// Marks a run, as Airflow does: running and suspended instances get the run's state and are stopped, other unfinished
/// ones are skipped, and teardowns still run, after which the run ends. `Queued` requeues the run without a change of
/// its instances; `Running` changes nothing.
pub async fn run(transaction: &Transaction<'_>, key: &RunKey, state: RunState) -> Result<(), StoreError> {
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
            backfill_end::complete(transaction, key).await?;
        } else {
            transition::run::set_mark(transaction, key, Some(state)).await?;
            events::notify(transaction, &Event::Plan(key.clone())).await?;
        }
        events::notify(transaction, &Event::Stop).await?;
        events::notify(transaction, &Event::Triggers).await?;
        runs::notify_waiting_runs(transaction, key).await?;
        // A queued run may be waiting for this one to end.
        events::notify(transaction, &Event::Sweep).await?;
    }
    events::notify(transaction, &Event::Changed(key.clone())).await?;
    Ok(())
}

/// The teardown tasks of the run's version.
async fn teardowns(client: &impl GenericClient, key: &RunKey) -> Result<Vec<String>, StoreError> {
    let query = "
        SELECT task->>'task_id' FROM dag_run r JOIN dag_version v ON v.id = r.dag_version_id
        CROSS JOIN LATERAL jsonb_array_elements(v.structure->'tasks') AS task
        WHERE r.dag_id = $1 AND r.run_id = $2 AND (task->>'is_teardown')::boolean";
    let rows = client.query(query, &[&key.dag_id, &key.run_id]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

async fn has_unfinished(client: &impl GenericClient, key: &RunKey) -> Result<bool, StoreError> {
    let query = "SELECT FROM task_instance WHERE dag_id = $1 AND run_id = $2
                 AND (state IS NULL OR state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed')) LIMIT 1";
    Ok(client.query_opt(query, &[&key.dag_id, &key.run_id]).await?.is_some())
}

/// Deletes an instance with its tries, XComs and stored state.
pub async fn delete_instance(transaction: &Transaction<'_>, key: &InstanceKey) -> Result<(), StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    runs::get(transaction, run, ReadFor::Update).await?;
    instances::lock(transaction, std::slice::from_ref(key)).await?;
    // A process that still runs could write to a new instance with the same key.
    let running = "SELECT FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4
                   AND state = 'running'";
    if transaction.query_opt(running, &[&run.dag_id, &run.run_id, task_id, map_index]).await?.is_some() {
        return Err(StoreError::Busy(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{task_id}` and map_index: `{map_index}` cannot \
             be deleted while it is running; set its state first",
            run.dag_id, run.run_id
        )));
    }
    let delete_state = "DELETE FROM task_state WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    transaction.execute(delete_state, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    let query = "DELETE FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    transaction.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    runs::bump_revision(transaction, run).await?;
    for event in [Event::Plan(run.clone()), Event::Capacity, Event::Changed(run.clone())] {
        events::notify(transaction, &event).await?;
    }
    Ok(())
}

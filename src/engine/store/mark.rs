//! Giving runs and task instances a state by hand, and removing instances.

use super::backfill_end;
use super::clear::{Clearing, Selection};
use super::dags::{self, Dag};
use super::events::{self, Event};
use super::instances;
use super::lengths;
use super::relatives::{Chosen, Direction, Relatives};
use super::runs;
use super::{ReadFor, StoreError};
use crate::engine::keys::{InstanceKey, RunKey};
use crate::engine::planner::graph::Graph;
use crate::engine::state::{RunState, TaskState};
use crate::postgres::GenericClient;
use deadpool_postgres::Transaction;
use tokio_postgres::types::ToSql;

/// Which task instances get a state, starting from those of one run.
#[derive(Debug, Clone)]
pub struct Marking {
    pub tasks: Vec<String>,
    /// Only this one of a mapped task.
    pub map_index: Option<i32>,
    pub state: TaskState,
    pub upstream: bool,
    pub downstream: bool,
    /// Of later and of earlier runs too.
    pub future: bool,
    pub past: bool,
}

/// The runs that a marking reaches.
async fn reached(
    client: &impl GenericClient,
    dag: &Dag,
    key: &RunKey,
    which: &Marking,
) -> Result<Vec<RunKey>, StoreError> {
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let Some(date) = run.logical_date.filter(|_| which.future || which.past) else { return Ok(vec![key.clone()]) };
    let timetable = dag.structure.timetable.as_ref();
    let never_by_itself = dag.structure.schedule.is_none();
    if !never_by_itself && !timetable.is_some_and(|timetable| timetable.is_periodic()) {
        return Ok(vec![key.clone()]);
    }
    let (from, to) = ((!which.past).then_some(date), (!which.future).then_some(date));
    // Of a schedule that counts up dates, those that it has made.
    let query = "
        SELECT run_id FROM dag_run
        WHERE dag_id = $1 AND logical_date IS NOT NULL AND ($2::timestamptz IS NULL OR logical_date >= $2)
          AND ($3::timestamptz IS NULL OR logical_date <= $3)
          AND ($4 OR run_id = $5 OR run_type IN ('scheduled', 'backfill')) ORDER BY logical_date, run_id";
    let rows = client.query(query, &[&key.dag_id, &from, &to, &never_by_itself, &key.run_id]).await?;
    Ok(rows.iter().map(|row| RunKey { dag_id: key.dag_id.clone(), run_id: row.get(0) }).collect())
}

/// The instances that a marking would change.
pub async fn select(
    client: &impl GenericClient,
    key: &RunKey,
    which: &Marking,
) -> Result<Vec<InstanceKey>, StoreError> {
    let dag = dags::get(client, &key.dag_id).await?;
    let graph = Graph::new((*dag.structure).clone());
    let mut found = Vec::new();
    for run in reached(client, &dag, key, which).await? {
        found.extend(of_run(client, run, which, &graph).await?);
    }
    Ok(found)
}

/// Removed instances are only marked by their map index: nothing is mapped over their elements any more.
async fn of_run(
    client: &impl GenericClient,
    run: RunKey,
    which: &Marking,
    graph: &Graph,
) -> Result<Vec<InstanceKey>, StoreError> {
    let relatives = relatives(client, &run, which, graph).await?;
    let id = |task_index: &usize| graph.task(*task_index).task_id.as_str();
    let whole: Vec<&str> = relatives.whole.iter().map(id).collect();
    let (tasks, indexes): (Vec<&str>, Vec<i32>) = relatives.single.iter().map(|(one, at)| (id(one), *at)).unzip();
    let query = "
        SELECT task_id, map_index FROM task_instance
        WHERE dag_id = $1 AND run_id = $2 AND state IS DISTINCT FROM $3
          AND (task_id = ANY ($5) AND map_index = $6 OR state IS DISTINCT FROM 'removed'
               AND (task_id = ANY ($4) OR task_id = ANY ($5) AND $6::integer IS NULL
                    OR (task_id, map_index) IN (SELECT * FROM unnest($7::text[], $8::integer[]))))
        ORDER BY task_id, map_index";
    let state = which.state.as_str();
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&run.dag_id, &run.run_id, &state, &whole, &which.tasks, &which.map_index, &tasks, &indexes];
    let rows = client.query(query, &parameters).await?;
    let one = |task_id, map_index| InstanceKey { run: run.clone(), task_id, map_index };
    Ok(rows.iter().map(|row| one(row.get(0), row.get(1))).collect())
}

/// The instances above and below that are asked for: of a mapped group those of the same copy. Teardowns below are left
/// to themselves.
async fn relatives(
    client: &impl GenericClient,
    run: &RunKey,
    which: &Marking,
    graph: &Graph,
) -> Result<Chosen, StoreError> {
    if !which.upstream && !which.downstream {
        return Ok(Chosen::default());
    }
    let lengths = lengths::of_run(client, run, graph).await?;
    let relatives = Relatives { graph, lengths: &lengths };
    let named = Chosen::named(graph, which.tasks.iter().map(|id| (id.as_str(), which.map_index)));
    let mut found = Chosen::default();
    if which.downstream {
        found = relatives.of(&named, Direction::Down);
        found.whole.retain(|below| !graph.task(*below).is_teardown);
        found.single.retain(|(below, _)| !graph.task(*below).is_teardown);
    }
    if which.upstream {
        found.extend(relatives.of(&named, Direction::Up));
    }
    Ok(found)
}

/// Gives the instances their state, ends what runs of them, and lets what failed for them run again. Returns which
/// have changed.
pub async fn mark(
    transaction: &Transaction<'_>,
    key: &RunKey,
    which: &Marking,
) -> Result<Vec<InstanceKey>, StoreError> {
    let below = Selection {
        tasks: which.tasks.iter().map(|id| (id.clone(), which.map_index)).collect(),
        downstream: true,
        only_failed: true,
        except: which.tasks.clone(),
        ..Selection::default()
    };
    let below = Clearing::of(transaction, &key.dag_id, &below).await?;
    let graph = Graph::new((*below.dag.structure).clone());
    let runs = reached(transaction, &below.dag, key, which).await?;
    // The scheduler plans a run under the same lock.
    runs::lock(transaction, &runs).await?;
    let mut changed = Vec::new();
    for run in runs {
        let found = of_run(transaction, run.clone(), which, &graph).await?;
        if !found.is_empty() {
            set(transaction, &run, &found, which.state).await?;
        }
        let again = below.select(transaction, &run).await?;
        if !again.is_empty() {
            below.clear(transaction, &run, &again).await?;
        }
        changed.extend(found);
    }
    Ok(changed)
}

async fn set(
    transaction: &Transaction<'_>,
    run: &RunKey,
    found: &[InstanceKey],
    state: TaskState,
) -> Result<(), StoreError> {
    let tasks: Vec<&str> = found.iter().map(|one| one.task_id.as_str()).collect();
    let map_indices: Vec<i32> = found.iter().map(|one| one.map_index).collect();
    let query = "
        UPDATE task_instance SET state = $3, due_at = NULL, start_date = coalesce(start_date, now()),
               -- That of an earlier try is none of one that runs.
               end_date = CASE WHEN end_date >= start_date THEN end_date ELSE now() END
        FROM unnest($4::text[], $5::integer[]) AS chosen (id, at)
        WHERE dag_id = $1 AND run_id = $2 AND task_id = id AND map_index = at";
    transaction.execute(query, &[&run.dag_id, &run.run_id, &state.as_str(), &tasks, &map_indices]).await?;
    runs::revise(transaction, run).await?;
    for event in [Event::Stop, Event::Triggers, Event::Plan(run.clone()), Event::Room, Event::Changed(run.clone())] {
        events::notify(transaction, &event).await?;
    }
    Ok(())
}

/// Ends a run, as Airflow does: what runs gets the run's state and is ended, what has not begun is skipped, and
/// teardowns still do their work, after which the run ends by itself. `Queued` starts it again as it is.
pub async fn run(transaction: &Transaction<'_>, key: &RunKey, state: RunState) -> Result<(), StoreError> {
    let run = runs::get(transaction, key, ReadFor::Update).await?;
    if state == RunState::Queued {
        runs::queue_again(transaction, key).await?;
        events::notify(transaction, &Event::Sweep).await?;
    } else if state.is_finished() {
        let teardowns = teardowns(transaction, key).await?;
        let instances = "
            UPDATE task_instance SET end_date = now(), start_date = coalesce(start_date, now()), due_at = NULL,
                   state = CASE WHEN state IN ('running', 'deferred', 'up_for_reschedule', 'awaiting_input') THEN $3
                                ELSE 'skipped' END
            WHERE dag_id = $1 AND run_id = $2 AND task_id <> ALL ($4)
              AND (state IS NULL OR state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))";
        transaction.execute(instances, &[&key.dag_id, &key.run_id, &state.as_str(), &teardowns]).await?;
        if !has_unfinished(transaction, key).await? {
            let end =
                "UPDATE dag_run SET state = $3, revision = gen_random_uuid(), start_date = coalesce(start_date, now()),
                                     end_date = CASE WHEN $4 THEN end_date ELSE now() END
                       WHERE dag_id = $1 AND run_id = $2";
            let was_finished = run.state.is_finished();
            transaction.execute(end, &[&key.dag_id, &key.run_id, &state.as_str(), &was_finished]).await?;
            backfill_end::complete(transaction, key).await?;
        } else {
            runs::revise(transaction, key).await?;
            events::notify(transaction, &Event::Plan(key.clone())).await?;
        }
        events::notify(transaction, &Event::Stop).await?;
        events::notify(transaction, &Event::Triggers).await?;
        runs::others_may_go_on(transaction, key).await?;
        // Another run may have waited for this one's end.
        events::notify(transaction, &Event::Sweep).await?;
    }
    events::notify(transaction, &Event::Changed(key.clone())).await?;
    Ok(())
}

/// Those of the DAG that the run is of.
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

/// Removes one with all of its tries, its results and what it has stored.
pub async fn delete_instance(transaction: &Transaction<'_>, key: &InstanceKey) -> Result<(), StoreError> {
    let InstanceKey { run, task_id, map_index } = key;
    runs::get(transaction, run, ReadFor::Update).await?;
    instances::lock(transaction, std::slice::from_ref(key)).await?;
    // A process that is still there would write to another of the same name.
    let running = "SELECT FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4
                   AND state = 'running'";
    if transaction.query_opt(running, &[&run.dag_id, &run.run_id, task_id, map_index]).await?.is_some() {
        return Err(StoreError::Busy(format!(
            "The Task Instance with dag_id: `{}`, run_id: `{}`, task_id: `{task_id}` and map_index: `{map_index}` cannot \
             be deleted while it runs: mark it first",
            run.dag_id, run.run_id
        )));
    }
    let store = "DELETE FROM task_state WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    transaction.execute(store, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    let query = "DELETE FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = $3 AND map_index = $4";
    transaction.execute(query, &[&run.dag_id, &run.run_id, task_id, map_index]).await?;
    runs::revise(transaction, run).await?;
    for event in [Event::Plan(run.clone()), Event::Room, Event::Changed(run.clone())] {
        events::notify(transaction, &event).await?;
    }
    Ok(())
}

//! Writes the planner's changes in a few statements.

use super::load::Graphs;
use crate::model::dag::Task;
use crate::model::keys::RunKey;
use crate::model::state::TaskState;
use crate::planner::concurrency::{self, Usage, Waiting};
use crate::planner::plan::{Instance, Plan, Snapshot, Transition, TransitionKind};
use crate::store::StoreError;
use crate::store::events::{self, Event};
use crate::store::instance::instances;
use crate::store::pools;
use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashSet;
use tokio_postgres::types::ToSql;
use tracing::debug;

/// The task instances of a run: first those in the database, then those that the plan adds.
pub struct Rows {
    /// Task id and map index of each instance.
    pub names: Vec<(String, i32)>,
    /// Number of instances that were in the database when the plan was made.
    stored_count: usize,
    restored: HashSet<usize>,
}

impl Rows {
    pub fn new(names: Vec<(String, i32)>) -> Self {
        Self { stored_count: names.len(), names, restored: HashSet::new() }
    }

    /// Writes the instances of mapped tasks that the plan expands, adds or restores.
    pub async fn expand(
        &mut self,
        transaction: &Transaction<'_>,
        key: &RunKey,
        snapshot: &Snapshot<'_>,
        plan: &Plan,
    ) -> Result<(), StoreError> {
        let graph = snapshot.graph;
        if !plan.expanded.is_empty() {
            let tasks: Vec<&str> = plan.expanded.iter().map(|index| self.names[*index].0.as_str()).collect();
            let query = "UPDATE task_instance SET map_index = 0
                         WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            // Rows that an earlier try wrote with map index -1 no longer belong to any instance.
            let tries =
                "DELETE FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let xcoms = "DELETE FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let trigger =
                "DELETE FROM task_trigger WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let hitl =
                "DELETE FROM hitl_detail WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            for query in [tries, xcoms, trigger, hitl, query] {
                transaction.execute(query, &[&key.dag_id, &key.run_id, &tasks]).await?;
            }
            plan.expanded.iter().for_each(|index| self.names[*index].1 = 0);
        }
        let added: Vec<(&Task, i32)> =
            plan.added.iter().map(|(task_index, map_index)| (graph.task(*task_index), *map_index)).collect();
        let task_of = |index: &usize| {
            snapshot.instances[*index].task_index.map(|task_index| (graph.task(task_index), self.names[*index].1))
        };
        let restored = plan.restored.iter().filter_map(task_of);
        let rows: Vec<(&Task, i32)> = added.iter().copied().chain(restored).collect();
        instances::insert(transaction, &key.dag_id, &[&key.run_id], &rows).await?;
        self.restored.extend(&plan.restored);
        self.names.extend(added.iter().map(|(task, map_index)| (task.task_id.clone(), *map_index)));
        Ok(())
    }

    /// The state that an instance has in the database; `None` is no state.
    fn stored_state(&self, instances: &[Instance], index: usize) -> Option<&'static str> {
        let is_new = index >= self.stored_count || self.restored.contains(&index);
        if is_new { None } else { instances[index].state.map(TaskState::as_str) }
    }
}

/// Writes the transitions. Returns `false` when an instance no longer has the state that was read, because it was
/// claimed meanwhile.
pub async fn transitions(
    transaction: &Transaction<'_>,
    key: &RunKey,
    rows: &Rows,
    snapshot: &Snapshot<'_>,
    transitions: &[Transition],
) -> Result<bool, StoreError> {
    if transitions.is_empty() {
        return Ok(true);
    }
    let ended_at = |transition: &Transition| {
        let instance = snapshot.instances.get(transition.index)?;
        // The end is at most now: the clock may have been set back since.
        (transition.kind == TransitionKind::TryEnded)
            .then(|| instance.ended.as_ref().map(|ended| ended.at.min(snapshot.now)))
            .flatten()
    };
    let tasks: Vec<&str> = transitions.iter().map(|transition| rows.names[transition.index].0.as_str()).collect();
    let map_indexes: Vec<i32> = transitions.iter().map(|transition| rows.names[transition.index].1).collect();
    let states_before: Vec<Option<&str>> =
        transitions.iter().map(|transition| rows.stored_state(&snapshot.instances, transition.index)).collect();
    for (index, transition) in transitions.iter().enumerate() {
        debug!(
            "{}.{}[{}] of {}: {} -> {}",
            key.dag_id,
            tasks[index],
            map_indexes[index],
            key.run_id,
            states_before[index].unwrap_or("none"),
            transition.to.as_str()
        );
    }
    let states: Vec<&str> = transitions.iter().map(|transition| transition.to.as_str()).collect();
    let try_numbers: Vec<i32> = transitions.iter().map(|transition| transition.try_number).collect();
    let due_dates: Vec<Option<Timestamp>> = transitions.iter().map(|transition| transition.due_at).collect();
    let no_ops: Vec<bool> = transitions.iter().map(|transition| transition.kind == TransitionKind::NoOp).collect();
    let never_ran: Vec<bool> = transitions
        .iter()
        .map(|transition| matches!(transition.kind, TransitionKind::NeverRan | TransitionKind::Waited))
        .collect();
    let waits: Vec<bool> =
        transitions.iter().map(|transition| matches!(transition.kind, TransitionKind::Waits { .. })).collect();
    let ended: Vec<Option<Timestamp>> = transitions.iter().map(ended_at).collect();
    // Each row contains the run's key, so that each instance is found by its full key; by the run's key alone
    // Postgres would read all instances of the run.
    let query = "
        WITH new AS MATERIALIZED (
            SELECT $1::text AS dag_id, $2::text AS run_id, one.*
            FROM unnest($3::text[], $4::integer[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[],
                        $9::boolean[], $10::boolean[], $11::boolean[], $12::timestamptz[])
                 AS one (task_id, map_index, before, state, try_number, due_at, nothing, never_ran, waits, ended))
        UPDATE task_instance ti SET state = new.state, try_number = new.try_number, due_at = new.due_at,
               scheduled_at = CASE WHEN new.state IN ('scheduled', 'queued') AND ti.state IS DISTINCT FROM 'scheduled'
                                   THEN clock_timestamp() ELSE ti.scheduled_at END,
               queued_at = CASE WHEN new.state = 'queued' THEN clock_timestamp() ELSE ti.queued_at END,
               start_date = CASE WHEN new.nothing OR new.waits AND ti.state IS DISTINCT FROM 'up_for_reschedule' THEN $13
                                 WHEN new.never_ran THEN coalesce(ti.start_date, $13) ELSE ti.start_date END,
               -- A sensor that waits without a process has started and not ended.
               end_date = CASE WHEN new.nothing OR new.never_ran THEN $13 WHEN new.waits THEN NULL
                               ELSE coalesce(new.ended, ti.end_date) END
        FROM new
        WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (new.dag_id, new.run_id, new.task_id, new.map_index)
          AND ti.state IS NOT DISTINCT FROM new.before";
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &key.dag_id,
        &key.run_id,
        &tasks,
        &map_indexes,
        &states_before,
        &states,
        &try_numbers,
        &due_dates,
        &no_ops,
        &never_ran,
        &waits,
        &ended,
        &snapshot.now,
    ];
    let changed = transaction.execute(query, &parameters).await?;
    Ok(changed == transitions.len() as u64)
}

/// Reads the usage of slots and limits by other runs, and the instances of other runs that wait for capacity.
pub async fn capacity(
    transaction: &Transaction<'_>,
    graphs: &mut Graphs,
    key: &RunKey,
) -> Result<(Usage, Vec<Waiting>), StoreError> {
    try_join(pools::usage(transaction, Some(key)), waiting_instances(transaction, graphs, Some(key))).await
}

/// Lets the planner choose which instances to queue, in this run and in others. Those of this run become part of the
/// plan; those of other runs are queued and returned.
pub async fn admit(
    transaction: &Transaction<'_>,
    key: &RunKey,
    snapshot: &Snapshot<'_>,
    plan: &mut Plan,
    (usage, others): (Usage, Vec<Waiting>),
) -> Result<Vec<Waiting>, StoreError> {
    let chosen = concurrency::admit(key, snapshot, plan, usage, &others);
    queue_others(transaction, chosen.into_iter().map(|index| others[index].clone()).collect()).await
}

/// Instances that may run and wait for capacity, in all running runs except `excluded_run`.
async fn waiting_instances(
    client: &impl GenericClient,
    graphs: &mut Graphs,
    excluded_run: Option<&RunKey>,
) -> Result<Vec<Waiting>, StoreError> {
    let (dag_id, run_id) = excluded_run.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    // `IS TRUE` prevents Postgres from starting at the index of running runs, which would read all their instances.
    let query = "
        SELECT ti.dag_id, ti.run_id, ti.task_id, ti.map_index, r.logical_date, r.dag_version_id
        FROM task_instance ti JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
        WHERE ti.state = 'scheduled' AND (r.state = 'running') IS TRUE AND NOT d.is_paused AND r.dag_version_id IS NOT NULL
          AND ($1::text IS NULL OR (r.dag_id, r.run_id) <> ($1, $2))";
    let mut waiting = Vec::new();
    for row in client.query(query, &[&dag_id, &run_id]).await? {
        let run = RunKey { dag_id: row.get(0), run_id: row.get(1) };
        let graph = graphs.get(client, row.get(5)).await?;
        if let Some(task_index) = graph.task_index(row.get(2)) {
            waiting.push(Waiting::new(&run, &graph, task_index, row.get(3), row.get(4)));
        }
    }
    Ok(waiting)
}

/// Queues the instances and notifies the agent. Returns the instances.
async fn queue_others(client: &impl GenericClient, chosen: Vec<Waiting>) -> Result<Vec<Waiting>, StoreError> {
    if chosen.is_empty() {
        return Ok(chosen);
    }
    let dags: Vec<&str> = chosen.iter().map(|waiting| waiting.run.dag_id.as_str()).collect();
    let runs: Vec<&str> = chosen.iter().map(|waiting| waiting.run.run_id.as_str()).collect();
    let tasks: Vec<&str> = chosen.iter().map(|waiting| waiting.task_id.as_str()).collect();
    let map_indexes: Vec<i32> = chosen.iter().map(|waiting| waiting.map_index).collect();
    let query = "
        UPDATE task_instance ti SET state = 'queued', queued_at = clock_timestamp()
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[]) AS new (dag_id, run_id, task_id, map_index)
        WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (new.dag_id, new.run_id, new.task_id, new.map_index)
          AND ti.state = 'scheduled'";
    client.execute(query, &[&dags, &runs, &tasks, &map_indexes]).await?;
    events::notify(client, &Event::Queued).await?;
    for run in chosen.iter().map(|waiting| &waiting.run).collect::<std::collections::BTreeSet<_>>() {
        events::notify(client, &Event::Changed(run.clone())).await?;
    }
    Ok(chosen)
}

/// Queues and returns the waiting instances of all runs that fit, when slots have become free.
pub async fn admit_all(transaction: &Transaction<'_>, graphs: &mut Graphs) -> Result<Vec<Waiting>, StoreError> {
    let candidates = waiting_instances(transaction, graphs, None).await?;
    if candidates.is_empty() {
        return Ok(candidates);
    }
    let usage: Usage = pools::usage(transaction, None).await?;
    let chosen = concurrency::choose(&candidates, usage);
    queue_others(transaction, chosen.into_iter().map(|index| candidates[index].clone()).collect()).await
}

//! Writing down what the planner said, all in a few statements.

use super::load::Graphs;
use crate::engine::dag::Task;
use crate::engine::keys::RunKey;
use crate::engine::planner::concurrency::{self, Usage, Waiting};
use crate::engine::planner::plan::{Instance, Kind, Plan, Snapshot, Transition};
use crate::engine::state::TaskState;
use crate::engine::store::StoreError;
use crate::engine::store::events::{self, Event};
use crate::engine::store::{instances, pools};
use crate::postgres::GenericClient;
use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use jiff::Timestamp;
use std::collections::HashSet;
use tokio_postgres::types::ToSql;
use tracing::debug;

/// Which rows there are: those of the database, and then those that the plan adds.
pub struct Rows {
    pub names: Vec<(String, i32)>,
    known: usize,
    restored: HashSet<usize>,
}

impl Rows {
    pub fn new(names: Vec<(String, i32)>) -> Self {
        Self { known: names.len(), names, restored: HashSet::new() }
    }

    /// Makes the rows of what is mapped over more than was known, and takes back those that were removed.
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
            // What an earlier try of the row without a map index has left belongs to no row any more.
            let tries =
                "DELETE FROM task_try WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let xcoms = "DELETE FROM xcom WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let trigger =
                "DELETE FROM task_trigger WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            let asked =
                "DELETE FROM hitl_detail WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND map_index = -1";
            for query in [tries, xcoms, trigger, asked, query] {
                transaction.execute(query, &[&key.dag_id, &key.run_id, &tasks]).await?;
            }
            plan.expanded.iter().for_each(|index| self.names[*index].1 = 0);
        }
        let added: Vec<(&Task, i32)> =
            plan.added.iter().map(|(task_index, map_index)| (graph.task(*task_index), *map_index)).collect();
        let of_row =
            |index: &usize| snapshot.instances[*index].task_index.map(|at| (graph.task(at), self.names[*index].1));
        let restored = plan.restored.iter().filter_map(of_row);
        let rows: Vec<(&Task, i32)> = added.iter().copied().chain(restored).collect();
        instances::insert(transaction, &key.dag_id, &[&key.run_id], &rows).await?;
        self.restored.extend(&plan.restored);
        self.names.extend(added.iter().map(|(task, map_index)| (task.task_id.clone(), *map_index)));
        Ok(())
    }

    /// The state that the database has for a row.
    fn before(&self, instances: &[Instance], index: usize) -> Option<&'static str> {
        let is_new = index >= self.known || self.restored.contains(&index);
        if is_new { None } else { instances[index].state.map(TaskState::as_str) }
    }
}

/// `false` when one is not as it was seen any more: it was claimed meanwhile.
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
    let ended_at = |one: &Transition| {
        let instance = snapshot.instances.get(one.index)?;
        // Not later than now: the clock may have been set back since.
        (one.kind == Kind::TryEnded).then(|| instance.ended.as_ref().map(|ended| ended.at.min(snapshot.now))).flatten()
    };
    let tasks: Vec<&str> = transitions.iter().map(|one| rows.names[one.index].0.as_str()).collect();
    let maps: Vec<i32> = transitions.iter().map(|one| rows.names[one.index].1).collect();
    let before: Vec<Option<&str>> = transitions.iter().map(|one| rows.before(&snapshot.instances, one.index)).collect();
    for (at, one) in transitions.iter().enumerate() {
        debug!(
            "{}.{}[{}] of {}: {} -> {}",
            key.dag_id,
            tasks[at],
            maps[at],
            key.run_id,
            before[at].unwrap_or("none"),
            one.to.as_str()
        );
    }
    let states: Vec<&str> = transitions.iter().map(|one| one.to.as_str()).collect();
    let numbers: Vec<i32> = transitions.iter().map(|one| one.try_number).collect();
    let dues: Vec<Option<Timestamp>> = transitions.iter().map(|one| one.due_at).collect();
    let nothing: Vec<bool> = transitions.iter().map(|one| one.kind == Kind::Nothing).collect();
    let never_ran: Vec<bool> =
        transitions.iter().map(|one| matches!(one.kind, Kind::NeverRan | Kind::Waited)).collect();
    let waits: Vec<bool> = transitions.iter().map(|one| matches!(one.kind, Kind::Waits { .. })).collect();
    let ended: Vec<Option<Timestamp>> = transitions.iter().map(ended_at).collect();
    // With the run's id in each, so that each is found by its whole key: by the run's alone all of it would be read.
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
               -- A sensor that nothing runs for has begun, and not ended.
               end_date = CASE WHEN new.nothing OR new.never_ran THEN $13 WHEN new.waits THEN NULL
                               ELSE coalesce(new.ended, ti.end_date) END
        FROM new
        WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (new.dag_id, new.run_id, new.task_id, new.map_index)
          AND ti.state IS NOT DISTINCT FROM new.before";
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &key.dag_id,
        &key.run_id,
        &tasks,
        &maps,
        &before,
        &states,
        &numbers,
        &dues,
        &nothing,
        &never_ran,
        &waits,
        &ended,
        &snapshot.now,
    ];
    let changed = transaction.execute(query, &parameters).await?;
    Ok(changed == transitions.len() as u64)
}

/// What a run shares with the others: what they use, and what waits in them.
pub async fn room(
    transaction: &Transaction<'_>,
    graphs: &mut Graphs,
    key: &RunKey,
) -> Result<(Usage, Vec<Waiting>), StoreError> {
    try_join(pools::usage(transaction, Some(key)), others_waiting(transaction, graphs, Some(key))).await
}

/// Lets the planner choose who begins, here and in other runs that wait, and queues those others, which it returns.
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

/// What may run in other runs, and has had no room.
async fn others_waiting(
    client: &impl GenericClient,
    graphs: &mut Graphs,
    but: Option<&RunKey>,
) -> Result<Vec<Waiting>, StoreError> {
    let (dag_id, run_id) = but.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    // `IS TRUE` keeps the index of running runs out, in which all are read for a few.
    let query = "
        SELECT ti.dag_id, ti.run_id, ti.task_id, ti.map_index, r.logical_date, r.dag_version_id
        FROM task_instance ti JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
        WHERE ti.state = 'scheduled' AND (r.state = 'running') IS TRUE AND NOT d.is_paused AND r.dag_version_id IS NOT NULL
          AND ($1::text IS NULL OR (r.dag_id, r.run_id) <> ($1, $2))";
    let mut found = Vec::new();
    for row in client.query(query, &[&dag_id, &run_id]).await? {
        let run = RunKey { dag_id: row.get(0), run_id: row.get(1) };
        let graph = graphs.get(client, row.get(5)).await?;
        if let Some(task_index) = graph.task_index(row.get(2)) {
            found.push(Waiting::new(&run, &graph, task_index, row.get(3), row.get(4)));
        }
    }
    Ok(found)
}

async fn queue_others(client: &impl GenericClient, chosen: Vec<Waiting>) -> Result<Vec<Waiting>, StoreError> {
    if chosen.is_empty() {
        return Ok(chosen);
    }
    let dags: Vec<&str> = chosen.iter().map(|one| one.run.dag_id.as_str()).collect();
    let runs: Vec<&str> = chosen.iter().map(|one| one.run.run_id.as_str()).collect();
    let tasks: Vec<&str> = chosen.iter().map(|one| one.task_id.as_str()).collect();
    let maps: Vec<i32> = chosen.iter().map(|one| one.map_index).collect();
    let query = "
        UPDATE task_instance ti SET state = 'queued', queued_at = clock_timestamp()
        FROM unnest($1::text[], $2::text[], $3::text[], $4::integer[]) AS new (dag_id, run_id, task_id, map_index)
        WHERE (ti.dag_id, ti.run_id, ti.task_id, ti.map_index) = (new.dag_id, new.run_id, new.task_id, new.map_index)
          AND ti.state = 'scheduled'";
    client.execute(query, &[&dags, &runs, &tasks, &maps]).await?;
    events::notify(client, &Event::Queued).await?;
    for run in chosen.iter().map(|one| &one.run).collect::<std::collections::BTreeSet<_>>() {
        events::notify(client, &Event::Changed(run.clone())).await?;
    }
    Ok(chosen)
}

/// Queues what waits in all runs and may begin, once a pool has become larger. Returns it.
pub async fn admit_all(transaction: &Transaction<'_>, graphs: &mut Graphs) -> Result<Vec<Waiting>, StoreError> {
    let candidates = others_waiting(transaction, graphs, None).await?;
    if candidates.is_empty() {
        return Ok(candidates);
    }
    let usage: Usage = pools::usage(transaction, None).await?;
    let chosen = concurrency::choose(&candidates, usage);
    queue_others(transaction, chosen.into_iter().map(|index| candidates[index].clone()).collect()).await
}

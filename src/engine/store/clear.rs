//! Making task instances run again.

use super::dags::{self, Dag};
use super::events::{self, Event};
use super::lengths;
use super::new_run;
use super::relatives::{Chosen, Direction, Relatives};
use super::runs;
use super::{ReadFor, StoreError};
use crate::engine::dag::Task;
use crate::engine::keys::{InstanceKey, RunKey};
use crate::engine::planner::graph::Graph;
use crate::engine::state::TaskState;
use crate::postgres::GenericClient;
use deadpool_postgres::Transaction;
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Which of a run's task instances are to run again.
#[derive(Debug, Default)]
pub struct Selection {
    /// With a map index where only that one is meant; all when empty.
    pub tasks: Vec<(String, Option<i32>)>,
    pub upstream: bool,
    pub downstream: bool,
    /// Of those that failed; with `only_running`, of those that run too.
    pub only_failed: bool,
    pub only_running: bool,
    /// Tasks that stay as they are, whatever else says otherwise.
    pub except: Vec<String>,
    /// A run that is over stays over.
    pub leaves_run: bool,
}

impl Selection {
    fn takes_state(&self, state: Option<&str>) -> bool {
        let has_failed = self.only_failed && matches!(state, Some("failed" | "upstream_failed"));
        let runs = self.only_running && state == Some("running");
        (!self.only_failed && !self.only_running) || has_failed || runs
    }
}

/// A selection with the DAG that it is made over, once for all of its runs.
pub struct Clearing<'a> {
    which: &'a Selection,
    pub dag: Dag,
    graph: Graph,
}

impl<'a> Clearing<'a> {
    /// Over the arrows of the DAG as it is now, which is what its runs will go on with.
    pub async fn of(client: &impl GenericClient, dag_id: &str, which: &'a Selection) -> Result<Self, StoreError> {
        let dag = dags::get(client, dag_id).await?;
        let graph = Graph::new((*dag.structure).clone());
        Ok(Self { which, dag, graph })
    }

    /// The instances of a run that would run again. Removed ones are among them: what they are mapped over may have
    /// more elements by then, and the planner removes again what is too many.
    pub async fn select(&self, client: &impl GenericClient, key: &RunKey) -> Result<Vec<InstanceKey>, StoreError> {
        let has_single = self.which.tasks.iter().any(|(_, at)| at.is_some_and(|at| at >= 0));
        let lengths = if has_single && (self.which.upstream || self.which.downstream) {
            lengths::of_run(client, key, &self.graph).await?
        } else {
            HashMap::new()
        };
        let chosen = with_relatives(self.which, &Relatives { graph: &self.graph, lengths: &lengths });
        let query = "
            SELECT task_id, map_index, state FROM task_instance
            WHERE dag_id = $1 AND run_id = $2 ORDER BY task_id, map_index";
        let rows = client.query(query, &[&key.dag_id, &key.run_id]).await?;
        let found = rows.iter().filter(|row| self.takes(&chosen, row.get(0), row.get(1), row.get(2)));
        let one = |row: &Row| InstanceKey { run: key.clone(), task_id: row.get(0), map_index: row.get(1) };
        Ok(found.map(one).collect())
    }

    fn takes(&self, chosen: &Chosen, task_id: &str, map_index: i32, state: Option<&str>) -> bool {
        let which = self.which;
        let is_chosen = match self.graph.task_index(task_id) {
            _ if which.tasks.is_empty() => true,
            Some(task_index) => chosen.contains(task_index, map_index),
            // A task that the DAG has no more has no relatives.
            None => which.tasks.iter().any(|(id, at)| id == task_id && at.is_none_or(|at| at == map_index)),
        };
        let is_lost = state == Some("removed") && self.graph.task_index(task_id).is_none();
        is_chosen && !is_lost && which.takes_state(state) && !which.except.iter().any(|id| id == task_id)
    }

    /// Makes what was selected of a run run again, with the DAG as it is now. The caller has held the run since before
    /// it was selected.
    pub async fn clear(
        &self,
        transaction: &Transaction<'_>,
        key: &RunKey,
        chosen: &[InstanceKey],
    ) -> Result<(), StoreError> {
        let run = runs::get(transaction, key, ReadFor::Update).await?;
        if Some(self.dag.version_id) != run.version_id {
            take_version(transaction, &run, &self.dag).await?;
        }
        if !chosen.is_empty() {
            self.reset(transaction, key, chosen).await?;
        }
        runs::revise(transaction, key).await?;
        if run.state.is_finished() && !chosen.is_empty() && !self.which.leaves_run {
            runs::queue_again(transaction, key).await?;
        }
        tell(transaction, key).await
    }

    async fn reset(
        &self,
        transaction: &Transaction<'_>,
        key: &RunKey,
        chosen: &[InstanceKey],
    ) -> Result<(), StoreError> {
        let known: HashMap<&str, &Task> =
            self.dag.structure.tasks.iter().map(|task| (task.task_id.as_str(), task)).collect();
        let ids: Vec<&str> = chosen.iter().map(|one| one.task_id.as_str()).collect();
        let maps: Vec<i32> = chosen.iter().map(|one| one.map_index).collect();
        let task = |id: &&str| known.get(id).copied();
        let retries = |task: &Task| i32::try_from(task.retries).unwrap_or(i32::MAX);
        let retries: Vec<i32> = ids.iter().map(|id| task(id).map_or(0, retries)).collect();
        let pools: Vec<Option<&str>> = ids.iter().map(|id| task(id).map(Task::pool)).collect();
        let slots: Vec<i32> = ids.iter().map(|id| task(id).map_or(1, |task| task.pool_slots)).collect();
        let weights: Vec<i32> = ids.iter().map(|id| task(id).map_or(1, |task| task.weight)).collect();
        let query = "
            UPDATE task_instance ti SET due_at = NULL,
                   -- What has waited without a process has not begun.
                   start_date = CASE WHEN state = 'up_for_reschedule' AND end_date IS NULL THEN NULL ELSE start_date END,
                   max_tries = least(try_number::bigint + greatest(retries, 0), 2147483646),
                   pool = coalesce(new_pool, pool), pool_slots = new_slots, priority_weight = new_weight,
                   state = CASE WHEN state IN ('running', 'restarting') THEN 'restarting'
                                -- The DAG has no such task any more, so it has no pool either.
                                WHEN new_pool IS NULL THEN 'removed' END
            FROM unnest($3::text[], $4::integer[], $5::integer[], $6::text[], $7::integer[], $8::integer[])
                 AS chosen (id, at, retries, new_pool, new_slots, new_weight)
            WHERE dag_id = $1 AND run_id = $2 AND task_id = id AND map_index = at";
        let parameters: [&(dyn ToSql + Sync); 8] =
            [&key.dag_id, &key.run_id, &ids, &maps, &retries, &pools, &slots, &weights];
        transaction.execute(query, &parameters).await?;
        Ok(())
    }
}

/// What is named, what is asked for above and below it, and the setups and teardowns that all of these need. With both,
/// what is below starts from what is above too, as in Airflow.
fn with_relatives(which: &Selection, relatives: &Relatives<'_>) -> Chosen {
    let mut chosen = Chosen::named(relatives.graph, which.tasks.iter().map(|(id, at)| (id.as_str(), *at)));
    if which.upstream {
        chosen.extend(relatives.of(&chosen, Direction::Up));
    }
    if which.downstream {
        chosen.extend(relatives.of(&chosen, Direction::Down));
    }
    chosen.extend(relatives.setups(&chosen));
    chosen
}

/// Makes what is selected of one run run again. Returns which instances that are.
pub async fn clear(
    transaction: &Transaction<'_>,
    key: &RunKey,
    which: &Selection,
) -> Result<Vec<InstanceKey>, StoreError> {
    runs::lock(transaction, std::slice::from_ref(key)).await?;
    let clearing = Clearing::of(transaction, &key.dag_id, which).await?;
    let chosen = clearing.select(transaction, key).await?;
    clearing.clear(transaction, key, &chosen).await?;
    Ok(chosen)
}

async fn tell(transaction: &Transaction<'_>, key: &RunKey) -> Result<(), StoreError> {
    for event in [Event::Stop, Event::Sweep, Event::Plan(key.clone()), Event::Changed(key.clone())] {
        events::notify(transaction, &event).await?;
    }
    Ok(())
}

/// Tasks of the DAG as it is now that a run has no instance of, and would get one of.
pub async fn new_tasks(client: &impl GenericClient, key: &RunKey) -> Result<Vec<String>, StoreError> {
    let dag = dags::get(client, &key.dag_id).await?;
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let is_backfill = run.backfill_id.is_some();
    let mut new = new_run::missing(client, key, &dag.structure, run.logical_date, is_backfill).await?;
    new.sort();
    new.dedup();
    Ok(new)
}

/// Gives a run the tasks that its DAG has got since, and leaves the others as they are.
pub async fn add_new_tasks(transaction: &Transaction<'_>, key: &RunKey) -> Result<(), StoreError> {
    let run = runs::get(transaction, key, ReadFor::Update).await?;
    if new_tasks(transaction, key).await?.is_empty() {
        return Ok(());
    }
    take_version(transaction, &run, &dags::get(transaction, &key.dag_id).await?).await?;
    runs::revise(transaction, key).await?;
    if run.state.is_finished() {
        runs::queue_again(transaction, key).await?;
    }
    tell(transaction, key).await
}

/// From now on the run is of the DAG's current version: new tasks come in, lost ones are removed.
async fn take_version(transaction: &Transaction<'_>, run: &runs::Run, dag: &Dag) -> Result<(), StoreError> {
    let key = &run.key;
    let ids: Vec<&str> = dag.structure.tasks.iter().map(|task| task.task_id.as_str()).collect();
    let version = "UPDATE dag_run SET dag_version_id = $3 WHERE dag_id = $1 AND run_id = $2";
    transaction.execute(version, &[&key.dag_id, &key.run_id, &dag.version_id]).await?;
    let lost = "UPDATE task_instance SET state = $4, due_at = NULL
                WHERE dag_id = $1 AND run_id = $2 AND task_id <> ALL ($3) AND state IS DISTINCT FROM 'running'";
    transaction.execute(lost, &[&key.dag_id, &key.run_id, &ids, &TaskState::Removed.as_str()]).await?;
    let back = "UPDATE task_instance SET state = NULL
                WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND state = 'removed'";
    transaction.execute(back, &[&key.dag_id, &key.run_id, &ids]).await?;
    new_run::add_instances(transaction, key, &dag.structure, run.logical_date, run.backfill_id.is_some()).await
}

//! Clears task instances, so that they run again.

use super::planner_input;
use super::relatives::{InstanceSet, Relation, Relatives};
use crate::model::dag::{Structure, Task};
use crate::model::keys::{InstanceKey, Position, RunKey};
use crate::model::state::TaskState;
use crate::planner::graph::Graph;
use crate::store::dag::dags;
use crate::store::events::{self, Event};
use crate::store::instance_key::{IN_LOOP, KEY};
use crate::store::rows::fetch_all;
use crate::store::run::deadlines;
use crate::store::run::new_run::{self, TaskDates};
use crate::store::run::runs;
use crate::store::run::version_choice::{RunVersion, RunVersions, VersionChoice};
use crate::store::transition::{self, instance};
use crate::store::{ReadFor, Result};
use deadpool_postgres::Transaction;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;

/// Selects the task instances of a run to clear.
#[derive(Debug, Default)]
pub struct Selection {
    /// Task ids, with a position to select a single instance; empty selects all.
    pub tasks: Vec<(String, Option<Position>)>,
    /// Also selects all upstream instances.
    pub upstream: bool,
    /// Also selects all downstream instances.
    pub downstream: bool,
    /// Selects only failed instances; together with `only_running`, failed and running ones.
    pub only_failed: bool,
    pub only_running: bool,
    /// Tasks that are never cleared.
    pub except: Vec<String>,
    /// True to leave a finished run finished instead of requeueing it.
    pub leaves_run: bool,
    /// True to keep the later iterations of a loop whose gate is cleared, so that the gate decides nothing.
    pub keeps_later_iterations: bool,
}

impl Selection {
    fn includes_state(&self, state: Option<TaskState>) -> bool {
        let is_failed = matches!(state, Some(TaskState::Failed | TaskState::UpstreamFailed));
        let matches_failed = self.only_failed && is_failed;
        let matches_running = self.only_running && state == Some(TaskState::Running);
        (!self.only_failed && !self.only_running) || matches_failed || matches_running
    }
}

/// A selection with the versions of a DAG, for all runs to clear.
pub struct Clearing<'a> {
    selection: &'a Selection,
    pub(crate) versions: RunVersions,
}

impl<'a> Clearing<'a> {
    /// Loads the DAG's current version. `choice` decides with which version the cleared runs continue.
    pub async fn load(
        client: &impl GenericClient,
        dag_id: &str,
        selection: &'a Selection,
        choice: VersionChoice,
    ) -> Result<Self> {
        Ok(Self { selection, versions: RunVersions::load(client, dag_id, choice).await? })
    }

    /// Returns the instances of a run to clear. Includes removed instances: the list of their mapped task may be longer
    /// at the next try, and the planner removes surplus instances again.
    pub async fn select(&mut self, client: &impl GenericClient, key: &RunKey) -> Result<Vec<InstanceKey>> {
        let run = runs::get(client, key, ReadFor::Reading).await?;
        let version = self.versions.of_run(client, run.version_id).await?;
        let unrolled = planner_input::unroll(client, key, &version.graph).await?;
        let graph = unrolled.as_ref().unwrap_or(&version.graph);
        let is_mapped = |position: &Option<Position>| position.is_some_and(|position| position.map_index() >= 0);
        let has_single_instance = self.selection.tasks.iter().any(|(_, position)| is_mapped(position));
        let lengths = if has_single_instance && (self.selection.upstream || self.selection.downstream) {
            planner_input::lengths(client, key, graph).await?
        } else {
            HashMap::new()
        };
        let chosen = with_relatives(self.selection, &Relatives { graph, lengths: &lengths });
        let query = "
            SELECT task_id, map_index, state FROM task_instance
            WHERE dag_id = $1 AND run_id = $2 ORDER BY task_id, map_index";
        let mut selected = Vec::new();
        for (task_id, position, state) in
            fetch_all::<(String, _, _)>(client, query, &[&key.dag_id, &key.run_id]).await?
        {
            if self.is_selected(graph, &chosen, &task_id, position, state) {
                selected.push(InstanceKey { run: key.clone(), task_id, position });
            }
        }
        if !self.selection.keeps_later_iterations {
            let cuts = cuts(&graph.structure, &selected);
            let is_kept = |instance: &InstanceKey| {
                let loop_group = graph.task_index(&instance.task_id).and_then(|task_index| graph.loop_of(task_index));
                let cut = loop_group.and_then(|group| cuts.get(&group));
                cut.is_none_or(|cut| instance.position.iteration() <= Some(*cut))
            };
            selected.retain(is_kept);
        }
        Ok(selected)
    }

    fn is_selected(
        &self,
        graph: &Graph,
        chosen: &InstanceSet,
        task_id: &str,
        position: Position,
        state: Option<TaskState>,
    ) -> bool {
        let selection = self.selection;
        let task_index = graph.index_in(task_id, position.iteration());
        let is_chosen = match task_index {
            _ if selection.tasks.is_empty() => true,
            Some(task_index) => chosen.contains(task_index, position.map_index()),
            // The version does not have the task, so the task is selected only by its id.
            None => {
                let is_named = |(id, named): &(String, Option<Position>)| {
                    id == task_id && named.is_none_or(|named| named == position)
                };
                selection.tasks.iter().any(is_named)
            }
        };
        let is_task_gone = state == Some(TaskState::Removed) && task_index.is_none();
        is_chosen
            && !is_task_gone
            && selection.includes_state(state)
            && !selection.except.iter().any(|id| id == task_id)
    }

    /// The later iterations that [`Self::clear`] removes, because their loops go on from an earlier one.
    pub async fn removed_by(
        &mut self,
        client: &impl GenericClient,
        key: &RunKey,
        chosen: &[InstanceKey],
    ) -> Result<Vec<InstanceKey>> {
        if self.selection.keeps_later_iterations {
            return Ok(Vec::new());
        }
        let run = runs::get(client, key, ReadFor::Reading).await?;
        let version = self.versions.of_run(client, run.version_id).await?;
        removed_by(client, &version.structure, key, chosen).await
    }

    /// Clears the selected instances of a run and moves the run to the chosen version. The caller must have locked the
    /// run before it selected them.
    pub async fn clear(&mut self, transaction: &Transaction<'_>, key: &RunKey, chosen: &[InstanceKey]) -> Result<()> {
        let run = runs::get(transaction, key, ReadFor::Update).await?;
        let version = self.versions.of_run(transaction, run.version_id).await?;
        if Some(version.id) != run.version_id {
            take_version(transaction, &run, &version).await?;
        }
        if !chosen.is_empty() {
            let tasks: HashMap<&str, &Task> =
                version.structure.tasks.iter().map(|task| (task.task_id.as_str(), task)).collect();
            instance::clear(transaction, chosen, &tasks).await?;
            if !self.selection.keeps_later_iterations {
                for (group, last) in cuts(&version.structure, chosen) {
                    let tasks = version.structure.tasks_of_group(&version.structure.groups[group].group_id);
                    instance::remove_iterations(transaction, key, &tasks, last + 1).await?;
                }
            }
        }
        let is_teardown = |id: &str| version.structure.tasks.iter().any(|task| task.task_id == id && task.is_teardown);
        if chosen.iter().all(|instance| is_teardown(&instance.task_id)) {
            runs::bump_revision(transaction, key).await?;
        } else {
            transition::run::set_mark(transaction, key, None).await?;
        }
        if !chosen.is_empty() && !self.selection.leaves_run {
            match run.state.is_finished() {
                true => transition::run::requeue(transaction, key, new_run::now()).await?,
                false => deadlines::restart(transaction, key, new_run::now()).await?,
            }
        }
        notify_cleared(transaction, key).await
    }
}

/// The instances of iterations that a clear of `cleared` removes.
async fn removed_by(
    client: &impl GenericClient,
    structure: &Structure,
    run: &RunKey,
    cleared: &[InstanceKey],
) -> Result<Vec<InstanceKey>> {
    let mut removed = Vec::new();
    for (group, last) in cuts(structure, cleared) {
        let tasks = structure.tasks_of_group(&structure.groups[group].group_id);
        let query = format!(
            "SELECT {KEY} FROM task_instance WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND {IN_LOOP}
               AND map_index >= $4 AND state IS DISTINCT FROM 'removed' ORDER BY {KEY}"
        );
        let first = Position::bounds_of(last + 1)[0];
        removed.extend(fetch_all::<InstanceKey>(client, &query, &[&run.dag_id, &run.run_id, &tasks, &first]).await?);
    }
    Ok(removed)
}

/// The last iterations that stay when these instances are cleared, by the index of the loop's group: the gate of a loop
/// decides again whether the loop continues.
fn cuts(structure: &Structure, cleared: &[InstanceKey]) -> HashMap<usize, i32> {
    let first_of_gate = |gate: &str| {
        cleared.iter().filter(|instance| instance.task_id == gate).filter_map(|gate| gate.position.iteration()).min()
    };
    let groups = structure.groups.iter().enumerate();
    groups.filter_map(|(index, group)| Some((index, first_of_gate(&group.repeats.as_ref()?.gate)?))).collect()
}

/// Returns the named instances, the requested upstream and downstream instances, and the setups and teardowns that all
/// of these need. As in Airflow, with both directions the instances downstream of upstream instances are included; not in
/// a DAG with loops, whose gates would then be selected and remove iterations.
fn with_relatives(selection: &Selection, relatives: &Relatives<'_>) -> InstanceSet {
    let mut chosen =
        InstanceSet::named(relatives.graph, selection.tasks.iter().map(|(id, position)| (id.as_str(), *position)));
    let named = chosen.clone();
    if selection.upstream {
        chosen.extend(relatives.related_to(&named, Relation::Upstream));
    }
    if selection.downstream {
        let from = if relatives.graph.structure.has_loops() { &named } else { &chosen.clone() };
        chosen.extend(relatives.related_to(from, Relation::Downstream));
    }
    chosen.extend(relatives.setups(&chosen));
    chosen
}

/// Clears the selected instances of one run and returns them.
pub async fn clear(
    transaction: &Transaction<'_>,
    key: &RunKey,
    selection: &Selection,
    choice: VersionChoice,
) -> Result<Vec<InstanceKey>> {
    runs::lock(transaction, std::slice::from_ref(key)).await?;
    let mut clearing = Clearing::load(transaction, &key.dag_id, selection, choice).await?;
    let chosen = clearing.select(transaction, key).await?;
    clearing.clear(transaction, key, &chosen).await?;
    Ok(chosen)
}

async fn notify_cleared(transaction: &Transaction<'_>, key: &RunKey) -> Result<()> {
    let events = [Event::Stop, Event::Sweep, Event::Plan(key.clone()), Event::Changed(key.clone())];
    events::notify_all(transaction, &events).await
}

/// Ids of the tasks of the DAG's current version for which `add_new_tasks` would add instances, sorted.
pub async fn new_tasks(client: &impl GenericClient, key: &RunKey) -> Result<Vec<String>> {
    let dag = dags::get(client, &key.dag_id).await?;
    let run = runs::get(client, key, ReadFor::Reading).await?;
    let task_dates = TaskDates::of_run(run.logical_date, run.backfill_id);
    let missing = new_run::missing(client, key, &dag.structure, task_dates).await?;
    let mut task_ids: Vec<String> = missing.into_iter().map(|(task, _)| task.task_id.clone()).collect();
    task_ids.sort();
    task_ids.dedup();
    Ok(task_ids)
}

/// Moves a run to its DAG's current version if that has tasks without instances in the run, which adds these instances.
/// Does not clear other instances; requeues a finished run.
pub async fn add_new_tasks(transaction: &Transaction<'_>, key: &RunKey) -> Result<()> {
    let run = runs::get(transaction, key, ReadFor::Update).await?;
    if new_tasks(transaction, key).await?.is_empty() {
        return Ok(());
    }
    let mut versions = RunVersions::load(transaction, &key.dag_id, VersionChoice::Newest).await?;
    let newest = versions.of_run(transaction, run.version_id).await?;
    take_version(transaction, &run, &newest).await?;
    runs::bump_revision(transaction, key).await?;
    if run.state.is_finished() {
        transition::run::requeue(transaction, key, new_run::now()).await?;
    }
    notify_cleared(transaction, key).await
}

/// Moves the run to a version: adds instances of new tasks, marks instances of tasks that the version lacks removed, and
/// gives those that have not begun the version's pools and priorities.
async fn take_version(transaction: &Transaction<'_>, run: &runs::Run, version: &RunVersion) -> Result<()> {
    let key = &run.key;
    let set_version = "UPDATE dag_run SET dag_version_id = $3 WHERE dag_id = $1 AND run_id = $2";
    transaction.execute(set_version, &[&key.dag_id, &key.run_id, &version.id]).await?;
    instance::remove_others(transaction, key, &version.structure).await?;
    instance::restore(transaction, key, &version.structure).await?;
    instance::take_slots(transaction, key, &version.structure).await?;
    let task_dates = TaskDates::of_run(run.logical_date, run.backfill_id);
    new_run::add_instances(transaction, key, &version.structure, task_dates).await
}

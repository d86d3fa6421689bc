//! Writes the planner's changes in a few statements, and queues instances as far as there is capacity.

use super::cache::Cache;
use super::live_run::Graphs;
use crate::model::dag::Task;
use crate::model::keys::{InstanceKey, NOT_MAPPED, Position, RunKey};
use crate::model::state::TaskState;
use crate::planner::competition::{Choice, Competition, CutOff, Hidden, OtherRuns, RunTask};
use crate::planner::plan::{Plan, Snapshot, Transition};
use crate::planner::pool_limits::{Usage, Waiting};
use crate::store::events::{self, Event};
use crate::store::instance::instances;
use crate::store::instance::scheduled::{self, Size, Window};
use crate::store::transition::instance::{self, Change};
use crate::store::{Result, pools};
use deadpool_postgres::Transaction;
use futures_util::future::try_join;
use leoflow_postgres::GenericClient;
use std::collections::{BTreeSet, HashMap};
use tracing::{debug, warn};

/// Writes the instances of mapped tasks that the plan expands, adds or restores, and those of new iterations of loops.
pub async fn expand(transaction: &Transaction<'_>, key: &RunKey, snapshot: &Snapshot<'_>, plan: &Plan) -> Result<()> {
    let (graph, instances) = (snapshot.graph, &snapshot.instances);
    if !plan.expanded.is_empty() {
        let unmapped = plan.expanded.iter().map(|index| &instances[*index]);
        let unmapped = unmapped.map(|instance| InstanceKey::new(key.clone(), &instance.task_id, instance.position));
        instances::expand(transaction, &unmapped.collect::<Vec<_>>()).await?;
    }
    let restored = plan.restored.iter().map(|index| &instances[*index]);
    let restored = restored.filter_map(|instance| Some((graph.task(instance.task_index?), instance.position)));
    let added = plan
        .added
        .iter()
        .map(|(task_index, map_index)| (graph.task(*task_index), graph.position(*task_index, *map_index)));
    let begun = plan.iterations.iter().flat_map(|begun| begun_instances(snapshot, *begun));
    let rows: Vec<(&Task, Position)> = added.chain(restored).chain(begun).collect();
    instance::insert(transaction, &key.dag_id, &[&key.run_id], &rows).await
}

/// The instances of a new iteration of a loop. If a user has cleared an earlier iteration, there are removed ones, which
/// exist again; the planner then revises their number.
fn begun_instances<'a>(snapshot: &Snapshot<'a>, (group, iteration): (usize, i32)) -> Vec<(&'a Task, Position)> {
    let graph = snapshot.graph;
    let is_first = |task: &usize| graph.loop_of(*task) == Some(group) && graph.iteration(*task) == Some(0);
    let mut rows = Vec::new();
    for task in (0..graph.len()).filter(is_first).map(|task| graph.task(task)) {
        let removed = snapshot
            .instances
            .iter()
            .filter(|instance| instance.position.iteration() == Some(iteration) && instance.task_id == task.task_id);
        let before = rows.len();
        rows.extend(removed.map(|instance| (task, instance.position)));
        if rows.len() == before {
            rows.push((task, Position::in_loop(iteration, NOT_MAPPED)));
        }
    }
    rows
}

/// Writes the transitions. Returns `false` when an instance no longer has the state that was read, because the agent
/// has changed it meanwhile.
pub async fn transitions(
    transaction: &Transaction<'_>,
    key: &RunKey,
    snapshot: &Snapshot<'_>,
    plan: &Plan,
) -> Result<bool> {
    if plan.transitions.is_empty() {
        return Ok(true);
    }
    let change = |transition| change(snapshot, plan, transition);
    let changes: Vec<Change<'_>> = plan.transitions.iter().map(change).collect();
    for Change { name: (task_id, position), from, transition, .. } in &changes {
        let (from, to) = (from.map_or("none", TaskState::as_str), transition.to);
        debug!("{}.{task_id}{position} of {}: {from} -> {to}", key.dag_id, key.run_id);
    }
    let changed = instance::apply(transaction, key, &changes, snapshot.now).await?;
    Ok(changed == changes.len() as u64)
}

fn change<'a>(snapshot: &'a Snapshot<'_>, plan: &Plan, transition: &'a Transition) -> Change<'a> {
    let index = transition.index;
    let instance = snapshot.instances.get(index);
    // Also for a retry that is due at once, whose transition is to `scheduled`. The end is at most now: the clock may
    // have been set back since.
    let ended_at = instance.and_then(|instance| instance.ended.as_ref()).map(|ended| ended.at.min(snapshot.now));
    let (name, from) = (plan.name_after(snapshot, index), plan.state_before(snapshot, index));
    Change { name, from, transition, ended_at }
}

/// Usage of slots and limits by other runs, and whether other runs have instances that wait for capacity.
pub type Capacity = (Usage, bool);

pub async fn capacity(transaction: &Transaction<'_>, key: &RunKey) -> Result<Capacity> {
    try_join(pools::usage(transaction, Some(key)), scheduled::any_waits(transaction, Some(key))).await
}

/// Lets the planner choose which instances to queue, in this run and in others. Those of this run become part of the
/// plan; those of other runs are queued and returned.
pub(crate) async fn admit(
    transaction: &Transaction<'_>,
    cache: &mut Cache,
    key: &RunKey,
    snapshot: &Snapshot<'_>,
    plan: &mut Plan,
    (usage, others_wait): Capacity,
) -> Result<Vec<Waiting>> {
    let competition = Competition::of_run(key, snapshot, plan, usage);
    let (choice, others) = match others_wait {
        true => choose(transaction, cache, Some(key), &competition).await?,
        false => (competition.choose(&OtherRuns::default()), Vec::new()),
    };
    competition.queue(&choice, snapshot, plan);
    queue_others(transaction, others).await
}

/// Maximum number of waiting instances of each run and pool in the first window. Larger windows are read only if more
/// instances may fit.
const FIRST_WINDOW: i64 = 64;
/// Factor by which windows grow, once they are not limited to the free slots.
const WINDOW_GROWTH: i64 = 16;

/// Chooses the instances to queue among those of the competition's run, if any, and the waiting ones of all other runs.
/// Also returns the chosen instances of other runs.
async fn choose(
    client: &impl GenericClient,
    cache: &mut Cache,
    own_run: Option<&RunKey>,
    competition: &Competition,
) -> Result<(Choice, Vec<Waiting>)> {
    let mut excluded_runs = cache.runs.full(competition.usage());
    excluded_runs.extend(own_run.cloned());
    let (mut size, mut left_out, mut kept) = (Size::FreeSlots(FIRST_WINDOW), BTreeSet::<RunTask>::new(), Vec::new());
    loop {
        let window = Window { pools: competition.open_pools(), size, left_out: left_out.iter().collect() };
        let mut others = waiting_instances(client, &mut cache.graphs, &excluded_runs, &window).await?;
        others.waiting.append(&mut kept);
        let choice = competition.choose(&others);
        match choice.hidden {
            Hidden::None => {
                let chosen = choice.others.iter().map(|index| others.waiting[*index].clone()).collect();
                return Ok((choice, chosen));
            }
            // The instances of these tasks that were read stay in the competition; the next window leaves out the rest.
            Hidden::Behind(ref tasks) if !tasks.is_subset(&left_out) => left_out.extend(tasks.iter().cloned()),
            _ => size = larger(size),
        }
        let is_left_out =
            |waiting: &Waiting| left_out.contains(&(waiting.instance.run.clone(), waiting.instance.task_id.clone()));
        kept = others.waiting.into_iter().filter(is_left_out).collect();
    }
}

fn larger(size: Size) -> Size {
    match size {
        Size::FreeSlots(size) => Size::Any(size),
        Size::Any(size) => Size::Any(size.saturating_mul(WINDOW_GROWTH)),
    }
}

/// Reads instances that wait for capacity, in all running runs except `excluded_runs`. Leaves out instances whose task
/// the DAG version of their run no longer has.
async fn waiting_instances(
    client: &impl GenericClient,
    graphs: &mut Graphs,
    excluded_runs: &[RunKey],
    window: &Window<'_>,
) -> Result<OtherRuns> {
    let mut others = OtherRuns::default();
    if window.pools.is_empty() {
        return Ok(others);
    }
    let mut counts: HashMap<(RunKey, String), i64> = HashMap::new();
    for row in scheduled::waiting(client, excluded_runs, window).await? {
        let graph = match graphs.get(client, row.version_id).await {
            Err(error) if error.is_invalid_data() => {
                warn!("run {} of {} cannot queue tasks: {error}", row.instance.run.run_id, row.instance.run.dag_id);
                continue;
            }
            graph => graph?,
        };
        if let Some(task_index) = graph.task_index(&row.instance.task_id) {
            others.waiting.push(Waiting::new(row.instance.clone(), &graph, task_index, row.logical_date));
        }
        let group = (row.instance.run, row.pool);
        let count = counts.entry(group.clone()).or_default();
        *count += 1;
        if *count == row.limit {
            let (run, pool) = group;
            others.cut_off.push(CutOff { run, pool, max_active_tasks: graph.structure.max_active_tasks });
        }
    }
    Ok(others)
}

/// Queues the instances and notifies the agent. Returns the instances.
async fn queue_others(client: &impl GenericClient, chosen: Vec<Waiting>) -> Result<Vec<Waiting>> {
    if chosen.is_empty() {
        return Ok(chosen);
    }
    instance::queue(client, &chosen).await?;
    events::notify(client, &Event::Queued).await?;
    for run in chosen.iter().map(|waiting| &waiting.instance.run).collect::<BTreeSet<_>>() {
        events::notify(client, &Event::Changed(run.clone())).await?;
    }
    Ok(chosen)
}

/// Queues and returns the waiting instances of all runs that fit, when slots have become free.
pub(crate) async fn admit_all(transaction: &Transaction<'_>, cache: &mut Cache) -> Result<Vec<Waiting>> {
    if !scheduled::any_waits(transaction, None).await? {
        return Ok(Vec::new());
    }
    let competition = Competition::of_others(pools::usage(transaction, None).await?);
    let (_, chosen) = choose(transaction, cache, None, &competition).await?;
    queue_others(transaction, chosen).await
}

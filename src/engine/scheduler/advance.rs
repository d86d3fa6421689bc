//! Advances a run as far as it can go, in one transaction.

use super::apply;
use super::cache::Cache;
use super::episodes;
use super::file_sensors::{self, FileSensors};
use super::live_run::LiveRun;
use super::past;
use super::totals::Totals;
use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use crate::model::state::{RunState, TaskState};
use crate::planner::graph::Graph;
use crate::planner::plan::{self, Dates, Instance, Plan, Reason, Snapshot, Transition, TransitionKind};
use crate::store::asset::assets;
use crate::store::dag::{callbacks, dags};
use crate::store::events::{self, Event};
use crate::store::instance::planner_input;
use crate::store::run::active::{self, RunningRun};
use crate::store::run::{new_run, runs};
use crate::store::{Result, StoreError, session, transition};
use deadpool_postgres::{ClientWrapper, Transaction};
use futures_util::future::{try_join, try_join3};

/// Queues the waiting instances of all runs, as far as there is capacity.
pub(crate) async fn admit_all(client: &mut ClientWrapper, cache: &mut Cache) -> Result<()> {
    commit_admitted(client.transaction().await?, cache).await
}

async fn commit_admitted(transaction: Transaction<'_>, cache: &mut Cache) -> Result<()> {
    let queued = apply::admit_all(&transaction, cache).await?;
    if !queued.is_empty() {
        session::defer_flush(&transaction).await?;
    }
    transaction.commit().await?;
    cache.mark_queued(&queued);
    Ok(())
}

/// Maximum number of attempts to advance a run. An attempt fails when the agent changes an instance meanwhile; the next
/// attempt reads the run again.
const ATTEMPTS: usize = 20;

/// When the instances that may run are queued.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Admission {
    WithStep,
    /// By a later `admit_all`, once for several runs: it reads the usage of slots and the waiting instances of all runs.
    Later,
}

/// Advances a run as far as it can go now, in one transaction. Returns whether anything changed. The error is
/// `StoreError::Invalid` if all attempts fail.
pub async fn advance(
    client: &mut ClientWrapper,
    cache: &mut Cache,
    key: &RunKey,
    admission: Admission,
) -> Result<bool> {
    let mut attempts = 0;
    while attempts < ATTEMPTS {
        match step(client, cache, key, admission).await {
            Ok(Step::Overtaken) => attempts += 1,
            // The run is read again with the instances of the new iteration.
            Ok(Step::BegunIteration) => attempts = 0,
            Ok(Step::Taken { changed }) => return Ok(changed),
            Err(error) => {
                cache.runs.forget_all();
                return Err(error);
            }
        }
        cache.runs.forget(key);
    }
    Err(StoreError::Invalid("its task instances keep changing while it is evaluated".to_owned()))
}

/// The result of an attempt to advance a run.
enum Step {
    Taken {
        changed: bool,
    },
    /// A loop of the run continues.
    BegunIteration,
    /// A row no longer matches the cache or the snapshot; nothing was written.
    Overtaken,
}

/// Plans a run and writes the changes, in one transaction.
async fn step(client: &mut ClientWrapper, cache: &mut Cache, key: &RunKey, admission: Admission) -> Result<Step> {
    let transaction = client.transaction().await?;
    let Some(row) = active::lock_running(&transaction, key).await? else {
        // For example, a user has ended or deleted the run, so its slots are free.
        cache.runs.forget(key);
        if admission == Admission::WithStep {
            commit_admitted(transaction, cache).await?;
        }
        return Ok(Step::Taken { changed: false });
    };
    let Some(version) = row.version_id else { return Ok(Step::Taken { changed: false }) };
    let capacity = async {
        match admission {
            Admission::WithStep => apply::capacity(&transaction, key).await.map(Some),
            Admission::Later => Ok(None),
        }
    };
    let (run, capacity) = try_join(load(&transaction, cache, key, version, &row), capacity).await?;
    let Some(mut run) = run else { return Ok(Step::Overtaken) };
    let graph = run.graph.clone();
    let instances = std::mem::take(&mut run.instances);
    let snapshot = read_snapshot(&transaction, &cache.file_sensors, key, &graph, instances, &row).await?;
    let mut plan = plan::plan(&snapshot);
    apply::expand(&transaction, key, &snapshot, &plan).await?;
    let queued = match capacity {
        Some(capacity) => apply::admit(&transaction, cache, key, &snapshot, &mut plan, capacity).await?,
        None => Vec::new(),
    };
    let changed = plan.run.is_some() || !plan.transitions.is_empty() || !plan.restored.is_empty();
    if changed && write(&transaction, key, &snapshot, &plan).await? == Written::Overtaken {
        return Ok(Step::Overtaken);
    }
    let ended_episodes = episodes::note(&transaction, &mut cache.episodes, key, &snapshot, &plan).await?;
    if let Some((state, reason)) = plan.run {
        let unfinished = plan.unfinished_at_end(&snapshot);
        let name = |index| plan.name_after(&snapshot, index);
        let unfinished = unfinished.map(|indices| indices.into_iter().map(name).collect());
        finish(&transaction, key, &graph, (state, reason), unfinished).await?;
    }
    transaction.commit().await?;
    count(&cache.totals, key, &row, &plan);
    for episode in ended_episodes {
        cache.episodes.remove(&episode);
    }
    cache.mark_queued(&queued);
    if !plan.iterations.is_empty() {
        return Ok(Step::BegunIteration);
    }
    if plan.run.is_none() {
        run.instances = snapshot.instances;
        run.apply(&plan);
        cache.runs.keep(key, run);
    }
    Ok(Step::Taken { changed })
}

/// Counts what a plan has ended, after its commit.
fn count(totals: &Totals, key: &RunKey, row: &RunningRun, plan: &Plan) {
    for transition in plan.transitions.iter().filter(|transition| transition.to.is_finished()) {
        totals.finished(&key.dag_id, transition.to);
    }
    if let Some((state, _)) = plan.run {
        let due_at = row.is_scheduled.then_some(row.run_after);
        totals.run_ended(key, state, due_at, (row.start_date, new_run::now()));
    }
}

/// Returns the run, from the cache if possible; `None` if the rows do not match the cached run.
async fn load(
    transaction: &Transaction<'_>,
    cache: &mut Cache,
    key: &RunKey,
    version: i64,
    row: &RunningRun,
) -> Result<Option<LiveRun>> {
    let Some(mut run) = cache.runs.take(key, version, row.revision.as_deref()) else {
        let graph = cache.graphs.get(transaction, version).await?;
        return LiveRun::read(transaction, key, (version, row.revision.clone()), graph).await.map(Some);
    };
    Ok(run.refresh(transaction, key).await?.then_some(run))
}

/// Reads the planner's input.
async fn read_snapshot<'a>(
    transaction: &Transaction<'_>,
    files: &FileSensors,
    key: &RunKey,
    graph: &'a Graph,
    instances: Vec<Instance>,
    row: &RunningRun,
) -> Result<Snapshot<'a>> {
    let RunningRun { logical_date, not_before, run_after, marked, .. } = *row;
    // The lengths of lists are read only while an instance of a mapped task may start.
    let may_begin = |instance: &Instance| {
        let resumable = [TaskState::UpForRetry, TaskState::UpForReschedule];
        let is_waiting = instance.state.is_some_and(|state| resumable.contains(&state) || state.is_deferred());
        let is_mapped = instance.task_index.is_some_and(|task_index| graph.is_expandable(task_index));
        is_mapped && (instance.state.is_none() || instance.ended.is_some() || is_waiting)
    };
    let needs_lengths = graph.has_expandable() && instances.iter().any(may_begin);
    let now = new_run::now();
    Ok(Snapshot {
        graph,
        is_paused: row.is_paused,
        now,
        logical_date,
        not_before,
        polled: file_sensors::poll(transaction, files, graph, &instances, logical_date.unwrap_or(run_after), now)
            .await?,
        dates: Some(Dates { interval_end: row.interval_end, run_after }),
        times_out_at: row.times_out_at,
        marked,
        lengths: if needs_lengths {
            planner_input::lengths(transaction, key, graph).await?
        } else {
            Default::default()
        },
        decisions: planner_input::decisions(transaction, key, graph).await?,
        held_by_past: past::held_by_past(transaction, key, graph, logical_date).await?.tasks,
        instances,
    })
}

/// The result of writing a plan.
#[derive(PartialEq, Eq)]
enum Written {
    All,
    /// A row no longer matches the snapshot.
    Overtaken,
}

/// Writes the transitions and notifies the listeners; the statements are pipelined. The commit waits for the disk only if
/// the run ends: the scheduler would make the same transitions again.
async fn write(transaction: &Transaction<'_>, key: &RunKey, snapshot: &Snapshot<'_>, plan: &Plan) -> Result<Written> {
    let write = apply::transitions(transaction, key, snapshot, plan);
    let notify = async {
        match needs_notification(snapshot, plan) {
            true => notify(transaction, key, snapshot, plan).await,
            false => Ok(()),
        }
    };
    let defer_flush = async {
        match plan.run.is_none() {
            true => session::defer_flush(transaction).await,
            false => Ok(()),
        }
    };
    let (is_current, (), ()) = try_join3(write, notify, defer_flush).await?;
    Ok(if is_current { Written::All } else { Written::Overtaken })
}

/// False when the only changes are due dates of sensors that poked without success and will poke again.
fn needs_notification(snapshot: &Snapshot<'_>, plan: &Plan) -> bool {
    let keeps_waiting = |transition: &Transition| {
        let was_waiting =
            snapshot.instances.get(transition.index).is_some_and(|instance| instance.waits_since.is_some());
        was_waiting && matches!(transition.kind, TransitionKind::Waits { .. })
    };
    plan.run.is_some() || !plan.restored.is_empty() || !plan.transitions.iter().all(keeps_waiting)
}

/// Sends a notification for each kind of change, and saves the asset events of tasks that have succeeded.
async fn notify(transaction: &Transaction<'_>, key: &RunKey, snapshot: &Snapshot<'_>, plan: &Plan) -> Result<()> {
    let graph = snapshot.graph;
    let any_becomes =
        |predicate: &dyn Fn(TaskState) -> bool| plan.transitions.iter().any(|transition| predicate(transition.to));
    if any_becomes(&|state| state == TaskState::Queued) {
        events::notify(transaction, &Event::Queued).await?;
    }
    if plan.run.is_some() || graph.structure.fail_fast || any_becomes(&|state| state == TaskState::Removed) {
        // Tasks that still run must be stopped.
        events::notify(transaction, &Event::Stop).await?;
    }
    let succeeded = plan.transitions.iter().filter(|transition| transition.to == TaskState::Success);
    for transition in succeeded {
        let instance = snapshot.instances.get(transition.index);
        if instance.and_then(|instance| instance.ended.as_ref()).is_some_and(|ended| ended.has_asset_events) {
            let (task_id, position) = plan.name_after(snapshot, transition.index);
            let instance = InstanceKey::new(key.clone(), task_id, position);
            assets::save_events(transaction, &TryKey { instance, try_number: transition.try_number }).await?;
        }
    }
    if graph.has_past && any_becomes(&TaskState::is_finished) {
        // With `depends_on_past`, the same tasks of other runs may wait for these.
        for run in active::other_running(transaction, key).await? {
            events::notify(transaction, &Event::Plan(run)).await?;
        }
    }
    events::notify(transaction, &Event::Changed(key.clone())).await
}

/// Ends a run: queues its callback, pauses the DAG after too many consecutive failures, and completes its backfill.
async fn finish(
    transaction: &Transaction<'_>,
    key: &RunKey,
    graph: &Graph,
    (state, reason): (RunState, Reason),
    unfinished: Option<Vec<(&str, Position)>>,
) -> Result<()> {
    transition::run::end(transaction, key, state, new_run::now()).await?;
    let structure = &graph.structure;
    if reason == Reason::Marked {
        callbacks::add_marked(transaction, key, state).await?;
        return announce_end(transaction, key).await;
    }
    let has_callback =
        if state == RunState::Success { structure.on_success_callback } else { structure.on_failure_callback };
    if has_callback || structure.run_listeners {
        callbacks::add(transaction, key, (state, reason), unfinished).await?;
    }
    let max_failures = i64::from(structure.max_consecutive_failed_dag_runs);
    if state == RunState::Failed
        && max_failures > 0
        && dags::pause_after_failures(transaction, &key.dag_id, max_failures).await?
    {
        events::notify(transaction, &Event::Dags).await?;
    }
    announce_end(transaction, key).await
}

/// Completes the backfill of a run that has ended, and wakes queued runs that may wait for its end.
async fn announce_end(transaction: &Transaction<'_>, key: &RunKey) -> Result<()> {
    runs::complete_backfill_of(transaction, key).await?;
    events::notify(transaction, &Event::Sweep).await
}

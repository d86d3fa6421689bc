//! The scheduler's steps, each in one transaction: starts queued runs, and advances a run as far as it can go.

use super::apply::{self, Rows};
use super::file_sensors::{self, FileSensors};
use super::live_run::{LiveRun, LiveRuns};
use super::load::{self, Graphs};
use crate::model::keys::RunKey;
use crate::model::state::{RunState, TaskState};
use crate::planner::concurrency::Waiting;
use crate::planner::graph::Graph;
use crate::planner::plan::{self, Dates, Instance, Plan, Reason, Snapshot, Transition, TransitionKind};
use crate::store::StoreError;
use crate::store::asset::assets;
use crate::store::dag::callbacks;
use crate::store::events::{self, Event};
use crate::store::run::backfill_end;
use crate::store::run::lengths;
use crate::store::run::new_run;
use deadpool_postgres::{ClientWrapper, Transaction};
use futures_util::future::try_join;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

/// Starts queued runs of DAGs that are active and not paused, oldest first, up to `max_active_runs`; runs of a
/// backfill count against the backfill's own limit. Returns the started runs.
pub async fn begin_runs(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let query = "
        WITH RECURSIVE each AS (
            -- Loose index scan: one row per DAG and backfill with a queued run, however many runs there are. 0
            -- is no backfill.
            (SELECT dag_id, coalesce(backfill_id, 0) AS backfill FROM dag_run WHERE state = 'queued' ORDER BY 1, 2 LIMIT 1)
            UNION ALL
            SELECT n.dag_id, n.backfill FROM each e CROSS JOIN LATERAL (
                SELECT dag_id, coalesce(backfill_id, 0) AS backfill FROM dag_run
                WHERE state = 'queued' AND (dag_id, coalesce(backfill_id, 0)) > (e.dag_id, e.backfill)
                ORDER BY 1, 2 LIMIT 1) n),
        line AS (
            SELECT e.dag_id, e.backfill, coalesce(b.max_active_runs::bigint, l.most, 16) AS most, l.timeout,
                   (SELECT count(*) FROM dag_run a WHERE a.dag_id = e.dag_id AND a.state = 'running'
                    AND coalesce(a.backfill_id, 0) = e.backfill) AS running
            FROM each e JOIN dag d USING (dag_id) JOIN dag_version v ON v.id = d.current_version_id
            CROSS JOIN LATERAL (SELECT (v.structure->>'max_active_runs')::bigint AS most,
                                       (v.structure->>'dagrun_timeout')::float8 AS timeout) l
            LEFT JOIN backfill b ON b.id = e.backfill
            WHERE d.is_active AND NOT d.is_paused AND NOT coalesce(b.is_paused AND b.completed_at IS NULL, false)),
        waiting AS MATERIALIZED (
            SELECT n.dag_id, n.run_id, line.timeout FROM line CROSS JOIN LATERAL (
                SELECT dag_id, run_id FROM dag_run r
                WHERE r.dag_id = line.dag_id AND coalesce(r.backfill_id, 0) = line.backfill
                  AND r.state = 'queued'
                  -- Also a run that was due when it was queued, by a clock that has been set back since.
                  AND (r.run_after <= $1 OR r.run_after <= r.queued_at)
                ORDER BY r.backfill_ordinal, r.run_after, r.queued_at, r.run_id
                LIMIT CASE WHEN line.most > 0 THEN greatest(line.most - line.running, 0) END) n)
        -- Joins by the key alone: with another condition Postgres underestimates the rows and uses a nested loop over
        -- all. A run that was ended concurrently is not changed.
        UPDATE dag_run r SET state = CASE r.state WHEN 'queued' THEN 'running' ELSE r.state END,
               start_date = CASE r.state WHEN 'queued' THEN $1 ELSE r.start_date END,
               -- Clamped to the calendar's range.
               deadline_at = CASE r.state WHEN 'queued' THEN $1 + make_interval(secs => least(w.timeout, 1e9))
                                          ELSE r.deadline_at END
        FROM waiting w WHERE r.dag_id = w.dag_id AND r.run_id = w.run_id
        RETURNING r.dag_id, r.run_id, old.state = 'queued'";
    let rows = client.query(query, &[&new_run::now()]).await?;
    Ok(rows.iter().filter(|row| row.get(2)).map(run_key).collect())
}

fn run_key(row: &Row) -> RunKey {
    RunKey { dag_id: row.get(0), run_id: row.get(1) }
}

/// Returns all running runs.
pub async fn running(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let rows = client.query("SELECT dag_id, run_id FROM dag_run WHERE state = 'running'", &[]).await?;
    Ok(rows.iter().map(run_key).collect())
}

/// Work that is due at the current time.
#[derive(Debug)]
pub struct Clock {
    /// True when a DAG has a scheduled run that is due.
    pub is_due: bool,
    /// Runs with a retry or a sensor that is due, or whose `dagrun_timeout` has expired.
    pub due: Vec<RunKey>,
    /// When the next work will be due; `None` if there is none.
    pub next: Option<Timestamp>,
}

/// Reads what is due now and when something is due next, in one statement, so that all answers come from one snapshot.
pub async fn clock(client: &impl GenericClient) -> Result<Clock, StoreError> {
    // `once` first reads the instances with a due date, by their index; a join that starts from the runs would read all
    // of their instances. For `IS TRUE`, see `apply::waiting_instances`.
    let query = "
        WITH once AS MATERIALIZED (SELECT dag_id, run_id, due_at FROM task_instance WHERE due_at IS NOT NULL),
        waiting AS MATERIALIZED (
            SELECT dag_id, run_id, due_at FROM once JOIN dag_run r USING (dag_id, run_id) JOIN dag d USING (dag_id)
            WHERE (r.state = 'running') IS TRUE AND NOT d.is_paused),
        due AS (
            SELECT DISTINCT dag_id, run_id FROM waiting WHERE due_at <= $1
            UNION SELECT dag_id, run_id FROM dag_run WHERE state = 'running' AND deadline_at <= $1)
        SELECT (SELECT array_agg(dag_id) FROM due), (SELECT array_agg(run_id) FROM due),
               EXISTS (SELECT FROM dag WHERE is_active AND NOT is_paused AND next_run_after <= $1),
               least((SELECT min(due_at) FROM waiting WHERE due_at > $1),
                     (SELECT min(deadline_at) FROM dag_run WHERE state = 'running' AND deadline_at > $1),
                     (SELECT min(next_run_after) FROM dag
                      WHERE is_active AND NOT is_paused AND next_run_after > $1),
                     (SELECT min(r.run_after) FROM dag_run r JOIN dag d USING (dag_id)
                      -- The first range condition repeats the second in the words of the partial index.
                      WHERE r.state = 'queued' AND r.run_after > r.queued_at AND r.run_after > $1
                        AND d.is_active AND NOT d.is_paused))";
    let row = client.query_one(query, &[&new_run::now()]).await?;
    let dags: Vec<String> = row.get::<_, Option<_>>(0).unwrap_or_default();
    let runs: Vec<String> = row.get::<_, Option<_>>(1).unwrap_or_default();
    let due = dags.into_iter().zip(runs).map(|(dag_id, run_id)| RunKey { dag_id, run_id }).collect();
    Ok(Clock { is_due: row.get(2), due, next: row.get(3) })
}

/// State cached between steps.
#[derive(Default)]
pub struct Cache {
    pub graphs: Graphs,
    pub runs: LiveRuns,
    file_sensors: FileSensors,
}

/// Queues the waiting instances of all runs, as far as there is capacity.
pub async fn admit_all(client: &mut ClientWrapper, cache: &mut Cache) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    let queued = apply::admit_all(&transaction, &mut cache.graphs).await?;
    transaction.commit().await?;
    cache.mark_queued(&queued);
    Ok(())
}

impl Cache {
    fn mark_queued(&mut self, queued: &[Waiting]) {
        for waiting in queued {
            self.runs.set_state(&waiting.run, &waiting.task_id, waiting.map_index, TaskState::Queued);
        }
    }
}

/// Maximum number of attempts at a step. An attempt fails when the agent changes an instance meanwhile; the next one
/// reads the run again.
const ATTEMPTS: usize = 20;

/// Advances a run as far as it can go now, in one transaction. Returns whether anything changed.
pub async fn advance(client: &mut ClientWrapper, cache: &mut Cache, key: &RunKey) -> Result<bool, StoreError> {
    for _ in 0..ATTEMPTS {
        match step(client, cache, key).await {
            Ok(Step::Overtaken) => cache.runs.forget(key),
            Ok(Step::Taken { changed }) => return Ok(changed),
            Err(error) => {
                cache.runs.forget_all();
                return Err(error);
            }
        }
    }
    Err(StoreError::Invalid("its task instances keep changing while it is evaluated".to_owned()))
}

/// The result of an attempt to advance a run.
enum Step {
    Taken {
        changed: bool,
    },
    /// A row no longer matches the cache or the snapshot; nothing was written.
    Overtaken,
}

/// Plans a run and writes the changes, in one transaction.
async fn step(client: &mut ClientWrapper, cache: &mut Cache, key: &RunKey) -> Result<Step, StoreError> {
    let transaction = client.transaction().await?;
    let query = "SELECT r.dag_version_id, r.revision::text, r.logical_date, r.deadline_at, d.is_paused,
                        r.data_interval_end, r.run_after
                 FROM dag_run r JOIN dag d USING (dag_id)
                 WHERE r.dag_id = $1 AND r.run_id = $2 AND r.state = 'running' FOR UPDATE OF r";
    let Some(row) = transaction.query_opt(query, &[&key.dag_id, &key.run_id]).await? else {
        // A user has ended or deleted the run meanwhile, so its slots are free.
        cache.runs.forget(key);
        let queued = apply::admit_all(&transaction, &mut cache.graphs).await?;
        transaction.commit().await?;
        cache.mark_queued(&queued);
        return Ok(Step::Taken { changed: false });
    };
    let Some(version) = row.get::<_, Option<i64>>(0) else { return Ok(Step::Taken { changed: false }) };
    let revision: Option<String> = row.get(1);
    let (mut run, capacity) = match cache.runs.take(key, version, revision.as_deref()) {
        Some(mut run) => {
            let capacity = apply::capacity(&transaction, &mut cache.graphs, key);
            let (is_cache_current, capacity) = try_join(run.refresh(&transaction, key), capacity).await?;
            if !is_cache_current {
                return Ok(Step::Overtaken);
            }
            (run, capacity)
        }
        None => {
            let graph = cache.graphs.get(&transaction, version).await?;
            let run = LiveRun::read(&transaction, key, (version, revision), graph).await?;
            (run, apply::capacity(&transaction, &mut cache.graphs, key).await?)
        }
    };
    let graph = run.graph.clone();
    let snapshot =
        read_snapshot(&transaction, &cache.file_sensors, key, &graph, std::mem::take(&mut run.instances), &row).await?;
    let mut plan = plan::plan(&snapshot);
    let mut rows = Rows::new(std::mem::take(&mut run.names));
    rows.expand(&transaction, key, &snapshot, &plan).await?;
    let queued = apply::admit(&transaction, key, &snapshot, &mut plan, capacity).await?;
    let changed = plan.run.is_some() || !plan.transitions.is_empty() || !plan.restored.is_empty();
    if changed {
        let write = apply::transitions(&transaction, key, &rows, &snapshot, &plan.transitions);
        let notify = async {
            if needs_notification(&snapshot, &plan) {
                notify(&transaction, key, &graph, &rows, &plan).await
            } else {
                Ok(())
            }
        };
        let (is_current, ()) = try_join(write, notify).await?;
        if !is_current {
            return Ok(Step::Overtaken);
        }
    }
    if let Some((state, reason)) = plan.run {
        finish(&transaction, key, &graph, state, reason).await?;
    }
    transaction.commit().await?;
    cache.mark_queued(&queued);
    if plan.run.is_none() {
        run.instances = snapshot.instances;
        run.apply(&plan, rows.names);
        cache.runs.keep(key, run);
    }
    Ok(Step::Taken { changed })
}

/// Reads the planner's input. `row` is the row of the run that `step` has read.
async fn read_snapshot<'a>(
    transaction: &Transaction<'_>,
    files: &FileSensors,
    key: &RunKey,
    graph: &'a Graph,
    instances: Vec<Instance>,
    row: &Row,
) -> Result<Snapshot<'a>, StoreError> {
    let logical_date = row.get(2);
    // The lengths of lists are read only while an instance of a mapped task may start.
    let may_begin = |instance: &Instance| {
        let resumable = [TaskState::UpForRetry, TaskState::UpForReschedule];
        let is_waiting = instance.state.is_some_and(|state| resumable.contains(&state) || state.is_deferred());
        let is_mapped = instance.task_index.is_some_and(|task_index| graph.is_expandable(task_index));
        is_mapped && (instance.state.is_none() || instance.ended.is_some() || is_waiting)
    };
    let needs_lengths = graph.has_expandable() && instances.iter().any(may_begin);
    let (now, run_after) = (new_run::now(), row.get(6));
    Ok(Snapshot {
        graph,
        is_paused: row.get(4),
        now,
        logical_date,
        polled: file_sensors::poll(transaction, files, graph, &instances, logical_date.unwrap_or(run_after), now)
            .await?,
        dates: Some(Dates { interval_end: row.get(5), run_after }),
        deadline: row.get(3),
        lengths: if needs_lengths { lengths::of_run(transaction, key, graph).await? } else { Default::default() },
        decisions: load::decisions(transaction, key, graph).await?,
        held_by_past: load::held_by_past(transaction, key, graph, logical_date).await?,
        instances,
    })
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

/// Notifies the listeners of each kind of change.
async fn notify(
    transaction: &Transaction<'_>,
    key: &RunKey,
    graph: &Graph,
    rows: &Rows,
    plan: &Plan,
) -> Result<(), StoreError> {
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
        let (task_id, map_index) = &rows.names[transition.index];
        let has_outlets =
            graph.task_index(task_id).is_some_and(|task_index| !graph.task(task_index).outlets.is_empty());
        if has_outlets {
            assets::save_events(transaction, key, task_id, *map_index, transition.try_number).await?;
        }
    }
    if graph.has_past && any_becomes(&TaskState::is_finished) {
        // With `depends_on_past`, the same tasks of other runs may wait for these.
        let later_runs = "SELECT dag_id, run_id FROM dag_run WHERE dag_id = $1 AND run_id <> $2 AND state = 'running'";
        for row in transaction.query(later_runs, &[&key.dag_id, &key.run_id]).await? {
            events::notify(transaction, &Event::Plan(self::run_key(&row))).await?;
        }
    }
    events::notify(transaction, &Event::Changed(key.clone())).await?;
    Ok(())
}

/// Ends a run: queues its callback, pauses the DAG after too many consecutive failures, and completes its backfill.
async fn finish(
    transaction: &Transaction<'_>,
    key: &RunKey,
    graph: &Graph,
    state: RunState,
    reason: Reason,
) -> Result<(), StoreError> {
    let query = "UPDATE dag_run SET state = $3, end_date = greatest($4, start_date) WHERE dag_id = $1 AND run_id = $2";
    transaction.execute(query, &[&key.dag_id, &key.run_id, &state.as_str(), &new_run::now()]).await?;
    let structure = &graph.structure;
    let has_callback =
        if state == RunState::Success { structure.on_success_callback } else { structure.on_failure_callback };
    if has_callback {
        callbacks::add(transaction, key, state.as_str(), reason.as_str()).await?;
    }
    let max_failures = i64::from(structure.max_consecutive_failed_dag_runs);
    if state == RunState::Failed && max_failures > 0 {
        let pause = "
            UPDATE dag SET is_paused = true WHERE dag_id = $1 AND (
                SELECT count(*) = $2 AND bool_and(state = 'failed') FROM (
                    SELECT state FROM dag_run WHERE dag_id = $1 AND state IN ('success', 'failed')
                    ORDER BY logical_date DESC NULLS FIRST, run_after DESC LIMIT $2) recent)";
        if transaction.execute(pause, &[&key.dag_id, &max_failures]).await? > 0 {
            events::notify(transaction, &Event::Dags).await?;
        }
    }
    backfill_end::complete(transaction, key).await?;
    // A queued run may be waiting for this one to end.
    events::notify(transaction, &Event::Sweep).await?;
    Ok(())
}

//! The scheduler's steps, each one transaction: let runs begin, and take a run as far as it goes.

use super::apply::{self, Rows};
use super::live_run::{LiveRun, LiveRuns};
use super::load::{self, Graphs};
use super::looks::{self, FileLooks};
use crate::engine::keys::RunKey;
use crate::engine::planner::concurrency::Waiting;
use crate::engine::planner::graph::Graph;
use crate::engine::planner::plan::{self, Dates, Instance, Kind, Plan, Reason, Snapshot, Transition};
use crate::engine::state::{RunState, TaskState};
use crate::engine::store::StoreError;
use crate::engine::store::assets;
use crate::engine::store::backfill_end;
use crate::engine::store::callbacks;
use crate::engine::store::events::{self, Event};
use crate::engine::store::lengths;
use crate::engine::store::new_run;
use crate::postgres::GenericClient;
use deadpool_postgres::{ClientWrapper, Transaction};
use futures_util::future::try_join;
use jiff::Timestamp;
use tokio_postgres::Row;

/// Lets queued runs begin: of DAGs that are active and not paused, oldest first, `max_active_runs`
/// at once; those of a backfill after the others, as many as it allows. Returns those that have begun.
pub async fn begin_runs(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let query = "
        WITH RECURSIVE each AS (
            -- Each DAG, and each of its backfills, that has a queued run: from one to the next, whatever the number of
            -- those runs. 0 is no backfill.
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
                  -- Also one that was due when it was queued, by a clock that has been set back since.
                  AND (r.run_after <= $1 OR r.run_after <= r.queued_at)
                ORDER BY r.backfill_ordinal, r.run_after, r.queued_at, r.run_id
                LIMIT CASE WHEN line.most > 0 THEN greatest(line.most - line.running, 0) END) n)
        -- By the key alone: one more condition, and the planner takes them for so few that all are compared with all. One
        -- that somebody has ended meanwhile stays as it is.
        UPDATE dag_run r SET state = CASE r.state WHEN 'queued' THEN 'running' ELSE r.state END,
               start_date = CASE r.state WHEN 'queued' THEN $1 ELSE r.start_date END,
               -- No longer than the calendar goes.
               deadline_at = CASE r.state WHEN 'queued' THEN $1 + make_interval(secs => least(w.timeout, 1e9))
                                          ELSE r.deadline_at END
        FROM waiting w WHERE r.dag_id = w.dag_id AND r.run_id = w.run_id
        RETURNING r.dag_id, r.run_id, old.state = 'queued'";
    let rows = client.query(query, &[&new_run::now()]).await?;
    Ok(rows.iter().filter(|row| row.get(2)).map(key).collect())
}

fn key(row: &Row) -> RunKey {
    RunKey { dag_id: row.get(0), run_id: row.get(1) }
}

/// Every run that is under way, for a scheduler that starts, or whose DAG was unpaused.
pub async fn running(client: &impl GenericClient) -> Result<Vec<RunKey>, StoreError> {
    let rows = client.query("SELECT dag_id, run_id FROM dag_run WHERE state = 'running'", &[]).await?;
    Ok(rows.iter().map(key).collect())
}

/// What the clock asks for.
#[derive(Debug)]
pub struct Clock {
    /// Whether a DAG is due by its schedule.
    pub is_due: bool,
    /// Runs that have a retry or a sensor which is due, or whose time is over.
    pub due: Vec<RunKey>,
    /// When it will next ask for something.
    pub next: Option<Timestamp>,
}

/// All of one moment, so that nothing falls between them.
pub async fn clock(client: &impl GenericClient) -> Result<Clock, StoreError> {
    // First what is due once, which has an index: by their runs all that these consist of would be read. `IS TRUE` as in
    // `apply::others_waiting`.
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
                      -- The second says what the third does, in the index's words.
                      WHERE r.state = 'queued' AND r.run_after > r.queued_at AND r.run_after > $1
                        AND d.is_active AND NOT d.is_paused))";
    let row = client.query_one(query, &[&new_run::now()]).await?;
    let dags: Vec<String> = row.get::<_, Option<_>>(0).unwrap_or_default();
    let runs: Vec<String> = row.get::<_, Option<_>>(1).unwrap_or_default();
    let due = dags.into_iter().zip(runs).map(|(dag_id, run_id)| RunKey { dag_id, run_id }).collect();
    Ok(Clock { is_due: row.get(2), due, next: row.get(3) })
}

/// What the scheduler remembers between its steps.
#[derive(Default)]
pub struct Memory {
    pub graphs: Graphs,
    pub runs: LiveRuns,
    files: FileLooks,
}

/// Lets begin what waits for slots in all runs.
pub async fn admit_all(client: &mut ClientWrapper, memory: &mut Memory) -> Result<(), StoreError> {
    let transaction = client.transaction().await?;
    let queued = apply::admit_all(&transaction, &mut memory.graphs).await?;
    transaction.commit().await?;
    memory.have_queued(&queued);
    Ok(())
}

impl Memory {
    fn have_queued(&mut self, queued: &[Waiting]) {
        for one in queued {
            self.runs.set_state(&one.run, &one.task_id, one.map_index, TaskState::Queued);
        }
    }
}

/// Attempts at a step that the agent was faster than; each reads the run anew.
const ATTEMPTS: usize = 20;

/// Takes a run as far as it goes now, in one transaction. Returns whether there was anything to do.
pub async fn advance(client: &mut ClientWrapper, memory: &mut Memory, key: &RunKey) -> Result<bool, StoreError> {
    for _ in 0..ATTEMPTS {
        match step(client, memory, key).await {
            Ok(Step::Overtaken) => memory.runs.forget(key),
            Ok(Step::Taken { changed }) => return Ok(changed),
            Err(error) => {
                memory.runs.forget_all();
                return Err(error);
            }
        }
    }
    Err(StoreError::Invalid("its task instances change while it is looked at".to_owned()))
}

enum Step {
    Taken {
        changed: bool,
    },
    /// Something is not as it was remembered, or read: nothing was written.
    Overtaken,
}

async fn step(client: &mut ClientWrapper, memory: &mut Memory, key: &RunKey) -> Result<Step, StoreError> {
    let transaction = client.transaction().await?;
    let query = "SELECT r.dag_version_id, r.revision::text, r.logical_date, r.deadline_at, d.is_paused,
                        r.data_interval_end, r.run_after
                 FROM dag_run r JOIN dag d USING (dag_id)
                 WHERE r.dag_id = $1 AND r.run_id = $2 AND r.state = 'running' FOR UPDATE OF r";
    let Some(row) = transaction.query_opt(query, &[&key.dag_id, &key.run_id]).await? else {
        // Ended by hand meanwhile, or deleted: what it held is free.
        memory.runs.forget(key);
        let queued = apply::admit_all(&transaction, &mut memory.graphs).await?;
        transaction.commit().await?;
        memory.have_queued(&queued);
        return Ok(Step::Taken { changed: false });
    };
    let Some(version) = row.get::<_, Option<i64>>(0) else { return Ok(Step::Taken { changed: false }) };
    let revision: Option<String> = row.get(1);
    let (mut run, room) = match memory.runs.take(key, version, revision.as_deref()) {
        Some(mut run) => {
            let room = apply::room(&transaction, &mut memory.graphs, key);
            let (fits, room) = try_join(run.follow(&transaction, key), room).await?;
            if !fits {
                return Ok(Step::Overtaken);
            }
            (run, room)
        }
        None => {
            let graph = memory.graphs.get(&transaction, version).await?;
            let run = LiveRun::read(&transaction, key, (version, revision), graph).await?;
            (run, apply::room(&transaction, &mut memory.graphs, key).await?)
        }
    };
    let graph = run.graph.clone();
    let snapshot = look(&transaction, &memory.files, key, &graph, std::mem::take(&mut run.instances), &row).await?;
    let mut plan = plan::plan(&snapshot);
    let mut rows = Rows::new(std::mem::take(&mut run.names));
    rows.expand(&transaction, key, &snapshot, &plan).await?;
    let queued = apply::admit(&transaction, key, &snapshot, &mut plan, room).await?;
    let changed = plan.run.is_some() || !plan.transitions.is_empty() || !plan.restored.is_empty();
    if changed {
        let write = apply::transitions(&transaction, key, &rows, &snapshot, &plan.transitions);
        let tell = async {
            if is_news(&snapshot, &plan) { tell(&transaction, key, &graph, &rows, &plan).await } else { Ok(()) }
        };
        let (as_seen, ()) = try_join(write, tell).await?;
        if !as_seen {
            return Ok(Step::Overtaken);
        }
    }
    if let Some((state, reason)) = plan.run {
        finish(&transaction, key, &graph, state, reason).await?;
    }
    transaction.commit().await?;
    memory.have_queued(&queued);
    if plan.run.is_none() {
        run.instances = snapshot.instances;
        run.apply(&plan, rows.names);
        memory.runs.keep(key, run);
    }
    Ok(Step::Taken { changed })
}

/// What the planner has to know. `row` is the run's.
async fn look<'a>(
    transaction: &Transaction<'_>,
    files: &FileLooks,
    key: &RunKey,
    graph: &'a Graph,
    instances: Vec<Instance>,
    row: &Row,
) -> Result<Snapshot<'a>, StoreError> {
    let logical_date = row.get(2);
    // What is mapped is only measured while something waits to be.
    let may_begin = |one: &Instance| {
        let again = [TaskState::UpForRetry, TaskState::UpForReschedule];
        let waits = one.state.is_some_and(|state| again.contains(&state) || state.is_deferred());
        let is_mapped = one.task_index.is_some_and(|task_index| graph.is_expandable(task_index));
        is_mapped && (one.state.is_none() || one.ended.is_some() || waits)
    };
    let waits = graph.has_expandable() && instances.iter().any(may_begin);
    let (now, run_after) = (new_run::now(), row.get(6));
    Ok(Snapshot {
        graph,
        is_paused: row.get(4),
        now,
        logical_date,
        polled: looks::look(transaction, files, graph, &instances, logical_date.unwrap_or(run_after), now).await?,
        dates: Some(Dates { interval_end: row.get(5), run_after }),
        deadline: row.get(3),
        lengths: if waits { lengths::of_run(transaction, key, graph).await? } else { Default::default() },
        decisions: load::decisions(transaction, key, graph).await?,
        held_by_past: load::held_by_past(transaction, key, graph, logical_date).await?,
        instances,
    })
}

/// A sensor that has looked in vain, and looks again, is no news to anybody.
fn is_news(snapshot: &Snapshot<'_>, plan: &Plan) -> bool {
    let waits_on = |one: &Transition| {
        let waited = snapshot.instances.get(one.index).is_some_and(|instance| instance.waits_since.is_some());
        waited && matches!(one.kind, Kind::Waits { .. })
    };
    plan.run.is_some() || !plan.restored.is_empty() || !plan.transitions.iter().all(waits_on)
}

/// Whoever waits for what has changed.
async fn tell(
    transaction: &Transaction<'_>,
    key: &RunKey,
    graph: &Graph,
    rows: &Rows,
    plan: &Plan,
) -> Result<(), StoreError> {
    let any = |wanted: &dyn Fn(TaskState) -> bool| plan.transitions.iter().any(|one| wanted(one.to));
    if any(&|state| state == TaskState::Queued) {
        events::notify(transaction, &Event::Queued).await?;
    }
    if plan.run.is_some() || graph.structure.fail_fast || any(&|state| state == TaskState::Removed) {
        // What ran on is to end.
        events::notify(transaction, &Event::Stop).await?;
    }
    let succeeded = plan.transitions.iter().filter(|one| one.to == TaskState::Success);
    for one in succeeded {
        let (task_id, map_index) = &rows.names[one.index];
        let outlets = graph.task_index(task_id).is_some_and(|task_index| !graph.task(task_index).outlets.is_empty());
        if outlets {
            assets::take_events(transaction, key, task_id, *map_index, one.try_number).await?;
        }
    }
    if graph.has_past && any(&TaskState::is_finished) {
        // The same tasks of later runs may have waited for these.
        let later = "SELECT dag_id, run_id FROM dag_run WHERE dag_id = $1 AND run_id <> $2 AND state = 'running'";
        for row in transaction.query(later, &[&key.dag_id, &key.run_id]).await? {
            events::notify(transaction, &Event::Plan(self::key(&row))).await?;
        }
    }
    events::notify(transaction, &Event::Changed(key.clone())).await?;
    Ok(())
}

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
    let most = i64::from(structure.max_consecutive_failed_dag_runs);
    if state == RunState::Failed && most > 0 {
        let pause = "
            UPDATE dag SET is_paused = true WHERE dag_id = $1 AND (
                SELECT count(*) = $2 AND bool_and(state = 'failed') FROM (
                    SELECT state FROM dag_run WHERE dag_id = $1 AND state IN ('success', 'failed')
                    ORDER BY logical_date DESC NULLS FIRST, run_after DESC LIMIT $2) recent)";
        if transaction.execute(pause, &[&key.dag_id, &most]).await? > 0 {
            events::notify(transaction, &Event::Dags).await?;
        }
    }
    backfill_end::complete(transaction, key).await?;
    // Another run may have waited for this one's end.
    events::notify(transaction, &Event::Sweep).await?;
    Ok(())
}

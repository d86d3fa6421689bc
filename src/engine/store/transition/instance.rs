//! Writes the states of task instances, except the changes that the agent makes when it claims or requeues them, which
//! are in `claim`. `planner/pool_limits.rs` chooses the instances that `queue` queues.

use crate::model::dag::{Structure, Task};
use crate::model::keys::{InstanceKey, NOT_MAPPED, Position, RunKey, TryKey};
use crate::model::state::{RunState, TaskState};
use crate::planner::pool_limits::Waiting;
use crate::planner::snapshot::{Transition, TransitionKind};
use crate::store::Result;
use crate::store::instance_key::{IN_LOOP, INSTANCE, KEY, KeyColumns, TRY};
use crate::store::rows::execute;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::HashMap;
use std::sync::LazyLock;
use tokio_postgres::types::ToSql;

/// A planned change of one instance of a run.
#[derive(Debug)]
pub struct Change<'a> {
    /// Task id and position of the instance.
    pub name: (&'a str, Position),
    /// The state that the instance must still have.
    pub from: Option<TaskState>,
    pub transition: &'a Transition,
    /// When the try has ended, for a transition that settles it.
    pub ended_at: Option<Timestamp>,
}

/// Applies planned changes; `$13` is the current time. Each row of `new` contains the run's key too, so that Postgres
/// finds each instance by its full key; by the run's key alone it would read all instances of the run.
static APPLY: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
        WITH new AS MATERIALIZED (
            SELECT $1::text AS dag_id, $2::text AS run_id, task_id, map_index, before, state, try_number, due_at, no_op,
                   never_ran, waits, ended
            FROM unnest($3::text[], $4::integer[], $5::text[], $6::text[], $7::integer[], $8::timestamptz[],
                        $9::boolean[], $10::boolean[], $11::boolean[], $12::timestamptz[])
                 AS one (task_id, map_index, before, state, try_number, due_at, no_op, never_ran, waits, ended))
        UPDATE task_instance ti SET state = new.state, try_number = new.try_number, due_at = new.due_at,
               scheduled_at = CASE WHEN new.state IN ('scheduled', 'queued') AND ti.state IS DISTINCT FROM 'scheduled'
                                   THEN clock_timestamp() ELSE ti.scheduled_at END,
               queued_at = CASE WHEN new.state = 'queued' THEN clock_timestamp() ELSE ti.queued_at END,
               start_date = CASE WHEN new.no_op OR new.waits AND ti.state IS DISTINCT FROM 'up_for_reschedule' THEN $13
                                 WHEN new.never_ran THEN coalesce(ti.start_date, $13) ELSE ti.start_date END,
               -- A sensor that waits without a process has started and not ended.
               end_date = CASE WHEN new.no_op OR new.never_ran THEN $13 WHEN new.waits THEN NULL
                               ELSE coalesce(new.ended, ti.end_date) END
        FROM new
        WHERE {} AND ti.state IS NOT DISTINCT FROM new.before",
        INSTANCE.same("ti", "new")
    )
});

/// `from` to the new state of each change: the scheduler writes the changes that it has planned for a run. The caller
/// must have locked the run. The agent may have changed an instance meanwhile; one that no longer has the state `from`
/// is left unchanged. Returns the number of changed instances.
pub async fn apply(client: &impl GenericClient, run: &RunKey, changes: &[Change<'_>], now: Timestamp) -> Result<u64> {
    let (tasks, positions): (Vec<&str>, Vec<Position>) = changes.iter().map(|change| change.name).unzip();
    let states_before: Vec<Option<&str>> = changes.iter().map(|change| change.from.map(TaskState::as_str)).collect();
    let states: Vec<&str> = changes.iter().map(|change| change.transition.to.as_str()).collect();
    let try_numbers: Vec<i32> = changes.iter().map(|change| change.transition.try_number).collect();
    let due_dates: Vec<Option<Timestamp>> = changes.iter().map(|change| change.transition.due_at).collect();
    let are = |is: fn(TransitionKind) -> bool| changes.iter().map(|change| is(change.transition.kind)).collect();
    let no_ops: Vec<bool> = are(|kind| kind == TransitionKind::NoOp);
    let never_ran: Vec<bool> = are(|kind| matches!(kind, TransitionKind::NeverRan | TransitionKind::Waited));
    let waits: Vec<bool> = are(|kind| matches!(kind, TransitionKind::Waits { .. }));
    let end_dates: Vec<Option<Timestamp>> = changes.iter().map(|change| change.ended_at).collect();
    let parameters: [&(dyn ToSql + Sync); 13] = [
        &run.dag_id,
        &run.run_id,
        &tasks,
        &positions,
        &states_before,
        &states,
        &try_numbers,
        &due_dates,
        &no_ops,
        &never_ran,
        &waits,
        &end_dates,
        &now,
    ];
    Ok(client.execute(&APPLY, &parameters).await?)
}

/// `scheduled` to `queued`: the instances that `planner/pool_limits.rs` has chosen, of any runs. The caller needs no
/// locks; an instance that is no longer `scheduled` is left unchanged.
pub async fn queue(client: &impl GenericClient, chosen: &[Waiting]) -> Result<()> {
    let keys = KeyColumns::new(chosen.iter().map(|waiting| &waiting.instance));
    let query = format!(
        "UPDATE task_instance ti SET state = 'queued', queued_at = clock_timestamp() FROM {} AS new ({KEY})
         WHERE {} AND ti.state = 'scheduled'",
        INSTANCE.unnest(1),
        INSTANCE.same("ti", "new")
    );
    execute(client, &query, &keys.after(&[])).await
}

/// Gives the instances that occupy no slots the pools, slots and priorities of a version's tasks. The states do not change.
/// The caller must have locked the run.
pub async fn take_slots(client: &impl GenericClient, run: &RunKey, structure: &Structure) -> Result<()> {
    let tasks = &structure.tasks;
    let ids: Vec<&str> = tasks.iter().map(|task| task.task_id.as_str()).collect();
    let pools: Vec<&str> = tasks.iter().map(Task::pool).collect();
    let slots: Vec<i32> = tasks.iter().map(|task| task.pool_slots).collect();
    let weights: Vec<i32> = tasks.iter().map(|task| task.weight).collect();
    let query = "
        UPDATE task_instance ti SET pool = new.pool, pool_slots = new.slots, priority_weight = new.weight
        FROM unnest($3::text[], $4::text[], $5::integer[], $6::integer[]) AS new (task_id, pool, slots, weight)
        WHERE ti.dag_id = $1 AND ti.run_id = $2 AND ti.task_id = new.task_id
          AND (ti.state IS NULL OR ti.state IN ('scheduled', 'up_for_retry', 'up_for_reschedule'))
          AND (ti.pool, ti.pool_slots, ti.priority_weight) IS DISTINCT FROM (new.pool, new.slots, new.weight)";
    execute(client, query, &[&run.dag_id, &run.run_id, &ids, &pools, &slots, &weights]).await
}

/// Inserts instances without a state into each of these runs; `rows` has their tasks and positions. `removed` to no
/// state: a `removed` instance that exists is reset as if it were cleared, with all of its retries. The caller must
/// have locked the runs that already exist.
pub async fn insert(
    client: &impl GenericClient,
    dag_id: &str,
    run_ids: &[&str],
    rows: &[(&Task, Position)],
) -> Result<()> {
    if rows.is_empty() || run_ids.is_empty() {
        return Ok(());
    }
    let tasks: Vec<&str> = rows.iter().map(|(task, _)| task.task_id.as_str()).collect();
    let positions: Vec<Position> = rows.iter().map(|(_, position)| *position).collect();
    let retries: Vec<i32> = rows.iter().map(|(task, _)| retries(task)).collect();
    let operators: Vec<&str> = rows.iter().map(|(task, _)| task.operator.as_str()).collect();
    let pools: Vec<&str> = rows.iter().map(|(task, _)| task.pool()).collect();
    let slots: Vec<i32> = rows.iter().map(|(task, _)| task.pool_slots).collect();
    let weights: Vec<i32> = rows.iter().map(|(task, _)| task.weight).collect();
    let query = format!(
        "
        INSERT INTO task_instance ({KEY}, max_tries, operator, pool, pool_slots, priority_weight)
        SELECT $1, run.id, task_id, map_index, retries, operator, pool, slots, weight FROM unnest($2::text[]) AS run (id)
        CROSS JOIN unnest($3::text[], $4::integer[], $5::integer[], $6::text[], $7::text[], $8::integer[],
                          $9::integer[]) AS new (task_id, map_index, retries, operator, pool, slots, weight)
        ON CONFLICT ({KEY}) DO UPDATE
        SET state = NULL, due_at = NULL, updated_at = clock_timestamp(), pool = EXCLUDED.pool,
            pool_slots = EXCLUDED.pool_slots,
            priority_weight = EXCLUDED.priority_weight, operator = EXCLUDED.operator,
            max_tries = least(task_instance.try_number::bigint + EXCLUDED.max_tries, 2147483646)
        WHERE task_instance.state = 'removed'"
    );
    let parameters: [&(dyn ToSql + Sync); 9] =
        [&dag_id, &run_ids, &tasks, &positions, &retries, &operators, &pools, &slots, &weights];
    execute(client, &query, &parameters).await
}

fn retries(task: &Task) -> i32 {
    i32::try_from(task.retries).unwrap_or(i32::MAX)
}

/// Any state to `state`: a user marks instances. The caller must have locked their runs.
pub async fn mark(client: &impl GenericClient, marked: &[InstanceKey], state: TaskState) -> Result<()> {
    let query = format!(
        "UPDATE task_instance ti SET state = $1, due_at = NULL, updated_at = clock_timestamp(),
                start_date = coalesce(start_date, now()),
                -- The end date of an earlier try does not apply to a running instance.
                end_date = CASE WHEN end_date >= start_date THEN end_date ELSE now() END
         FROM {} AS chosen ({KEY}) WHERE {}",
        INSTANCE.unnest(2),
        INSTANCE.same("ti", "chosen")
    );
    execute(client, &query, &KeyColumns::new(marked).after(&[&state.as_str()])).await
}

/// Unfinished to finished: a user ends a run in `state`. Instances that run, or are suspended after their start, get
/// the same state, all others (also those that wait for a retry) become `skipped`; those of the tasks `except` are left
/// unchanged. The caller must have locked the run.
pub async fn end_unfinished(
    client: &impl GenericClient,
    run: &RunKey,
    state: RunState,
    except: &[String],
) -> Result<()> {
    let query = "
            UPDATE task_instance SET end_date = now(), start_date = coalesce(start_date, now()), due_at = NULL,
                   state = CASE WHEN state IN ('running', 'deferred', 'up_for_reschedule', 'awaiting_input') THEN $3
                                ELSE 'skipped' END
            WHERE dag_id = $1 AND run_id = $2 AND task_id <> ALL ($4)
              AND (state IS NULL OR state NOT IN ('success', 'failed', 'skipped', 'upstream_failed', 'removed'))";
    execute(client, query, &[&run.dag_id, &run.run_id, &state.as_str(), &except]).await
}

/// Any state to no state: clears instances of one run. `tasks` are the tasks of the run's DAG version by id; the
/// instances get their retries, pools and weights. `running` and `restarting` instances become `restarting`, and those
/// whose task is not in `tasks` become `removed`. The caller must have locked the run.
pub async fn clear(client: &impl GenericClient, chosen: &[InstanceKey], tasks: &HashMap<&str, &Task>) -> Result<()> {
    let chosen_tasks: Vec<Option<&Task>> =
        chosen.iter().map(|instance| tasks.get(instance.task_id.as_str()).copied()).collect();
    let retries: Vec<i32> = chosen_tasks.iter().map(|task| task.map_or(0, retries)).collect();
    let pools: Vec<Option<&str>> = chosen_tasks.iter().map(|task| task.map(Task::pool)).collect();
    let slots: Vec<i32> = chosen_tasks.iter().map(|task| task.map_or(1, |task| task.pool_slots)).collect();
    let weights: Vec<i32> = chosen_tasks.iter().map(|task| task.map_or(1, |task| task.weight)).collect();
    let query = format!(
        "
            UPDATE task_instance ti SET due_at = NULL, updated_at = clock_timestamp(),
                   -- If the instance waits without a process, its start date is only the begin of that wait.
                   start_date = CASE WHEN state = 'up_for_reschedule' AND end_date IS NULL THEN NULL ELSE start_date END,
                   max_tries = least(try_number::bigint + greatest(retries, 0), 2147483646),
                   pool = coalesce(new_pool, pool), pool_slots = new_slots, priority_weight = new_weight,
                   state = CASE WHEN state IN ('running', 'restarting') THEN 'restarting'
                                -- The DAG no longer has the task, so there is no pool either.
                                WHEN new_pool IS NULL THEN 'removed' END
            FROM unnest($1::integer[], $2::text[], $3::integer[], $4::integer[], {})
                 AS chosen (retries, new_pool, new_slots, new_weight, {KEY})
            WHERE {}",
        INSTANCE.arrays(5),
        INSTANCE.same("ti", "chosen")
    );
    execute(client, &query, &KeyColumns::new(chosen).after(&[&retries, &pools, &slots, &weights])).await
}

/// Any state but `running` to `removed`: the instances of a run whose tasks are not in `structure`, the version that the
/// run now has, or are inside of a loop there and outside in the run, or the reverse. The caller must have locked the run.
pub async fn remove_others(client: &impl GenericClient, run: &RunKey, structure: &Structure) -> Result<()> {
    let (once, looped) = structure.ids_outside_and_in_loops();
    let query = format!(
        "UPDATE task_instance SET state = $5, due_at = NULL, updated_at = clock_timestamp()
         WHERE dag_id = $1 AND run_id = $2 AND task_id <> ALL (CASE WHEN {IN_LOOP} THEN $4::text[] ELSE $3::text[] END)
           AND state IS DISTINCT FROM 'running'"
    );
    execute(client, &query, &[&run.dag_id, &run.run_id, &once, &looped, &TaskState::Removed.as_str()]).await
}

/// `removed` to no state: the instances of a run whose tasks are in `structure`. The iterations of a loop stay removed,
/// because its gate decides about them. The caller must have locked the run.
pub async fn restore(client: &impl GenericClient, run: &RunKey, structure: &Structure) -> Result<()> {
    let (once, _) = structure.ids_outside_and_in_loops();
    let query = format!(
        "UPDATE task_instance SET state = NULL, updated_at = clock_timestamp()
         WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND state = 'removed' AND NOT {IN_LOOP}"
    );
    execute(client, &query, &[&run.dag_id, &run.run_id, &once]).await
}

/// Any state to `removed`, that of running instances too: the iterations of a loop from `first` on. `tasks` are those of
/// the loop. The caller must have locked the run.
pub async fn remove_iterations(client: &impl GenericClient, run: &RunKey, tasks: &[String], first: i32) -> Result<()> {
    let query = format!(
        "UPDATE task_instance SET state = $5, due_at = NULL, updated_at = clock_timestamp(),
                -- An instance that has started and not ended would wait without a process.
                end_date = CASE WHEN start_date IS NULL THEN end_date ELSE coalesce(end_date, now()) END
         WHERE dag_id = $1 AND run_id = $2 AND task_id = ANY ($3) AND {IN_LOOP} AND map_index >= $4"
    );
    let first = Position::in_loop(first, NOT_MAPPED);
    execute(client, &query, &[&run.dag_id, &run.run_id, &tasks, &first, &TaskState::Removed.as_str()]).await
}

/// The effect of a fired trigger on its instance.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TriggerEffect {
    /// The task continues once it is queued again.
    Resume,
    /// The try has ended.
    End,
}

/// `deferred` and `awaiting_input` stay or, if the trigger ends the try, become `running`; the scheduler then settles
/// the instance like any ended try. The instance becomes due now in both cases. The caller must have locked the run.
pub async fn fire(client: &impl GenericClient, key: &TryKey, effect: TriggerEffect) -> Result<()> {
    let query = format!(
        "UPDATE task_instance SET due_at = now(), updated_at = clock_timestamp(),
                state = CASE WHEN $1 THEN 'running' ELSE state END
         WHERE {} AND state IN ('deferred', 'awaiting_input')",
        TRY.is("task_instance", 2)
    );
    execute(client, &query, &key.after(&[&(effect == TriggerEffect::End)])).await
}

//! Changes the states of task instances when the agent claims them or puts them back into the queue.

use crate::model::keys::TryKey;
use crate::store::instance::claimed::Claimed;
use crate::store::instance_key::{INSTANCE, KEY, TRY, TRY_KEY};
use crate::store::rows::{FromRow, exists};
use crate::store::{Result, events};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::sync::LazyLock;
use tokio_postgres::Row;

/// Claims queued instances and begins or resumes their tries. `$1` is the limit, `$2` the boot id, `$3` the hashes of
/// the tokens, `$4` the channel of events, `$5` now.
///
/// All parts of the statement see the same snapshot, so `described` reads the state of a try before `begun` changes it.
/// A new try deletes the XComs of an earlier one, but a try that is resumed keeps its XComs.
static CLAIM: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
        WITH picked AS MATERIALIZED (
            SELECT {KEY}, start_date, end_date FROM task_instance q
            WHERE state = 'queued' AND NOT EXISTS (SELECT FROM task_try t WHERE t.state = 'running' AND {})
            ORDER BY priority_weight DESC, queued_at, task_id, map_index LIMIT $1 FOR UPDATE SKIP LOCKED),
        -- Started but not ended: the instance waited without a process.
        numbered AS (
            SELECT {KEY}, row_number() OVER () AS number,
                   CASE WHEN end_date IS NULL THEN start_date END AS waited_since FROM picked),
        taken AS (
            UPDATE task_instance ti SET state = 'running', start_date = $5, end_date = NULL
            FROM numbered p WHERE {}
            RETURNING {}, ti.max_tries, p.number, p.waited_since),
        described AS (
            SELECT {}, t.max_tries, t.number,
                   r.dag_version_id, r.run_type, r.logical_date, r.data_interval_start, r.data_interval_end,
                   r.run_after, r.queued_at AS run_queued_at, r.start_date AS run_start_date, r.conf, r.note, r.triggered_by, r.partition_key,
                   r.partition_date, coalesce(y.state IN ('up_for_reschedule', 'deferred', 'awaiting_input'), false) AS goes_on,
                   coalesce(y.state IN ('deferred', 'awaiting_input'), false) AS was_deferred,
                   coalesce(y.first_start_date, t.waited_since) AS first_start_date,
                   CASE y.state WHEN 'up_for_reschedule' THEN y.reschedules + 1
                                WHEN 'deferred' THEN y.reschedules
                                WHEN 'awaiting_input' THEN y.reschedules ELSE 0 END AS reschedules
            FROM taken t JOIN dag_run r USING (dag_id, run_id) LEFT JOIN task_try y USING ({TRY_KEY})),
        begun AS (
            INSERT INTO task_try ({TRY_KEY}, state, heartbeat_at, boot_id, token_hash, first_start_date, reschedules)
            SELECT {TRY_KEY}, 'running', $5, $2, ($3::bytea[])[number], first_start_date, reschedules FROM described
            ON CONFLICT ({TRY_KEY}) DO UPDATE
            SET state = 'running', heartbeat_at = $5, boot_id = EXCLUDED.boot_id, token_hash = EXCLUDED.token_hash,
                first_start_date = CASE WHEN task_try.state IN ('up_for_reschedule', 'deferred', 'awaiting_input')
                                        THEN coalesce(task_try.first_start_date, task_try.start_date) END,
                reschedules = EXCLUDED.reschedules,
                start_date = $5, end_date = NULL, outcome = NULL, may_retry = true, due_at = NULL,
                skipped_tasks = NULL, asset_events = NULL),
        forgotten AS (DELETE FROM xcom x USING described gone WHERE {} AND NOT gone.goes_on),
        resumed AS (
            UPDATE task_trigger w SET resumed_at = $5 FROM described d WHERE {} AND d.was_deferred
            RETURNING {}, w.next_method, w.next_kwargs),
        notified AS (
            SELECT count(pg_notify($4, json_build_object('kind', 'changed', 'dag_id', dag_id, 'run_id', run_id)::text))
            FROM (SELECT DISTINCT dag_id, run_id FROM taken) run)
        SELECT {TRY_KEY}, max_tries, number, dag_version_id, run_type, logical_date,
               data_interval_start, data_interval_end, run_after, run_queued_at, run_start_date, conf, note, triggered_by, partition_key,
               partition_date, goes_on,
               first_start_date, reschedules, next_method, next_kwargs, (SELECT count FROM notified) AS notified
        FROM described LEFT JOIN resumed USING ({KEY}) ORDER BY number",
        INSTANCE.same("t", "q"),
        INSTANCE.same("ti", "p"),
        TRY.of("ti"),
        TRY.of("t"),
        INSTANCE.same("x", "gone"),
        TRY.same("w", "d"),
        INSTANCE.of("w"),
    )
});

/// The parameters of a claim.
#[derive(Debug)]
pub struct Claim<'a> {
    /// Maximum number of instances.
    pub limit: usize,
    /// Identifies the boot of the machine.
    pub boot_id: &'a str,
    /// Hashes of the tries' tokens, at least `limit`; the claimed try with the number n gets the n-th.
    pub token_hashes: &'a [Vec<u8>],
}

/// `queued` to `running`, and the tries to `running` too: claims task instances, highest priority and oldest first. An
/// instance whose last try is still being stopped is not claimed. Expects no locks: instances that another transaction
/// has locked are skipped. Returns the claimed tries with their numbers, which count from 1.
pub async fn claim(client: &impl GenericClient, claim: &Claim<'_>, now: Timestamp) -> Result<Vec<(i64, Claimed)>> {
    let limit = i64::try_from(claim.limit).unwrap_or(i64::MAX);
    let rows = client.query(&CLAIM, &[&limit, &claim.boot_id, &claim.token_hashes, &events::ENGINE, &now]).await?;
    rows.iter().map(|row: &Row| Ok((row.get("number"), Claimed::from_row(row)?))).collect()
}

/// `running` to `queued`: puts a try that has not started back into the queue, behind others of its priority, so that a
/// try that cannot start does not block them. A try that was resumed keeps its row and gets the state
/// `up_for_reschedule` or `deferred`, so that `claim` resumes it again; any other is deleted. Expects no locks. Returns
/// false if the try is no longer running in the database.
pub async fn requeue(client: &impl GenericClient, key: &TryKey) -> Result<bool> {
    let is_try = TRY.is("t", 2);
    let query = format!(
        "
        WITH back AS (
            UPDATE task_instance ti SET state = 'queued', queued_at = clock_timestamp(), start_date = t.first_start_date
            FROM task_try t WHERE {is_try} AND {} AND ti.state = 'running' AND t.state = 'running'
            RETURNING t.dag_id, t.run_id, t.first_start_date, t.start_date),
        new AS (
            DELETE FROM task_try t WHERE {is_try} AND EXISTS (SELECT FROM back WHERE first_start_date IS NULL)),
        waited AS (
            UPDATE task_try t SET token_hash = NULL, start_date = t.first_start_date,
                state = CASE WHEN w.dag_id IS NULL THEN 'up_for_reschedule' ELSE 'deferred' END,
                reschedules = CASE WHEN w.dag_id IS NULL THEN greatest(t.reschedules - 1, 0) ELSE t.reschedules END
            FROM back LEFT JOIN task_trigger w
                 -- A trigger of an earlier deferral of this try stays in the table.
                 ON {} AND w.resumed_at = back.start_date
            WHERE {is_try} AND back.first_start_date IS NOT NULL)
        SELECT pg_notify($1, json_build_object('kind', 'changed', 'dag_id', dag_id, 'run_id', run_id)::text) FROM back",
        TRY.same("ti", "t"),
        TRY.is("w", 2)
    );
    exists(client, &query, &key.after(&[&events::ENGINE])).await
}

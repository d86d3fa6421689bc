//! The next scheduled run of each DAG, and the runs that are due.

use crate::model::dag::Structure;
use crate::schedule::timetable::{Info, Interval};
use crate::store::Result;
use crate::store::rows::{FromRow, execute, fetch_all, from_row, get};
use crate::store::run::new_run::{BELOW_MAX_ACTIVE_RUNS, NewRun};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

from_row! {
    /// A DAG whose next run must be computed again.
    #[derive(Debug)]
    pub struct StaleDag {
        pub dag_id: String,
        /// The state that the next run depends on; see `KEY`.
        pub key: String,
        pub structure: Structure as Json,
        pub version_id: i64 = "id",
        /// Data interval of the last run that counts for the schedule; see `LAST`.
        pub last: Option<Interval> => interval("data_interval_start", "data_interval_end"),
        /// Date of the run that could not be created because it already existed.
        pub existing_run_date: Option<Timestamp> => existing_run_date,
        /// When the row was read, by this process's clock.
        pub now: Timestamp,
    }
}

/// Delay in seconds until a schedule that failed or makes no progress is computed again.
pub const RETRY_SECONDS: f64 = 300.0;

/// SQL expression of the state that a next run depends on: the version, the pause state (an unpaused DAG catches up
/// from the moment of unpausing) and the last scheduled run.
const KEY: &str = "
    concat_ws('|', d.current_version_id::text, (d.is_paused OR d.is_draining)::text, l.run_id)";
/// Prefix of a `schedule_key` of the form `at TIME STATE`, with the time of the computation. A time in the future was
/// written by a clock that has been set back since, so the next run is computed again.
const COMPUTED_PREFIX: &str = "at ";
/// Prefix of `again TIME STATE`: a custom timetable failed, or the schedule makes no progress; the next run is computed
/// again at that time.
pub(crate) const RETRY_PREFIX: &str = "again ";
/// Prefix of `stuck DATE`: the run of that logical date (of that `run_after`, if it has none) could not be created,
/// because it already existed.
const EXISTING_PREFIX: &str = "stuck ";

/// SQL join of the last run that counts for the schedule, as `l`: a scheduled run, a run of a backfill, or one that
/// stands for a scheduled run. `$1` is now. The only date of a cron partition's run is `run_after`. A
/// run whose dates are in the future was created by a clock that has been set back since. Such a run is ignored, so
/// that the runs before it are created; at its own date, it already exists. For `@once` it counts, because there is no
/// second run.
const LAST: &str = "
    LEFT JOIN LATERAL (
        (SELECT run_id, coalesce(data_interval_start, logical_date) AS data_interval_start,
                coalesce(data_interval_end, logical_date) AS data_interval_end
         FROM dag_run
         WHERE dag_id = d.dag_id AND logical_date IS NOT NULL
           AND (run_type IN ('scheduled', 'backfill') OR stands_for_scheduled)
           AND (least(logical_date, data_interval_end, run_after) <= $1
                OR 'once' IN (v.structure->'timetable'->>'kind', v.structure->'timetable'->'timetable'->>'kind'))
         ORDER BY logical_date DESC LIMIT 1)
        UNION ALL
        (SELECT run_id, run_after, run_after FROM dag_run
         WHERE dag_id = d.dag_id AND v.structure->'timetable'->>'kind' = 'cron_partition'
           AND run_type IN ('scheduled', 'backfill') AND partition_key IS NOT NULL AND run_after <= $1
         ORDER BY run_after DESC LIMIT 1)
        ORDER BY data_interval_end DESC LIMIT 1) l ON true";

/// Reads the DAGs whose next run must be computed again.
pub async fn stale_dags(client: &impl GenericClient, now: Timestamp) -> Result<Vec<StaleDag>> {
    let query = format!(
        "SELECT d.dag_id, {KEY} AS key, v.structure, v.id, l.data_interval_start, l.data_interval_end, d.schedule_key,
                $1::timestamptz AS now
         FROM dag d JOIN dag_version v ON v.id = d.current_version_id {LAST}
         WHERE d.is_active
           AND (coalesce(v.structure->'timetable'->>'kind', 'null') NOT IN ('null', 'asset') OR d.next_run_after IS NOT NULL)
           AND CASE split_part(d.schedule_key, ' ', 1)
                    WHEN 'again' THEN split_part(d.schedule_key, ' ', 2)::timestamptz <= $1
                         OR split_part(d.schedule_key, ' ', 2)::timestamptz > $1 + $2::float8 * interval '1 second'
                         OR d.schedule_key <> concat_ws(' ', 'again', split_part(d.schedule_key, ' ', 2), {KEY})
                    WHEN 'at' THEN split_part(d.schedule_key, ' ', 2)::timestamptz > $1
                         OR d.schedule_key <> concat_ws(' ', 'at', split_part(d.schedule_key, ' ', 2), {KEY})
                    ELSE true END"
    );
    fetch_all(client, &query, &[&now, &RETRY_SECONDS]).await
}

/// A key with another prefix means that no existing run prevented a new one.
fn existing_run_date(row: &Row) -> Result<Option<Timestamp>> {
    let key: Option<&str> = get(row, "schedule_key")?;
    Ok(key.and_then(|key| key.strip_prefix(EXISTING_PREFIX)?.parse().ok()))
}

fn interval(start: &'static str, end: &'static str) -> impl Fn(&Row) -> Result<Option<Interval>> {
    move |row| {
        let (start, end): (Option<Timestamp>, Option<Timestamp>) = (get(row, start)?, get(row, end)?);
        Ok(start.zip(end).map(|(start, end)| Interval { start, end }))
    }
}

/// Writes the next run, or none, with a `schedule_key` from which `stale_dags` decides when to compute it again.
pub async fn write_next_run(
    client: &impl GenericClient,
    stale: &StaleDag,
    info: Option<&Info>,
    retry_at: Option<Timestamp>,
) -> Result<()> {
    let key = match retry_at {
        None => format!("{COMPUTED_PREFIX}{} {}", stale.now, stale.key),
        Some(retry_at) => format!("{RETRY_PREFIX}{retry_at} {}", stale.key),
    };
    let query = "
        UPDATE dag SET schedule_key = $2, next_logical_date = $3, next_interval_start = $4, next_interval_end = $5,
               next_run_after = $6, next_run_id = $7 WHERE dag_id = $1";
    let interval = info.and_then(|info| info.interval);
    let (start, end) = interval.map(|interval| (interval.start, interval.end)).unzip();
    let run_after = info.map(|info| info.run_after);
    let run_id = info.and_then(|info| info.run_id.as_deref());
    execute(client, query, &[&stale.dag_id, &key, &start, &start, &end, &run_after, &run_id]).await
}

/// Maximum number of runs created in one transaction.
pub const BATCH_SIZE: usize = 100;

from_row! {
    /// A scheduled run that is due.
    #[derive(Debug)]
    pub struct DueRun {
        pub dag_id: String,
        pub logical_date: Option<Timestamp> = "next_logical_date",
        pub interval: Option<Interval> => interval("next_interval_start", "next_interval_end"),
        pub run_after: Timestamp = "next_run_after",
        /// The id that a custom timetable has chosen.
        pub run_id: Option<String> = "next_run_id",
        pub version_id: i64 = "id",
        pub structure: Structure as Json,
    }
}

/// Returns the due runs of at most `BATCH_SIZE` DAGs that are below their `max_active_runs`, and locks these DAGs; DAGs
/// that another transaction has locked are skipped, and so are those in `waiting`. A next run that was computed for
/// another version or pause state is left out. Each structure is deserialized only when the iterator reaches it.
pub async fn lock_due(
    transaction: &Transaction<'_>,
    now: Timestamp,
    waiting: &[String],
) -> Result<impl ExactSizeIterator<Item = Result<DueRun>> + use<>> {
    let query = format!(
        "
        SELECT d.dag_id, d.next_logical_date, d.next_interval_start, d.next_interval_end, d.next_run_after,
               d.next_run_id, v.id, v.structure
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id {LAST}
        WHERE d.is_active AND NOT d.is_paused AND NOT d.is_draining AND d.next_run_after <= $1
          AND d.schedule_key = concat_ws(' ', 'at', split_part(d.schedule_key, ' ', 2), {KEY})
          AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
          AND d.dag_id <> ALL ($2) AND {BELOW_MAX_ACTIVE_RUNS}
        ORDER BY d.next_run_after LIMIT {BATCH_SIZE} FOR UPDATE OF d SKIP LOCKED"
    );
    Ok(transaction.query(&query, &[&now, &waiting]).await?.into_iter().map(|row| DueRun::from_row(&row)))
}

/// Records that a due run already exists, so that the schedule continues after it. The caller must have locked the DAG.
pub async fn skip_existing(transaction: &Transaction<'_>, run: &NewRun<'_>) -> Result<()> {
    let dag_id = &run.key.dag_id;
    let mark_existing =
        "UPDATE dag_run SET stands_for_scheduled = true WHERE dag_id = $1 AND (logical_date = $2 OR run_id = $3)";
    transaction.execute(mark_existing, &[dag_id, &run.logical_date, &run.key.run_id]).await?;
    let existing = run.logical_date.unwrap_or(run.run_after);
    let store_existing = "UPDATE dag SET schedule_key = $2, next_run_after = NULL WHERE dag_id = $1";
    execute(transaction, store_existing, &[dag_id, &format!("{EXISTING_PREFIX}{existing}")]).await
}

/// Clears the next runs of DAGs, so that they are computed again. The caller must have locked the DAGs.
pub async fn clear(transaction: &Transaction<'_>, dag_ids: &[String]) -> Result<()> {
    let clear_key = "UPDATE dag SET schedule_key = NULL, next_run_after = NULL WHERE dag_id = ANY ($1)";
    execute(transaction, clear_key, &[&dag_ids]).await
}

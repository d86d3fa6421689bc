//! Computes the next scheduled run of each DAG, and creates the runs that are due.

use crate::model::dag::Structure;
use crate::model::keys::RunKey;
use crate::schedule::timetable::{Info, Interval, Partition, Restriction, TimetableProblem};
use crate::store::StoreError;
use crate::store::run::new_run::{self, BELOW_MAX_ACTIVE_RUNS, NewRun, isoformat};
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Map;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::task::{Id, JoinSet};
use tokio_postgres::types::Json;
use tracing::{info, warn};

/// Evaluates custom timetables. This runs the DAG file's code and may take long.
pub trait TimetableEvaluator: Clone + 'static {
    /// Returns the next run; the error is a text for users.
    fn next(&self, timetable_query: TimetableQuery) -> impl Future<Output = Result<Option<Info>, String>>;
}

/// The arguments of a custom timetable.
#[derive(Debug, Clone)]
pub struct TimetableQuery {
    pub dag_id: String,
    pub version_id: i64,
    pub last: Option<Interval>,
    pub restriction: Restriction,
}

/// A DAG whose next run must be computed again.
struct Stale {
    dag_id: String,
    /// The state that the next run depends on; see `KEY`.
    key: String,
    structure: Structure,
    version_id: i64,
    /// Data interval of the last scheduled run.
    last: Option<Interval>,
    /// Date of the run that could not be created because it already existed.
    existing_run_date: Option<Timestamp>,
    /// When the row was read, by this process's clock.
    now: Timestamp,
}

/// Delay in seconds until a custom timetable that failed is asked again.
const RETRY_SECONDS: f64 = 300.0;

/// Queries to custom timetables, and the answers that have not been used. The scheduler does not wait for answers, so a
/// timetable that never answers blocks only its own DAG.
#[derive(Default)]
pub struct PendingQueries {
    queries: JoinSet<Answer>,
    dags: HashMap<String, Id>,
    answers: Vec<Answer>,
}

type Answer = (Stale, Result<Option<Info>, String>);

impl PendingQueries {
    /// Starts a query, unless one is pending for the DAG.
    fn ask(&mut self, evaluator: &impl TimetableEvaluator, stale: Stale) {
        if self.dags.contains_key(&stale.dag_id) {
            return;
        }
        let timetable_query = TimetableQuery {
            dag_id: stale.dag_id.clone(),
            version_id: stale.version_id,
            last: stale.last,
            restriction: stale.structure.restriction(),
        };
        let (dag_id, evaluator) = (stale.dag_id.clone(), evaluator.clone());
        let query = self.queries.spawn_local(async move {
            let answer = evaluator.next(timetable_query).await;
            (stale, answer)
        });
        self.dags.insert(dag_id, query.id());
    }

    /// Waits until an answer has arrived, forever if no query is pending.
    pub async fn next_answer(&mut self) {
        match self.queries.join_next_with_id().await {
            None => std::future::pending().await,
            Some(finished) => {
                let id = finished.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
                self.dags.retain(|_, query| *query != id);
                self.answers.extend(finished.ok().map(|(_, answer)| answer));
            }
        }
    }
}

/// Computes the next run of each DAG whose version, pause state or last run has changed since it was last computed.
pub async fn update_next_runs(
    client: &mut ClientWrapper,
    evaluator: &impl TimetableEvaluator,
    pending_queries: &mut PendingQueries,
) -> Result<(), StoreError> {
    let mut answers = std::mem::take(&mut pending_queries.answers);
    for stale in stale_dags(client).await? {
        let next = match &stale.structure.timetable {
            None => Ok(None),
            Some(timetable) => timetable.next(stale.last, stale.structure.restriction(), stale.now),
        };
        match next {
            Err(TimetableProblem::Custom) => {
                // An answer to a query about an older version or state is dropped, and the timetable is asked again.
                let is_about = |answer: &mut Answer| answer.0.dag_id == stale.dag_id && answer.0.key == stale.key;
                let Some((_, answer)) = answers.extract_if(.., is_about).next() else {
                    pending_queries.ask(evaluator, stale);
                    continue;
                };
                // A timetable that failed is asked again after a delay, or when something has changed.
                let retry_time = || crate::planner::retry::add_seconds(stale.now, RETRY_SECONDS);
                let retry_at = answer.is_err().then(retry_time);
                store_next_run(client, &stale, answer, retry_at).await?;
            }
            next => store_next_run(client, &stale, next.map_err(|error| error.to_string()), None).await?,
        }
    }
    Ok(())
}

/// Stores the next run of a DAG, unless the timetable returned the run that already exists.
async fn store_next_run(
    client: &impl GenericClient,
    stale: &Stale,
    next: Result<Option<Info>, String>,
    retry_at: Option<Timestamp>,
) -> Result<(), StoreError> {
    let info = next.unwrap_or_else(|error| {
        warn!("cannot compute the next run of {}: {error}", stale.dag_id);
        None
    });
    // The timetable has again returned the run that already exists, and would do so forever.
    let duplicate = info.as_ref().filter(|info| stale.existing_run_date == Some(info.run_after));
    if let Some(info) = duplicate {
        warn!(
            "the timetable of {} returned {} a second time; no more runs are scheduled",
            stale.dag_id,
            isoformat(info.run_after)
        );
    }
    write_next_run(client, stale, info.as_ref().filter(|_| duplicate.is_none()), retry_at).await
}

/// SQL expression of the state that a next run depends on: the version, the pause state (an unpaused DAG catches up
/// from the moment of unpausing) and the last scheduled run.
const KEY: &str = "
    concat_ws('|', d.current_version_id::text, d.is_paused::text, l.run_id)";
/// Prefix of a `schedule_key` of the form `at TIME STATE`, with the time of the computation. A time in the future was
/// written by a clock that has been set back since, so the next run is computed again.
const COMPUTED_PREFIX: &str = "at ";
/// Prefix of `again TIME STATE`: a custom timetable failed and is asked again at that time.
const RETRY_PREFIX: &str = "again ";
/// Prefix of `stuck DATE`: the run of that date could not be created, because it already existed.
const EXISTING_PREFIX: &str = "stuck ";

/// SQL join of the last scheduled run, as `l`; `$1` is now. A run of a cron partition has no date but `run_after`. A
/// run whose dates are in the future was created by a clock that has been set back since. It is ignored, so that the
/// runs before it are created; when its time comes, it already exists. It counts for `@once`, which never has a second
/// run.
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
           AND run_type = 'scheduled' AND partition_key IS NOT NULL AND run_after <= $1
         ORDER BY run_after DESC LIMIT 1)
        ORDER BY data_interval_end DESC LIMIT 1) l ON true";

/// Reads the DAGs whose next run must be computed again.
async fn stale_dags(client: &impl GenericClient) -> Result<Vec<Stale>, StoreError> {
    let query = format!(
        "SELECT d.dag_id, {KEY} AS key, v.structure, v.id, l.data_interval_start, l.data_interval_end, d.schedule_key
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
    let now = new_run::now();
    let rows = client.query(&query, &[&now, &RETRY_SECONDS]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let Json(structure) = row.get(2);
            let interval_bounds: (Option<Timestamp>, Option<Timestamp>) = (row.get(4), row.get(5));
            Stale {
                dag_id: row.get(0),
                key: row.get(1),
                structure,
                version_id: row.get(3),
                last: interval_bounds.0.zip(interval_bounds.1).map(|(start, end)| Interval { start, end }),
                existing_run_date: row
                    .get::<_, Option<&str>>(6)
                    .and_then(|key| key.strip_prefix(EXISTING_PREFIX))
                    .and_then(|date| date.parse().ok()),
                now,
            }
        })
        .collect())
}

/// Writes the next run, or none, with a `schedule_key` that tells when to compute it again.
async fn write_next_run(
    client: &impl GenericClient,
    stale: &Stale,
    info: Option<&Info>,
    retry_at: Option<Timestamp>,
) -> Result<(), StoreError> {
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
    client.execute(query, &[&stale.dag_id, &key, &start, &start, &end, &run_after, &run_id]).await?;
    Ok(())
}

/// Maximum number of characters of a partition key in a run id.
const MAX_KEY_CHARS: usize = 100;

/// The id of a scheduled run. It ends with the sanitized partition key, where Airflow uses random letters.
fn run_id(run_after: Timestamp, partition: Option<&Partition>) -> String {
    let date = isoformat(run_after);
    match partition {
        None => format!("scheduled__{date}"),
        Some(partition) => {
            let sanitize = |c: char| if c.is_ascii_alphanumeric() || "_.~:+-".contains(c) { c } else { '_' };
            let key: String = partition.key.chars().map(sanitize).take(MAX_KEY_CHARS).collect();
            format!("scheduled__{date}__{key}")
        }
    }
}

/// Creates one run of each DAG that is due and below its `max_active_runs`, within a time limit. Returns the number of
/// DAGs handled.
pub async fn make_due_runs(client: &mut ClientWrapper) -> Result<usize, StoreError> {
    let start = Instant::now();
    let mut handled = 0;
    loop {
        let batch = make_batch(client).await?;
        handled += batch;
        if batch < BATCH_SIZE || start.elapsed() > TIME_LIMIT {
            return Ok(handled);
        }
    }
}

/// Maximum number of runs created in one transaction.
const BATCH_SIZE: usize = 100;
/// Maximum duration of creating runs, after which new runs can start and other runs advance.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Creates a batch of runs and returns the number of DAGs handled. A next run that was computed for another version or
/// pause state is ignored.
async fn make_batch(client: &mut ClientWrapper) -> Result<usize, StoreError> {
    let query = format!(
        "
        SELECT d.dag_id, d.next_logical_date, d.next_interval_start, d.next_interval_end, d.next_run_after,
               d.next_run_id, v.id, v.structure
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id {LAST}
        WHERE d.is_active AND NOT d.is_paused AND d.next_run_after <= $1
          AND d.schedule_key = concat_ws(' ', 'at', split_part(d.schedule_key, ' ', 2), {KEY})
          AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
          AND {BELOW_MAX_ACTIVE_RUNS}
        ORDER BY d.next_run_after LIMIT {BATCH_SIZE} FOR UPDATE OF d SKIP LOCKED"
    );
    let transaction = client.transaction().await?;
    let rows = transaction.query(&query, &[&new_run::now()]).await?;
    let mut created_dags: Vec<String> = Vec::new();
    for row in &rows {
        let Json(structure): Json<Structure> = row.get(7);
        let dag_id: String = row.get(0);
        let run_after: Timestamp = row.get(4);
        let interval_bounds: (Option<Timestamp>, Option<Timestamp>) = (row.get(2), row.get(3));
        let partition = structure.timetable.as_ref().and_then(|timetable| timetable.partition_at(run_after));
        let run_id = row.get::<_, Option<String>>(5).unwrap_or_else(|| run_id(run_after, partition.as_ref()));
        let run = NewRun {
            key: RunKey { dag_id: dag_id.clone(), run_id },
            run_type: "scheduled",
            logical_date: row.get(1),
            interval: interval_bounds.0.zip(interval_bounds.1).map(|(start, end)| Interval { start, end }),
            partition: partition.as_ref(),
            run_after,
            conf: &Map::new(),
            note: None,
            triggered_by: "timetable",
            user: None,
            version_id: row.get(6),
            backfill: None,
        };
        if new_run::insert(&transaction, &run, &structure).await? {
            created_dags.push(dag_id);
            continue;
        }
        let date = isoformat(run_after);
        info!("{dag_id} already has a run of {date}; its schedule continues after it");
        let mark_existing =
            "UPDATE dag_run SET stands_for_scheduled = true WHERE dag_id = $1 AND (logical_date = $2 OR run_id = $3)";
        transaction.execute(mark_existing, &[&dag_id, &run.logical_date, &run.key.run_id]).await?;
        let store_existing = "UPDATE dag SET schedule_key = $2, next_run_after = NULL WHERE dag_id = $1";
        transaction.execute(store_existing, &[&dag_id, &format!("{EXISTING_PREFIX}{run_after}")]).await?;
    }
    // Their next runs must be computed.
    let clear_key = "UPDATE dag SET schedule_key = NULL, next_run_after = NULL WHERE dag_id = ANY ($1)";
    transaction.execute(clear_key, &[&created_dags]).await?;
    transaction.commit().await?;
    Ok(rows.len())
}

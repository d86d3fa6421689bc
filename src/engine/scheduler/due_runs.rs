//! Scheduled runs: which DAG is due, and when it will be next.

use crate::engine::dag::Structure;
use crate::engine::keys::RunKey;
use crate::engine::schedule::timetable::{Info, Interval, Partition, Restriction, TimetableProblem};
use crate::engine::store::StoreError;
use crate::engine::store::new_run::{self, MAY_HAVE_ONE_MORE, NewRun, isoformat};
use crate::postgres::GenericClient;
use deadpool_postgres::ClientWrapper;
use jiff::Timestamp;
use serde_json::Map;
use std::collections::HashMap;
use std::time::{Duration, Instant};
use tokio::task::{Id, JoinSet};
use tokio_postgres::types::Json;
use tracing::{info, warn};

/// Whoever can ask a timetable of the user's own: it runs the DAG file's code, which may take its time.
pub trait Oracle: Clone + 'static {
    /// The next run; the error is for people.
    fn next(&self, question: Question) -> impl Future<Output = Result<Option<Info>, String>>;
}

/// What is asked of it.
#[derive(Debug, Clone)]
pub struct Question {
    pub dag_id: String,
    pub version_id: i64,
    pub last: Option<Interval>,
    pub restriction: Restriction,
}

/// A DAG whose next run is to be worked out anew.
struct Stale {
    dag_id: String,
    key: String,
    structure: Structure,
    version_id: i64,
    last: Option<Interval>,
    /// The run that could not be made because there was one.
    stuck_at: Option<Timestamp>,
    /// When this was read, by the process's clock.
    now: Timestamp,
}

/// Until a timetable of the user's own that did not answer is asked again.
const ASK_AGAIN_SECONDS: f64 = 300.0;

/// The questions that are on their way. Nothing waits for their answers: one timetable that never answers
/// holds up its own DAG only.
#[derive(Default)]
pub struct Asking {
    questions: JoinSet<Answer>,
    dags: HashMap<String, Id>,
    answers: Vec<Answer>,
}

type Answer = (Stale, Result<Option<Info>, String>);

impl Asking {
    fn ask(&mut self, oracle: &impl Oracle, stale: Stale) {
        if self.dags.contains_key(&stale.dag_id) {
            return;
        }
        let question = Question {
            dag_id: stale.dag_id.clone(),
            version_id: stale.version_id,
            last: stale.last,
            restriction: stale.structure.restriction(),
        };
        let (dag_id, oracle) = (stale.dag_id.clone(), oracle.clone());
        let asked = self.questions.spawn_local(async move {
            let answer = oracle.next(question).await;
            (stale, answer)
        });
        self.dags.insert(dag_id, asked.id());
    }

    /// Completes when there is another answer; never while nothing is asked.
    pub async fn answered(&mut self) {
        match self.questions.join_next_with_id().await {
            None => std::future::pending().await,
            Some(done) => {
                let id = done.as_ref().map_or_else(|error| error.id(), |(id, _)| *id);
                self.dags.retain(|_, asked| *asked != id);
                self.answers.extend(done.ok().map(|(_, answer)| answer));
            }
        }
    }
}

/// Works out the next run of each DAG whose version, pause or last run is another than when that was done.
pub async fn look_ahead(
    client: &mut ClientWrapper,
    oracle: &impl Oracle,
    asking: &mut Asking,
) -> Result<(), StoreError> {
    let mut answers = std::mem::take(&mut asking.answers);
    for stale in stale(client).await? {
        let found = match &stale.structure.timetable {
            None => Ok(None),
            Some(timetable) => timetable.next(stale.last, stale.structure.restriction(), stale.now),
        };
        match found {
            Err(TimetableProblem::Custom) => {
                // What was asked before something changed is asked again.
                let is_about = |answer: &mut Answer| answer.0.dag_id == stale.dag_id && answer.0.key == stale.key;
                let Some((_, answer)) = answers.extract_if(.., is_about).next() else {
                    asking.ask(oracle, stale);
                    continue;
                };
                // One that did not answer is asked again when its time comes, or when something has changed.
                let later = || crate::engine::planner::retry::later(stale.now, ASK_AGAIN_SECONDS);
                let ask_again = answer.is_err().then(later);
                keep(client, &stale, answer, ask_again).await?;
            }
            found => keep(client, &stale, found.map_err(|error| error.to_string()), None).await?,
        }
    }
    Ok(())
}

async fn keep(
    client: &impl GenericClient,
    stale: &Stale,
    found: Result<Option<Info>, String>,
    ask_again: Option<Timestamp>,
) -> Result<(), StoreError> {
    let info = found.unwrap_or_else(|error| {
        warn!("when {} is due next cannot be worked out: {error}", stale.dag_id);
        None
    });
    // The run that was there already, once more: from here on nothing would ever be another.
    let again = info.as_ref().filter(|info| stale.stuck_at == Some(info.run_after));
    if let Some(info) = again {
        warn!("{} would have a second run of {}; its schedule has ended", stale.dag_id, isoformat(info.run_after));
    }
    note(client, stale, info.as_ref().filter(|_| again.is_none()), ask_again).await
}

/// What a next run was worked out from: the version, whether the DAG is paused (one that is not catches up from
/// the moment in which it is unpaused), and the last run that was made by itself.
const KEY: &str = "
    concat_ws('|', d.current_version_id::text, d.is_paused::text, l.run_id)";
/// Before the time at which the next run was worked out and the key itself. A time that lies ahead was written by a clock
/// that has been set back since: the next run is worked out anew.
const WORKED_OUT_AT: &str = "at ";
/// Before the time after it and the key itself, of one that is to be asked again.
const ASK_AGAIN: &str = "again ";
/// Before the time of a run that could not be made.
const STUCK: &str = "stuck ";

/// A run of a partition that is counted up has no other date than when it was due. `$1` is now: a run whose dates lie
/// ahead was made by a clock that has been set back since, and does not hold up those before it: when its time comes it is
/// there already. `@once` has no second one in either case.
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

async fn stale(client: &impl GenericClient) -> Result<Vec<Stale>, StoreError> {
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
    let rows = client.query(&query, &[&now, &ASK_AGAIN_SECONDS]).await?;
    Ok(rows
        .iter()
        .map(|row| {
            let Json(structure) = row.get(2);
            let ends: (Option<Timestamp>, Option<Timestamp>) = (row.get(4), row.get(5));
            Stale {
                dag_id: row.get(0),
                key: row.get(1),
                structure,
                version_id: row.get(3),
                last: ends.0.zip(ends.1).map(|(start, end)| Interval { start, end }),
                stuck_at: row
                    .get::<_, Option<&str>>(6)
                    .and_then(|key| key.strip_prefix(STUCK))
                    .and_then(|at| at.parse().ok()),
                now,
            }
        })
        .collect())
}

async fn note(
    client: &impl GenericClient,
    stale: &Stale,
    info: Option<&Info>,
    ask_again: Option<Timestamp>,
) -> Result<(), StoreError> {
    let key = match ask_again {
        None => format!("{WORKED_OUT_AT}{} {}", stale.now, stale.key),
        Some(at) => format!("{ASK_AGAIN}{at} {}", stale.key),
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

/// So much of a partition's key is in the id of its run.
const KEY_IN_ID: usize = 100;

/// Of a partition with its key, as far as an id may hold it. Airflow has letters at random after it.
fn run_id(run_after: Timestamp, partition: Option<&Partition>) -> String {
    let at = isoformat(run_after);
    match partition {
        None => format!("scheduled__{at}"),
        Some(partition) => {
            let plain = |c: char| if c.is_ascii_alphanumeric() || "_.~:+-".contains(c) { c } else { '_' };
            let key: String = partition.key.chars().map(plain).take(KEY_IN_ID).collect();
            format!("scheduled__{at}__{key}")
        }
    }
}

/// Makes one run of each DAG that is due and has not as many as it may have, as far as there is time. Returns how many.
pub async fn make_due_runs(client: &mut ClientWrapper) -> Result<usize, StoreError> {
    let begun = Instant::now();
    let mut made = 0;
    loop {
        let some = make_some(client).await?;
        made += some;
        if some < AT_ONCE || begun.elapsed() > MAKING {
            return Ok(made);
        }
    }
}

/// Runs that are made in one transaction.
const AT_ONCE: usize = 100;
/// Until those that were made begin, and others go on.
const MAKING: Duration = Duration::from_secs(1);

/// What was worked out for another version, or before it was unpaused, is nothing to go by.
async fn make_some(client: &mut ClientWrapper) -> Result<usize, StoreError> {
    let query = format!(
        "
        SELECT d.dag_id, d.next_logical_date, d.next_interval_start, d.next_interval_end, d.next_run_after,
               d.next_run_id, v.id, v.structure
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id {LAST}
        WHERE d.is_active AND NOT d.is_paused AND d.next_run_after <= $1
          AND d.schedule_key = concat_ws(' ', 'at', split_part(d.schedule_key, ' ', 2), {KEY})
          AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
          AND {MAY_HAVE_ONE_MORE}
        ORDER BY d.next_run_after LIMIT {AT_ONCE} FOR UPDATE OF d SKIP LOCKED"
    );
    let transaction = client.transaction().await?;
    let rows = transaction.query(&query, &[&new_run::now()]).await?;
    let mut made: Vec<String> = Vec::new();
    for row in &rows {
        let Json(structure): Json<Structure> = row.get(7);
        let dag_id: String = row.get(0);
        let run_after: Timestamp = row.get(4);
        let ends: (Option<Timestamp>, Option<Timestamp>) = (row.get(2), row.get(3));
        let partition = structure.timetable.as_ref().and_then(|timetable| timetable.partition_at(run_after));
        let run_id = row.get::<_, Option<String>>(5).unwrap_or_else(|| run_id(run_after, partition.as_ref()));
        let run = NewRun {
            key: RunKey { dag_id: dag_id.clone(), run_id },
            run_type: "scheduled",
            logical_date: row.get(1),
            interval: ends.0.zip(ends.1).map(|(start, end)| Interval { start, end }),
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
            made.push(dag_id);
            continue;
        }
        let at = isoformat(run_after);
        info!("{dag_id} has a run of {at} already; its schedule goes on from there");
        let stands =
            "UPDATE dag_run SET stands_for_scheduled = true WHERE dag_id = $1 AND (logical_date = $2 OR run_id = $3)";
        transaction.execute(stands, &[&dag_id, &run.logical_date, &run.key.run_id]).await?;
        let stuck = "UPDATE dag SET schedule_key = $2, next_run_after = NULL WHERE dag_id = $1";
        transaction.execute(stuck, &[&dag_id, &format!("{STUCK}{run_after}")]).await?;
    }
    // What comes after them is worked out anew.
    let clear = "UPDATE dag SET schedule_key = NULL, next_run_after = NULL WHERE dag_id = ANY ($1)";
    transaction.execute(clear, &[&made]).await?;
    transaction.commit().await?;
    Ok(rows.len())
}

//! Computes the next scheduled run of each DAG, and creates the runs that are due.

use crate::model::keys::RunKey;
use crate::model::state::RunType;
use crate::planner::retry;
use crate::schedule::timetable::{Info, Interval, Restriction, Timetable, TimetableProblem};
use crate::store::Result;
use crate::store::asset::assets;
use crate::store::dag::next_runs::{self, DueRun, StaleDag};
use crate::store::run::new_run::{self, NewRun, isoformat};
use deadpool_postgres::{ClientWrapper, Transaction};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Map;
use std::collections::HashMap;
use std::error::Error;
use std::time::{Duration, Instant};
use tokio::task::{Id, JoinSet};
use tracing::{info, warn};

/// Evaluates custom timetables. This runs the DAG file's code and may take long.
pub trait TimetableEvaluator: Clone + 'static {
    /// Returns the next run.
    fn next(&self, timetable_query: TimetableQuery) -> impl Future<Output = Result<Option<Info>, Box<dyn Error>>>;
}

/// The arguments of a custom timetable's `next_dagrun_info`.
#[derive(Debug, Clone)]
pub struct TimetableQuery {
    pub dag_id: String,
    pub version_id: i64,
    pub last: Option<Interval>,
    pub restriction: Restriction,
}

/// Running evaluations of custom timetables, and results that are not yet stored. The scheduler does not wait for an
/// evaluation, so a timetable that hangs blocks only its own DAG.
#[derive(Default)]
pub(crate) struct PendingQueries {
    queries: JoinSet<Answer>,
    dags: HashMap<String, Id>,
    answers: Vec<Answer>,
}

type Answer = (StaleDag, Result<Option<Info>, Box<dyn Error>>);

impl PendingQueries {
    /// Starts a query, unless one is pending for the DAG.
    fn ask(&mut self, evaluator: &impl TimetableEvaluator, stale: StaleDag) {
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
    pub(crate) async fn next_answer(&mut self) {
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
pub(crate) async fn update_next_runs(
    client: &mut ClientWrapper,
    evaluator: &impl TimetableEvaluator,
    pending_queries: &mut PendingQueries,
) -> Result<()> {
    let mut answers = std::mem::take(&mut pending_queries.answers);
    for stale in next_runs::stale_dags(client, new_run::now()).await? {
        let next = match &stale.structure.timetable {
            None => Ok(None),
            Some(timetable) => timetable.next(stale.last, stale.structure.restriction(), stale.now),
        };
        match next {
            Err(TimetableProblem::Custom) => {
                // Ignores an answer about an older version or state of the DAG, and evaluates the timetable again.
                let is_about = |answer: &mut Answer| answer.0.dag_id == stale.dag_id && answer.0.key == stale.key;
                let Some((_, answer)) = answers.extract_if(.., is_about).next() else {
                    pending_queries.ask(evaluator, stale);
                    continue;
                };
                let retry_at = answer.is_err().then(|| retry_time(&stale));
                store_next_run(client, &stale, answer, retry_at).await?;
            }
            next => store_next_run(client, &stale, next.map_err(Into::into), None).await?,
        }
    }
    Ok(())
}

/// Stores the next run of a DAG. After a run that existed already, a timetable must return a later one: otherwise it
/// would be evaluated again and again, so it waits.
async fn store_next_run(
    client: &impl GenericClient,
    stale: &StaleDag,
    next: Result<Option<Info>, Box<dyn Error>>,
    retry_at: Option<Timestamp>,
) -> Result<()> {
    let info = next.unwrap_or_else(|error| {
        warn!("cannot compute the next run of {}: {error}", stale.dag_id);
        None
    });
    let stalled = info.as_ref().zip(stale.existing_run_date).filter(|(info, existing)| info.key_date() <= *existing);
    if let Some((info, existing)) = stalled {
        let (next, existing) = (isoformat(info.key_date()), isoformat(existing));
        warn!(
            "the schedule of {} is stalled: after the existing run of {existing}, its timetable returns {next}",
            stale.dag_id
        );
        return next_runs::write_next_run(client, stale, None, Some(retry_time(stale))).await;
    }
    next_runs::write_next_run(client, stale, info.as_ref(), retry_at).await
}

/// When a schedule that failed or makes no progress is computed again, unless its DAG changes before.
fn retry_time(stale: &StaleDag) -> Timestamp {
    retry::add_seconds(stale.now, next_runs::RETRY_SECONDS)
}

/// Creates one run of each DAG that is due and below its `max_active_runs`, until `TIME_LIMIT`. Returns the number of
/// DAGs handled, including those whose run exists already, but not those that wait for their assets.
pub(crate) async fn make_due_runs(client: &mut ClientWrapper) -> Result<usize> {
    let start = Instant::now();
    let mut handled = 0;
    let mut waiting = Vec::new();
    loop {
        let waiting_before = waiting.len();
        let batch = make_batch(client, &mut waiting).await?;
        handled += batch - (waiting.len() - waiting_before);
        if batch < next_runs::BATCH_SIZE || start.elapsed() > TIME_LIMIT {
            return Ok(handled);
        }
    }
}

/// Time after which the creation of runs is interrupted, so that new runs can start and other runs advance.
const TIME_LIMIT: Duration = Duration::from_secs(1);

/// Creates a batch of runs and returns the number of DAGs read. Adds those that wait for their assets to `waiting`.
async fn make_batch(client: &mut ClientWrapper, waiting: &mut Vec<String>) -> Result<usize> {
    let transaction = client.transaction().await?;
    let due_runs = next_runs::lock_due(&transaction, new_run::now(), waiting).await?;
    let handled = due_runs.len();
    let mut created_dags: Vec<String> = Vec::new();
    for due in due_runs {
        let due = due?;
        let mut newest = None;
        if let Some(Timetable::AssetAndTime { .. }) = due.structure.timetable {
            newest = assets::newest_update(&transaction, &due.structure).await?;
            if newest.is_none() {
                waiting.push(due.dag_id);
                continue;
            }
        }
        let Some(run) = make_run(&transaction, &due).await? else { continue };
        if let Some(newest) = newest {
            assets::read_events(&transaction, &due.structure, &run, newest).await?;
        }
        created_dags.push(due.dag_id);
    }
    // Makes `update_next_runs` compute the next run of each of these DAGs.
    next_runs::clear(&transaction, &created_dags).await?;
    transaction.commit().await?;
    Ok(handled)
}

/// Creates a run that is due. Returns its key; `None` if it already exists.
async fn make_run(transaction: &Transaction<'_>, due: &DueRun) -> Result<Option<RunKey>> {
    let timetable = due.structure.timetable.as_ref();
    let partition = timetable.and_then(|timetable| timetable.partition_at(due.run_after));
    let run_id =
        due.run_id.clone().unwrap_or_else(|| new_run::id(RunType::Scheduled, due.run_after, partition.as_ref()));
    let run = NewRun {
        key: RunKey { dag_id: due.dag_id.clone(), run_id },
        run_type: RunType::Scheduled,
        logical_date: due.logical_date,
        interval: due.interval,
        partition: partition.as_ref(),
        run_after: due.run_after,
        conf: &Map::new(),
        note: None,
        triggered_by: "timetable",
        user: None,
        version_id: due.version_id,
        backfill: None,
    };
    if new_run::insert(transaction, &run, &due.structure).await? {
        return Ok(Some(run.key));
    }
    let date = isoformat(due.run_after);
    info!("{} already has a run of {date}; its schedule continues after it", due.dag_id);
    next_runs::skip_existing(transaction, &run).await?;
    Ok(None)
}

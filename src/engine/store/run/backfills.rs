//! Backfills: runs for past dates.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/core-concepts/backfill.html>

use super::new_run::{self, NewRun, isoformat};
use super::runs;
use crate::model::keys::RunKey;
use crate::model::params;
use crate::model::state::{RunState, RunType, states};
use crate::schedule::timetable::Info;
use crate::store::dag::dags::Dag;
use crate::store::events::{self, Event};
use crate::store::instance::clear::{self, Selection};
use crate::store::list::field::{filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{FromRow, execute, exists, fetch_all, fetch_one, fetch_optional, from_row, read_by_name};
use crate::store::run::version_choice::VersionChoice;
use crate::store::{Result, StoreError, transition};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use schemars::JsonSchema;
use serde_json::{Map, Value};
use std::collections::HashMap;
use tokio_postgres::types::{Json, ToSql};

states! {
    #[derive(Default, JsonSchema)]
    #[schemars(rename = "ReprocessBehavior")]
    Reprocess { #[default] None = "none", Failed = "failed", Completed = "completed" }
}

read_by_name!(Reprocess);

#[derive(Debug, Clone)]
pub struct BackfillRequest {
    pub dag_id: String,
    /// Bounds of the logical dates or, of a DAG with partitions, of the dates of the partitions; both included.
    pub from_date: Timestamp,
    pub to_date: Timestamp,
    pub run_backwards: bool,
    pub conf: Map<String, Value>,
    pub reprocess: Reprocess,
    /// The version for reruns of existing runs.
    pub version: VersionChoice,
    pub max_active_runs: i32,
}

from_row! {
    #[derive(Debug, Clone)]
    pub struct Backfill {
        pub id: i64,
        pub dag_id: String,
        pub from_date: Timestamp,
        pub to_date: Timestamp,
        pub conf: Map<String, Value> as Json = "dag_run_conf",
        pub is_paused: bool,
        pub reprocess_behavior: Reprocess,
        pub max_active_runs: i32,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub completed_at: Option<Timestamp>,
    }
}

/// Validates a backfill before its dates are computed. Errors are Airflow's texts.
pub async fn check(client: &impl GenericClient, dag: &Dag, request: &BackfillRequest) -> Result<()> {
    let dag_id = &request.dag_id;
    let invalid = |text: String| Err(StoreError::Invalid(text));
    if !dag.structure.timetable.as_ref().is_some_and(|timetable| timetable.can_be_backfilled()) {
        return invalid(format!("{dag_id} has a non-periodic schedule that does not support backfills"));
    }
    check_no_active_backfill(client, dag_id).await?;
    let (from, to) = (isoformat(request.from_date), isoformat(request.to_date));
    if request.from_date > request.to_date {
        return invalid(format!("from_date ({from}) must not be after to_date ({to})."));
    }
    let now = Timestamp::now();
    if request.from_date >= now && request.to_date >= now {
        return invalid("Backfill cannot be executed for future dates.".to_owned());
    }
    if dag.structure.tasks.iter().any(|task| task.depends_on_past) {
        if request.run_backwards {
            let text = "Backfill cannot be run in reverse when the Dag has tasks where depends_on_past=True.";
            return invalid(text.to_owned());
        }
        if request.reprocess == Reprocess::None {
            let text = "Dag has tasks for which depends_on_past=True. You must set reprocess behavior to reprocess \
                        completed or reprocess failed.";
            return invalid(text.to_owned());
        }
    }
    Ok(params::check(&dag.structure, &request.conf)?)
}

async fn check_no_active_backfill(client: &impl GenericClient, dag_id: &str) -> Result<()> {
    let active = "SELECT FROM backfill WHERE dag_id = $1 AND completed_at IS NULL LIMIT 1";
    match exists(client, active, &[&dag_id]).await? {
        true => Err(StoreError::Busy(format!("There is already a running backfill for dag {dag_id}"))),
        false => Ok(()),
    }
}

/// Refuses the backfill if another transaction is creating one of the same DAG. Waiting would occupy a connection for
/// as long as that takes, and usually refuse the backfill too.
async fn lock_creation(transaction: &Transaction<'_>, dag_id: &str) -> Result<()> {
    let lock = "SELECT pg_try_advisory_xact_lock(hashtextextended('backfill ' || $1, 0))";
    match fetch_one(transaction, lock, &[&dag_id]).await? {
        true => Ok(()),
        false => {
            let text = format!("Another backfill for dag {dag_id} is being created; try again when it exists");
            Err(StoreError::Busy(text))
        }
    }
}

/// Creates a backfill and queues its runs. `infos` are the runs that the timetable has in the range.
pub async fn create(
    transaction: &Transaction<'_>,
    dag: &Dag,
    request: &BackfillRequest,
    infos: &[Info],
    user: &str,
) -> Result<Backfill> {
    if infos.is_empty() {
        return Err(nothing_to_create(request));
    }
    lock_creation(transaction, &request.dag_id).await?;
    check_no_active_backfill(transaction, &request.dag_id).await?;
    let backfill = insert(transaction, request).await?;
    let existing = existing_runs(transaction, &request.dag_id, infos).await?;
    let run_of = |info: &Info| {
        let new_id = new_run::id(RunType::Backfill, info.run_after, info.partition.as_ref());
        match date_of(info).and_then(|date| existing.get(&date)) {
            None => RunOfDate::New(new_id),
            Some((run_id, state)) => match skip_reason(*state, request.reprocess) {
                Some(reason) => RunOfDate::Skipped(reason),
                // As in Airflow, the earlier run of a partition stays as it is.
                None if info.partition.is_some() => RunOfDate::New(format!("{new_id}__{}", backfill.id)),
                None => RunOfDate::Again(run_id),
            },
        }
    };
    let runs: Vec<RunOfDate<'_>> = infos.iter().map(run_of).collect();
    let new_runs = infos.iter().zip(&runs).enumerate().filter_map(|(index, (info, run))| {
        let RunOfDate::New(run_id) = run else { return None };
        Some(new_run(dag, request, (backfill.id, ordinal(index)), (info, run_id), user))
    });
    let created = new_run::insert_all(transaction, &new_runs.collect::<Vec<_>>(), &dag.structure).await?;
    let mut outcomes = Vec::with_capacity(infos.len());
    for (index, run) in runs.into_iter().enumerate() {
        outcomes.push(match run {
            RunOfDate::Skipped(reason) => Err(reason),
            RunOfDate::Again(run_id) => Ok(rerun(transaction, request, &backfill, ordinal(index), run_id).await?),
            RunOfDate::New(run_id) => Some(run_id).filter(|run_id| created.contains(run_id)).ok_or("already exists"),
        });
    }
    record_runs(transaction, backfill.id, infos, &outcomes).await?;
    runs::complete_backfill(transaction, backfill.id).await?;
    events::notify(transaction, &Event::Sweep).await?;
    get(transaction, backfill.id).await
}

/// What a backfill does for one of its dates.
enum RunOfDate<'a> {
    /// Creates a run with this id.
    New(String),
    /// Runs this one again.
    Again(&'a str),
    /// Creates none, for this reason.
    Skipped(&'static str),
}

/// The date that identifies a run of the backfill: that of its partition, or its logical date.
fn date_of(info: &Info) -> Option<Timestamp> {
    info.partition.as_ref().map_or_else(|| info.logical_date(), |partition| partition.date)
}

fn nothing_to_create(request: &BackfillRequest) -> StoreError {
    let (from, to) = (isoformat(request.from_date), isoformat(request.to_date));
    StoreError::Invalid(format!(
        "No runs to create for Dag {} in the range [{from}, {to}]: its schedule has no partition in that range, and no date \
         whose data interval has already ended (a date without a time means midnight)",
        request.dag_id
    ))
}

/// Position of a run in its backfill, from 1.
fn ordinal(index: usize) -> i32 {
    i32::try_from(index + 1).unwrap_or(i32::MAX)
}

async fn insert(transaction: &Transaction<'_>, request: &BackfillRequest) -> Result<Backfill> {
    let query = "
        INSERT INTO backfill (dag_id, from_date, to_date, dag_run_conf, reprocess_behavior, max_active_runs, run_backwards)
        VALUES ($1, $2, $3, $4, $5, $6, $7) RETURNING *";
    let BackfillRequest { dag_id, from_date, to_date, max_active_runs, run_backwards, .. } = request;
    let (conf, reprocess) = (Json(&request.conf), request.reprocess.as_str());
    let parameters: [&(dyn ToSql + Sync); 7] =
        [dag_id, from_date, to_date, &conf, &reprocess, max_active_runs, run_backwards];
    fetch_one(transaction, query, &parameters).await
}

/// The existing runs of these dates: run id and state by the date. Of the runs of a partition, the
/// one that was started or queued last.
async fn existing_runs(
    transaction: &Transaction<'_>,
    dag_id: &str,
    infos: &[Info],
) -> Result<HashMap<Timestamp, (String, RunState)>> {
    let dates: Vec<Option<Timestamp>> = infos.iter().map(date_of).collect();
    let column = if infos.iter().any(|info| info.partition.is_some()) { "partition_date" } else { "logical_date" };
    // The rows are locked in the order of `runs::lock`. The last row of a date is the one that is kept.
    let query = format!(
        "WITH locked AS (
            SELECT {column} AS date, run_id, state, coalesce(start_date, queued_at) AS began
            FROM dag_run WHERE dag_id = $1 AND {column} = ANY ($2) ORDER BY run_id FOR UPDATE)
         SELECT date, run_id, state FROM locked ORDER BY began"
    );
    let existing: Vec<(Timestamp, String, RunState)> = fetch_all(transaction, &query, &[&dag_id, &dates]).await?;
    Ok(existing.into_iter().map(|(date, run_id, state)| (date, (run_id, state))).collect())
}

/// Records the run of each date, or the reason why the date has none.
async fn record_runs<'a>(
    transaction: &Transaction<'_>,
    backfill_id: i64,
    infos: &'a [Info],
    outcomes: &[Result<String, &'static str>],
) -> Result<()> {
    let dates: Vec<Option<Timestamp>> = infos.iter().map(Info::logical_date).collect();
    let run_ids: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.as_deref().ok()).collect();
    let reasons: Vec<Option<&str>> = outcomes.iter().map(|outcome| outcome.as_ref().err().copied()).collect();
    let partition_key = |info: &'a Info| info.partition.as_ref().map(|partition| partition.key.as_str());
    let partition_keys: Vec<Option<&str>> = infos.iter().map(partition_key).collect();
    let query = "
        INSERT INTO backfill_run (backfill_id, ordinal, logical_date, run_id, exception_reason, partition_key)
        SELECT $1, new.ordinal, new.logical_date, new.run_id, new.reason, new.partition_key
        FROM unnest($2::timestamptz[], $3::text[], $4::text[], $5::text[]) WITH ORDINALITY
             AS new (logical_date, run_id, reason, partition_key, ordinal)";
    execute(transaction, query, &[&backfill_id, &dates, &run_ids, &reasons, &partition_keys]).await
}

fn new_run<'a>(
    dag: &Dag,
    request: &'a BackfillRequest,
    backfill: (i64, i32),
    (info, run_id): (&'a Info, &str),
    user: &'a str,
) -> NewRun<'a> {
    NewRun {
        key: RunKey { dag_id: request.dag_id.clone(), run_id: run_id.to_owned() },
        run_type: RunType::Backfill,
        logical_date: info.logical_date(),
        interval: info.interval,
        partition: info.partition.as_ref(),
        run_after: info.run_after,
        conf: &request.conf,
        note: None,
        triggered_by: "backfill",
        user: Some(user),
        version_id: dag.version_id,
        backfill: Some(backfill),
    }
}

/// Why an existing run is not rerun; `None` if it is rerun.
fn skip_reason(state: RunState, reprocess: Reprocess) -> Option<&'static str> {
    match (state, reprocess) {
        (RunState::Success, Reprocess::Completed) | (RunState::Failed, Reprocess::Completed | Reprocess::Failed) => {
            None
        }
        (RunState::Success | RunState::Failed, _) => Some("already exists"),
        (RunState::Queued | RunState::Running, _) => Some("in flight"),
    }
}

/// Reruns an existing run as part of the backfill. Returns its id.
async fn rerun(
    transaction: &Transaction<'_>,
    request: &BackfillRequest,
    backfill: &Backfill,
    ordinal: i32,
    run_id: &str,
) -> Result<String> {
    let key = RunKey { dag_id: request.dag_id.clone(), run_id: run_id.to_owned() };
    clear::clear(transaction, &key, &Selection::default(), request.version).await?;
    let join_backfill = "
        UPDATE dag_run SET revision = gen_random_uuid(), run_type = 'backfill', triggered_by = 'backfill', backfill_id = $3, backfill_ordinal = $4,
               conf = CASE WHEN $5::jsonb = '{}' THEN conf ELSE $5 END
        WHERE dag_id = $1 AND run_id = $2";
    transaction
        .execute(join_backfill, &[&key.dag_id, &key.run_id, &backfill.id, &ordinal, &Json(&request.conf)])
        .await?;
    Ok(key.run_id)
}

/// Number of runs in a backfill, and number of dates without a run by reason.
pub async fn outcome(client: &impl GenericClient, id: i64) -> Result<(i64, Vec<(String, i64)>)> {
    get(client, id).await?;
    let query =
        "SELECT exception_reason, count(*) AS count FROM backfill_run WHERE backfill_id = $1 GROUP BY 1 ORDER BY 1";
    let (mut created, mut skipped) = (0, Vec::new());
    for (reason, count) in fetch_all::<(Option<String>, i64)>(client, query, &[&id]).await? {
        match reason {
            None => created = count,
            Some(reason) => skipped.push((reason, count)),
        }
    }
    Ok((created, skipped))
}

/// Number of a backfill's runs in each state.
pub async fn states(client: &impl GenericClient, id: i64) -> Result<Map<String, Value>> {
    let query = "SELECT state, count(*) AS count FROM dag_run WHERE backfill_id = $1 GROUP BY 1";
    let counts: Vec<(String, i64)> = fetch_all(client, query, &[&id]).await?;
    Ok(counts.into_iter().map(|(state, count)| (state, count.into())).collect())
}

pub async fn list(client: &impl GenericClient, listing: Listing<BackfillField>) -> Result<ListPage<Backfill>> {
    listing.fetch(client, &Source::new("*", "backfill")).await
}

pub async fn get(client: &impl GenericClient, id: i64) -> Result<Backfill> {
    let backfill = fetch_optional(client, "SELECT * FROM backfill WHERE id = $1", &[&id]).await?;
    backfill.ok_or_else(|| StoreError::NotFound { what: "backfill", id: id.to_string() })
}

list_fields! {
    /// Fields of the runs of a backfill, for lists.
    BackfillRunField, key: [Ordinal], filter: BackfillRunFilter;
    Ordinal = whole("b.ordinal"),
    LogicalDate = time("b.logical_date"),
}

filter! {
    /// Filters of the runs of backfills.
    pub struct BackfillRunFilter {
        backfill_id: i64 = "b.backfill_id = {}",
    }
}

from_row! {
    /// A date of a backfill, with its run.
    #[derive(Debug)]
    pub struct BackfillRun {
        pub backfill_id: i64,
        pub dag_id: String,
        pub ordinal: i32,
        pub logical_date: Option<Timestamp>,
        pub run_id: Option<String>,
        /// Why there is no run.
        pub exception_reason: Option<String>,
        pub state: Option<RunState>,
        pub partition_key: Option<String>,
    }
}

/// The dates of a backfill, with their runs.
pub async fn runs(client: &impl GenericClient, listing: Listing<BackfillRunField>) -> Result<ListPage<BackfillRun>> {
    let columns = "b.*, f.dag_id, r.state";
    let from = "backfill_run b JOIN backfill f ON f.id = b.backfill_id
                LEFT JOIN dag_run r ON r.dag_id = f.dag_id AND r.run_id = b.run_id";
    listing.fetch(client, &Source::new(columns, from)).await
}

/// Changes to a running backfill.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Change {
    Pause,
    Unpause,
    /// Completes the backfill: its queued runs are set to failed, running ones continue.
    Cancel,
}

/// Pauses, unpauses or cancels a backfill. Fails with `Busy` if it is already completed.
pub async fn change(transaction: &Transaction<'_>, id: i64, change: Change) -> Result<Backfill> {
    let backfill = get(transaction, id).await?;
    if backfill.completed_at.is_some() {
        return Err(StoreError::Busy("Backfill is already completed.".to_owned()));
    }
    let paused = change != Change::Unpause;
    let query = "UPDATE backfill SET is_paused = $2, updated_at = now(), completed_at = CASE WHEN $3 THEN now() END
                 WHERE id = $1";
    transaction.execute(query, &[&id, &paused, &(change == Change::Cancel)]).await?;
    if change == Change::Cancel {
        transition::run::fail_queued(transaction, id).await?;
        // One event for all runs, since there may be many thousands.
        events::notify(transaction, &Event::Dags).await?;
    }
    events::notify(transaction, &Event::Sweep).await?;
    get(transaction, id).await
}

/// The newest backfills of a DAG, each with the number of its runs in each state.
pub async fn newest(
    client: &impl GenericClient,
    dag_id: &str,
    limit: i64,
) -> Result<Vec<(Backfill, Map<String, Value>)>> {
    let query = "
        SELECT b.*, (SELECT coalesce(json_object_agg(state, count), '{}') FROM (
                         SELECT state, count(*) FROM dag_run WHERE backfill_id = b.id GROUP BY state) AS counted) AS states
        FROM backfill b WHERE dag_id = $1 ORDER BY id DESC LIMIT $2";
    let rows = client.query(query, &[&dag_id, &limit]).await?;
    rows.iter()
        .map(|row| {
            let Json(states) = row.get("states");
            Ok((Backfill::from_row(row)?, states))
        })
        .collect()
}

list_fields! {
    /// Fields of backfills, for lists.
    BackfillField, key: [Id], filter: BackfillFilter;
    Id = whole("id"),
    CreatedAt = time("created_at"),
    CompletedAt = time("completed_at"),
    FromDate = time("from_date"),
    ToDate = time("to_date"),
    MaxActiveRuns = whole("max_active_runs"),
    /// Seconds.
    Duration = number("extract(epoch FROM coalesce(completed_at, now()) - created_at)::float8"),
    Reprocess = text("reprocess_behavior"),
}

filter! {
    /// Filters of backfills.
    pub struct BackfillFilter {
        dag_id: String = "dag_id = {}",
        /// True if the backfill has not completed.
        is_active: bool = "(completed_at IS NULL) = {}",
    }
}

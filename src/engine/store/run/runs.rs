//! DAG runs: triggering, listing, locking, notes, deleting, and the end of their backfills.

use super::active;
use super::new_run::{self, NewRun, isoformat};
use crate::model::dag::Structure;
use crate::model::keys::RunKey;
use crate::model::params;
use crate::model::state::{RunState, RunType};
use crate::schedule::partition_key::PartitionError;
use crate::schedule::timetable::{Interval, Partition};
use crate::store::asset::partitions;
use crate::store::dag::dags::{self, Tags};
use crate::store::dag::versions::VersionName;
use crate::store::events::{self, Event};
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::filter::containing;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{execute, exists, fetch_all, fetch_optional, from_row};
use crate::store::{ReadFor, Result, StoreError};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::{GenericClient, PgError};
use serde_json::{Map, Value};

from_row! {
    #[derive(Debug, Clone)]
    pub struct Run {
        pub key: RunKey => RunKey::from_row,
        pub run_type: RunType,
        pub state: RunState,
        pub logical_date: Option<Timestamp>,
        pub data_interval_start: Option<Timestamp>,
        pub data_interval_end: Option<Timestamp>,
        pub run_after: Timestamp,
        pub queued_at: Timestamp,
        pub start_date: Option<Timestamp>,
        pub end_date: Option<Timestamp>,
        pub last_scheduling_decision: Option<Timestamp>,
        pub conf: Map<String, Value> as Json,
        pub note: Option<String>,
        pub triggered_by: Option<String>,
        pub triggering_user_name: Option<String>,
        pub version: Option<VersionName> => VersionName::of_run,
        pub version_id: Option<i64> = "dag_version_id",
        pub backfill_id: Option<i64>,
        pub partition: Option<Partition> => partitions::read,
    }
}

/// The scheduler decides when a run starts and ends, and when one of its instances is scheduled or ends.
const COLUMNS: &str = "
    r.*, v.version_number, v.created_at AS version_created_at,
    CASE r.state WHEN 'queued' THEN NULL WHEN 'running' THEN greatest(r.start_date, (
        SELECT max(greatest(ti.scheduled_at, ti.end_date)) FROM task_instance ti
        WHERE ti.dag_id = r.dag_id AND ti.run_id = r.run_id)) ELSE r.end_date END AS last_scheduling_decision";
const FROM: &str = "dag_run r LEFT JOIN dag_version v ON v.id = r.dag_version_id";

/// Request to create a run.
#[derive(Debug, Default)]
pub struct Trigger {
    pub run_id: Option<String>,
    pub logical_date: Option<Timestamp>,
    pub data_interval: Option<(Timestamp, Timestamp)>,
    pub run_after: Option<Timestamp>,
    pub conf: Map<String, Value>,
    pub note: Option<String>,
    pub triggered_by: &'static str,
    pub user: String,
    /// `None` for a manually triggered run.
    pub run_type: Option<RunType>,
    pub partition_key: Option<String>,
}

/// Checks a run id against Airflow's `allowed_run_id_pattern`, and against path traversal and reserved prefixes.
fn check_run_id(run_id: &str) -> Result<()> {
    if run_id.contains("..") {
        let text = format!("The run_id '{run_id}' must not contain '..' to prevent path traversal");
        return Err(StoreError::Invalid(text));
    }
    let is_allowed = |c: char| c.is_ascii_alphanumeric() || "_.~:+-".contains(c);
    if run_id.is_empty() || run_id.len() > 250 || !run_id.chars().all(is_allowed) {
        let text = format!("The run_id provided '{run_id}' does not match regex pattern '^[A-Za-z0-9_.~:+-]+$'");
        return Err(StoreError::Invalid(text));
    }
    for reserved in ["scheduled", "backfill", "asset_triggered"] {
        if run_id.starts_with(&format!("{reserved}__")) {
            let text = format!("A manual DAG run cannot use ID '{run_id}' since it is reserved for {reserved} runs");
            return Err(StoreError::Invalid(text));
        }
    }
    Ok(())
}

/// Creates a run with its task instances. The scheduler starts the run.
pub async fn trigger(transaction: &Transaction<'_>, dag_id: &str, request: &Trigger) -> Result<Run> {
    let dag = dags::get(transaction, dag_id).await?;
    if !dag.is_active {
        return Err(StoreError::NotFound { what: "dag", id: dag_id.to_owned() });
    }
    let run_after = request.run_after.unwrap_or_else(new_run::now);
    let run_id = match request.run_id.as_deref() {
        None | Some("") => format!("manual__{}", isoformat(run_after)),
        Some(run_id) => run_id.to_owned(),
    };
    check_run_id(&run_id)?;
    if request.conf.iter().any(|(name, value)| name.contains('\0') || has_nul(value)) {
        return Err(StoreError::Invalid("conf must not contain the NUL character".to_owned()));
    }
    params::check(&dag.structure, &request.conf)?;
    let partition = partition(&dag.structure, request.partition_key.as_deref())?;
    let timetable = dag.structure.timetable.as_ref();
    let interval = request.logical_date.map(|date| {
        let explicit = request.data_interval.map(|(start, end)| Interval { start, end });
        // For a run triggered by an operator, Airflow uses `run_after`.
        let reference_date = if request.run_type == Some(RunType::OperatorTriggered) { run_after } else { date };
        let inferred = || timetable.and_then(|timetable| timetable.manual(reference_date).ok());
        explicit.or_else(inferred).unwrap_or(Interval { start: date, end: date })
    });
    let run = NewRun {
        key: RunKey { dag_id: dag_id.to_owned(), run_id },
        run_type: request.run_type.unwrap_or(RunType::Manual),
        logical_date: request.logical_date,
        interval,
        partition: partition.as_ref(),
        run_after,
        conf: &request.conf,
        note: request.note.as_deref(),
        triggered_by: request.triggered_by,
        user: Some(&request.user),
        version_id: dag.version_id,
        backfill: None,
    };
    if !new_run::insert(transaction, &run, &dag.structure).await? {
        let same_date = "SELECT run_id FROM dag_run WHERE dag_id = $1 AND logical_date = $2";
        let existing = fetch_optional(transaction, same_date, &[&dag_id, &request.logical_date]).await?;
        let what = if existing.is_some() { "a run of this logical date," } else { "run" };
        return Err(StoreError::AlreadyExists { what, id: existing.unwrap_or(run.key.run_id) });
    }
    get(transaction, &run.key, ReadFor::Reading).await
}

/// The partition of a triggered run.
fn partition(structure: &Structure, key: Option<&str>) -> Result<Option<Partition>, PartitionError> {
    let Some(key) = key else { return Ok(None) };
    let timetable = structure.timetable.as_ref().filter(|timetable| timetable.takes_partition());
    let timetable = timetable.ok_or_else(|| PartitionError::NotPartitioned(structure.dag_id.clone()))?;
    timetable.partition(key, &structure.awaited_assets()).map(Some)
}

fn has_nul(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains('\0'),
        Value::Array(list) => list.iter().any(has_nul),
        Value::Object(map) => map.iter().any(|(name, value)| name.contains('\0') || has_nul(value)),
        _ => false,
    }
}

fn not_found(key: &RunKey) -> StoreError {
    StoreError::NotFound { what: "run", id: format!("{}/{}", key.dag_id, key.run_id) }
}

pub async fn get(client: &impl GenericClient, key: &RunKey, read_for: ReadFor) -> Result<Run> {
    let lock = if read_for == ReadFor::Update { " FOR UPDATE OF r" } else { "" };
    let query = format!("SELECT {COLUMNS} FROM {FROM} WHERE r.dag_id = $1 AND r.run_id = $2{lock}");
    fetch_optional(client, &query, &[&key.dag_id, &key.run_id]).await?.ok_or_else(|| not_found(key))
}

/// Locks the runs until the transaction ends, in a fixed order to avoid deadlocks. Runs that do not exist are
/// ignored.
pub async fn lock(transaction: &Transaction<'_>, keys: &[RunKey]) -> Result<()> {
    let (dags, ids): (Vec<&str>, Vec<&str>) = keys.iter().map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    let query = "
        SELECT FROM dag_run WHERE (dag_id, run_id) IN (SELECT * FROM unnest($1::text[], $2::text[]))
        ORDER BY dag_id, run_id FOR UPDATE";
    execute(transaction, query, &[&dags, &ids]).await
}

/// The runs of a DAG with logical dates in this range, bounds included; without bounds, all runs.
pub async fn between(
    client: &impl GenericClient,
    dag_id: &str,
    from: Option<Timestamp>,
    to: Option<Timestamp>,
) -> Result<Vec<RunKey>> {
    let query = "SELECT dag_id, run_id FROM dag_run
                 WHERE dag_id = $1 AND ($2::timestamptz IS NULL OR logical_date >= $2)
                   AND ($3::timestamptz IS NULL OR logical_date <= $3) ORDER BY run_after, run_id";
    fetch_all(client, query, &[&dag_id, &from, &to]).await
}

pub async fn list(client: &impl GenericClient, listing: Listing<RunField>) -> Result<ListPage<Run>> {
    let joins = &[("v", "LEFT JOIN dag_version v ON v.id = r.dag_version_id")];
    listing.fetch(client, &Source { columns: COLUMNS, from: "dag_run r", joins }).await
}

/// The newest runs of each of these DAGs, or of all DAGs, ordered by DAG and newest first.
pub async fn newest(client: &impl GenericClient, dag_ids: Option<&[&str]>, limit_per_dag: i64) -> Result<Vec<Run>> {
    let query = format!(
        "SELECT {COLUMNS} FROM dag d
        CROSS JOIN LATERAL (SELECT * FROM dag_run WHERE dag_id = d.dag_id ORDER BY run_after DESC LIMIT $1) r
        LEFT JOIN dag_version v ON v.id = r.dag_version_id
        WHERE $2::text[] IS NULL OR d.dag_id = ANY ($2) ORDER BY r.dag_id, r.run_after DESC"
    );
    fetch_all(client, &query, &[&limit_per_dag, &dag_ids]).await
}

/// When the newest run was queued: RFC 3339, in whole seconds. `None` without runs.
pub async fn newest_queued_at(client: &tokio_postgres::Client) -> Result<Option<String>, PgError> {
    let query = "SELECT to_char(max(queued_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM dag_run";
    Ok(client.query_one(query, &[]).await?.get(0))
}

/// Notifies the scheduler after a run was ended manually or deleted: its slots are free, and its tasks no longer hold
/// up other runs of the DAG.
pub(crate) async fn notify_waiting_runs(transaction: &Transaction<'_>, key: &RunKey) -> Result<()> {
    events::notify(transaction, &Event::Capacity).await?;
    for run in active::other_running(transaction, key).await? {
        events::notify(transaction, &Event::Plan(run)).await?;
    }
    Ok(())
}

pub async fn set_note(transaction: &Transaction<'_>, key: &RunKey, note: Option<&str>) -> Result<()> {
    let query = "UPDATE dag_run SET note = $3 WHERE dag_id = $1 AND run_id = $2";
    match transaction.execute(query, &[&key.dag_id, &key.run_id, &note]).await? {
        0 => Err(not_found(key)),
        _ => Ok(()),
    }
}

pub async fn delete(transaction: &Transaction<'_>, key: &RunKey) -> Result<()> {
    let run = get(transaction, key, ReadFor::Update).await?;
    // Tasks that are still being stopped count as running: they would collide with a new run of the same id.
    let running_try = "SELECT FROM task_try WHERE dag_id = $1 AND run_id = $2 AND state = 'running' LIMIT 1";
    if run.state == RunState::Running || exists(transaction, running_try, &[&key.dag_id, &key.run_id]).await? {
        return Err(StoreError::Busy(format!(
            "The DagRun with dag_id: `{}` and run_id: `{}` cannot be deleted in running state",
            key.dag_id, key.run_id
        )));
    }
    transaction.execute("DELETE FROM dag_run WHERE dag_id = $1 AND run_id = $2", &[&key.dag_id, &key.run_id]).await?;
    if let Some(backfill) = run.backfill_id {
        complete_backfill(transaction, backfill).await?;
    }
    notify_waiting_runs(transaction, key).await?;
    events::notify_all(transaction, &[Event::Sweep, Event::Stop, Event::Changed(key.clone())]).await
}

/// Changes the revision of a run, so that the scheduler reads its task instances again.
pub(crate) async fn bump_revision(client: &impl GenericClient, key: &RunKey) -> Result<()> {
    let query = "UPDATE dag_run SET revision = gen_random_uuid() WHERE dag_id = $1 AND run_id = $2";
    execute(client, query, &[&key.dag_id, &key.run_id]).await
}

/// Completes the backfill of a run that has just ended, if no other run of the backfill is unfinished.
pub(crate) async fn complete_backfill_of(client: &impl GenericClient, run: &RunKey) -> Result<()> {
    let query = "SELECT backfill_id FROM dag_run WHERE dag_id = $1 AND run_id = $2 AND backfill_id IS NOT NULL";
    match client.query_opt(query, &[&run.dag_id, &run.run_id]).await? {
        Some(row) => complete_backfill(client, row.get(0)).await,
        None => Ok(()),
    }
}

/// Completes a backfill if none of its runs is queued or running.
pub(crate) async fn complete_backfill(client: &impl GenericClient, id: i64) -> Result<()> {
    let query = "
        UPDATE backfill SET completed_at = now(), updated_at = now() WHERE id = $1 AND completed_at IS NULL
          AND NOT EXISTS (SELECT FROM dag_run WHERE backfill_id = $1 AND state IN ('queued', 'running'))";
    execute(client, query, &[&id]).await
}

list_fields! {
    /// Fields of runs, for lists.
    RunField, key: [RunId, DagId], filter: RunFilter;
    RunId = text("r.run_id"),
    DagId = text("r.dag_id"),
    State = text("r.state"),
    RunType = text("r.run_type"),
    LogicalDate = time("r.logical_date"),
    PartitionDate = time("r.partition_date"),
    PartitionKey = text("r.partition_key"),
    RunAfter = time("r.run_after"),
    QueuedAt = time("r.queued_at"),
    StartDate = time("r.start_date"),
    EndDate = time("r.end_date"),
    UpdatedAt = time("greatest(r.queued_at, r.start_date, r.end_date)"),
    /// Seconds.
    Duration = number("extract(epoch FROM r.end_date - r.start_date)::float8"),
    Conf = text("r.conf::text"),
    TriggeringUser = text("r.triggering_user_name"),
    VersionNumber = whole("v.version_number"),
    BundleVersion = text("v.version_number::text"),
}

/// Filters of runs.
#[derive(Debug, Default)]
pub struct RunFilter {
    pub dag_id: Option<String>,
    /// Substring of the conf as JSON; `%` and `_` are wildcards.
    pub conf_contains: Option<String>,
    /// Substring of the name or URI of an asset whose event triggered the run.
    pub consumed_asset: Option<String>,
    /// Lower bound of the partition date, included.
    pub partition_from: Option<Timestamp>,
    /// Upper bound of the partition date, excluded.
    pub partition_before: Option<Timestamp>,
    /// Substring of the name of the user who triggered the run; `%` and `_` are wildcards.
    pub triggering_user_contains: Option<String>,
    pub triggering_user_prefix: Option<String>,
    /// Tags of the run's DAG.
    pub tags: Option<Tags>,
}

impl RunFilter {
    pub fn of_dag(dag_id: impl Into<String>) -> Self {
        Self { dag_id: Some(dag_id.into()), ..Self::default() }
    }
}

impl Filter for RunFilter {
    fn add_to(self, conditions: &mut Conditions) {
        let with_wildcards = |text: Option<String>| text.map(|text| format!("%{text}%"));
        conditions.maybe("r.dag_id = {}", self.dag_id);
        conditions.maybe("r.conf::text LIKE {}", with_wildcards(self.conf_contains));
        if let Some(pattern) = self.consumed_asset.as_deref().map(containing) {
            let consumed = "EXISTS (SELECT FROM dag_run_asset_event c JOIN asset_event e ON e.id = c.event_id
                                    JOIN asset a ON a.id = e.asset_id
                                    WHERE c.dag_id = r.dag_id AND c.run_id = r.run_id
                                      AND (a.name ILIKE {} OR a.uri ILIKE {}))";
            conditions.add(consumed, vec![Box::new(pattern.clone()), Box::new(pattern)]);
        }
        conditions.maybe("r.partition_date >= {}", self.partition_from);
        conditions.maybe("r.partition_date < {}", self.partition_before);
        conditions.maybe("r.triggering_user_name ILIKE {}", with_wildcards(self.triggering_user_contains));
        conditions.maybe("starts_with(r.triggering_user_name, {}::text)", self.triggering_user_prefix);
        if let Some(tags) = self.tags {
            let of_dag = "EXISTS (SELECT FROM dag d JOIN dag_version v ON v.id = d.current_version_id
                                  WHERE d.dag_id = r.dag_id AND ";
            tags.add_to(of_dag, ")", conditions);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn run_ids_are_airflows() {
        let format = |text: &str| isoformat(text.parse().unwrap());
        assert_eq!(format("2026-01-01T12:34:56.789012Z"), "2026-01-01T12:34:56.789012+00:00");
        assert_eq!(format("2026-01-01T12:34:56Z"), "2026-01-01T12:34:56+00:00");
        for good in ["manual__2026-01-01T12:34:56+00:00", "x", "a.b~c"] {
            check_run_id(good).unwrap();
        }
        for bad in ["", "a b", "a/b", "..", "x..y", "ä", "scheduled__2026", &"x".repeat(251)] {
            check_run_id(bad).unwrap_err();
        }
    }
}

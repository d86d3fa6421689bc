//! DAGs at their current versions.

use super::structures::{Structures, VersionKey};
use crate::model::dag::Structure;
use crate::store::asset::watchers;
use crate::store::events::{self, Event};
use crate::store::instance_key::KEY;
use crate::store::list::column::Column;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::filter::{Range, Unset, containing};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{exists, fetch_all, fetch_one, fetch_optional};
use crate::store::{Result, StoreError};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::sync::Arc;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

/// A DAG at its current version.
#[derive(Debug, Clone)]
pub struct Dag {
    pub dag_id: String,
    pub is_paused: bool,
    pub is_draining: bool,
    pub is_active: bool,
    pub is_favorite: bool,
    pub fileloc: String,
    pub relative_fileloc: String,
    pub last_parsed_at: Option<Timestamp>,
    /// Seconds.
    pub last_parse_duration: Option<f64>,
    pub has_import_errors: bool,
    pub structure: Arc<Structure>,
    pub version_number: i32,
    pub version_created_at: Timestamp,
    pub version_id: i64,
    /// Due date of the next scheduled run.
    pub next_run_after: Option<Timestamp>,
    pub next_interval: Option<(Timestamp, Timestamp)>,
}

impl Dag {
    pub fn into_structure(self) -> Structure {
        Arc::unwrap_or_clone(self.structure)
    }
}

const COLUMNS: &str = "
    d.*, v.version_number, v.created_at AS version_created_at, v.id AS version_id,
    EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) AS has_import_errors";
const FROM: &str = "dag d JOIN dag_version v ON v.id = d.current_version_id";

fn read(row: &Row, structure: Arc<Structure>) -> Dag {
    Dag {
        dag_id: row.get("dag_id"),
        is_paused: row.get("is_paused"),
        is_draining: row.get("is_draining"),
        is_active: row.get("is_active"),
        is_favorite: row.get("is_favorite"),
        fileloc: row.get("fileloc"),
        relative_fileloc: row.get("relative_fileloc"),
        last_parsed_at: row.get("last_parsed_at"),
        last_parse_duration: row.get("last_parse_duration"),
        has_import_errors: row.get("has_import_errors"),
        structure,
        version_number: row.get("version_number"),
        version_created_at: row.get("version_created_at"),
        version_id: row.get("version_id"),
        next_run_after: row.get("next_run_after"),
        next_interval: row
            .get::<_, Option<Timestamp>>("next_interval_start")
            .zip(row.get::<_, Option<Timestamp>>("next_interval_end")),
    }
}

pub async fn list(
    client: &impl GenericClient,
    structures: &Structures,
    listing: Listing<DagField>,
) -> Result<ListPage<Dag>> {
    let page = listing.fetch_with(client, &Source::new(COLUMNS, FROM), Row::clone).await?;
    let version = |row: &Row| (row.get("version_id"), row.get("version_created_at"));
    let versions: Vec<VersionKey> = page.rows.iter().map(version).collect();
    let known = structures.get(client, &versions).await?;
    // A DAG deleted between the two queries is left out.
    Ok(page.filter_map(|row| known.get(&version(&row)).map(|structure| read(&row, Arc::clone(structure)))))
}

pub async fn get(client: &impl GenericClient, dag_id: &str) -> Result<Dag> {
    let query = format!("SELECT {COLUMNS}, v.structure FROM {FROM} WHERE d.dag_id = $1");
    let row = client.query_opt(&query, &[&dag_id]).await?;
    let read_row = |row: &Row| read(row, Arc::new(row.get::<_, Json<Structure>>("structure").0));
    row.as_ref().map(read_row).ok_or_else(|| not_found(dag_id))
}

fn not_found(dag_id: &str) -> StoreError {
    StoreError::NotFound { what: "dag", id: dag_id.to_owned() }
}

/// Number of running runs.
pub async fn active_runs(client: &impl GenericClient, dag_id: &str) -> Result<i64> {
    fetch_one(client, "SELECT count(*) FROM dag_run WHERE dag_id = $1 AND state = 'running'", &[&dag_id]).await
}

pub async fn is_paused(client: &impl GenericClient, dag_id: &str) -> Result<bool> {
    let is_paused = fetch_optional(client, "SELECT is_paused FROM dag WHERE dag_id = $1", &[&dag_id]).await?;
    is_paused.ok_or_else(|| not_found(dag_id))
}

/// Whether new runs of a DAG are scheduled and its runs advance. A draining DAG gets no new scheduled runs, and those
/// that exist go on; then it is paused.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "DagSchedulingState")]
pub enum Scheduling {
    Active,
    Draining,
    Paused,
}

impl From<bool> for Scheduling {
    fn from(is_paused: bool) -> Self {
        if is_paused { Self::Paused } else { Self::Active }
    }
}

impl Dag {
    pub fn scheduling(&self) -> Scheduling {
        if self.is_draining { Scheduling::Draining } else { self.is_paused.into() }
    }
}

pub async fn set_scheduling(client: &impl GenericClient, dag_id: &str, scheduling: Scheduling) -> Result<()> {
    let is_draining = scheduling == Scheduling::Draining;
    let query = format!(
        "UPDATE dag d SET is_paused = $2 OR $3 AND NOT {UNFINISHED}, is_draining = $3 AND {UNFINISHED} WHERE dag_id = $1"
    );
    if client.execute(&query, &[&dag_id, &(scheduling == Scheduling::Paused), &is_draining]).await? == 0 {
        return Err(not_found(dag_id));
    }
    watchers::notify_agent(client).await?;
    events::notify_all(client, &[Event::Dags, Event::Sweep]).await?;
    // Running runs did not advance while the DAG was paused.
    let running = "SELECT dag_id, run_id FROM dag_run WHERE dag_id = $1 AND state = 'running'";
    for run in fetch_all(client, running, &[&dag_id]).await? {
        events::notify(client, &Event::Plan(run)).await?;
    }
    Ok(())
}

/// SQL condition: the DAG `d` has runs that have not ended.
const UNFINISHED: &str =
    "EXISTS (SELECT FROM dag_run r WHERE r.dag_id = d.dag_id AND r.state IN ('queued', 'running'))";

/// Pauses the draining DAGs whose runs have all ended.
pub(crate) async fn pause_drained(client: &impl GenericClient) -> Result<()> {
    let query =
        format!("UPDATE dag d SET is_paused = true, is_draining = false WHERE is_draining AND NOT {UNFINISHED}");
    if client.execute(&query, &[]).await? > 0 {
        watchers::notify_agent(client).await?;
        events::notify(client, &Event::Dags).await?;
    }
    Ok(())
}

async fn set_flag(client: &impl GenericClient, column: &str, dag_id: &str, value: bool) -> Result<()> {
    match client.execute(&format!("UPDATE dag SET {column} = $2 WHERE dag_id = $1"), &[&dag_id, &value]).await? {
        0 => Err(not_found(dag_id)),
        _ => Ok(()),
    }
}

/// Whether a DAG is among the user's favorites.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Favorite {
    Yes,
    No,
}

pub async fn set_favorite(client: &impl GenericClient, dag_id: &str, favorite: Favorite) -> Result<()> {
    set_flag(client, "is_favorite", dag_id, favorite == Favorite::Yes).await
}

/// Pauses the DAG if its last `max_failures` finished runs have all failed: Airflow's
/// `max_consecutive_failed_dag_runs`. Returns true if the DAG was paused.
pub(crate) async fn pause_after_failures(client: &impl GenericClient, dag_id: &str, max_failures: i64) -> Result<bool> {
    let query = "
            UPDATE dag SET is_paused = true, is_draining = false WHERE dag_id = $1 AND (
                SELECT count(*) = $2 AND bool_and(state = 'failed') FROM (
                    SELECT state FROM dag_run WHERE dag_id = $1 AND state IN ('success', 'failed')
                    ORDER BY run_after DESC, run_id DESC LIMIT $2) recent)";
    Ok(client.execute(query, &[&dag_id, &max_failures]).await? > 0)
}

/// Deletes a DAG with all of its history. A DAG whose file still exists is created again without history.
pub async fn delete(transaction: &Transaction<'_>, dag_id: &str) -> Result<()> {
    // Tasks of cancelled runs that are still being stopped count as running.
    let running = "SELECT FROM task_try WHERE dag_id = $1 AND state = 'running' LIMIT 1";
    if exists(transaction, running, &[&dag_id]).await? {
        return Err(StoreError::Busy(format!("Task instances of dag with id: '{dag_id}' are still running")));
    }
    transaction.execute("DELETE FROM dag_run WHERE dag_id = $1", &[&dag_id]).await?;
    if transaction.execute("DELETE FROM dag WHERE dag_id = $1", &[&dag_id]).await? == 0 {
        return Err(not_found(dag_id));
    }
    // `Stop` makes the agent stop the triggers of deferred tasks.
    events::notify_all(transaction, &[Event::Dags, Event::Stop]).await
}

/// Returns the number of a DAG version, and the text and the path of its file in the workspace; `None` for
/// `version_number` is the current version.
pub async fn source(
    client: &impl GenericClient,
    dag_id: &str,
    version_number: Option<i32>,
) -> Result<Option<(i32, String, String)>> {
    let query = "SELECT v.version_number, v.source, v.relative_fileloc FROM dag_version v JOIN dag d USING (dag_id)
                 WHERE dag_id = $1 AND (v.version_number = $2 OR $2 IS NULL AND v.id = d.current_version_id)";
    fetch_optional(client, query, &[&dag_id, &version_number]).await
}

const LAST_STATE: &str = "(SELECT r.state FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
const LAST_START: &str = "(SELECT r.start_date FROM dag_run r WHERE r.dag_id = d.dag_id
    ORDER BY r.run_after DESC, r.queued_at DESC LIMIT 1)";
/// Airflow's class for each kind of timetable.
pub(crate) const TIMETABLE_TYPE: &str = "CASE v.structure->'timetable'->>'kind'
    WHEN 'custom' THEN v.structure->'timetable'->>'class'
    WHEN 'once' THEN 'airflow.timetables.simple.OnceTimetable'
    WHEN 'continuous' THEN 'airflow.timetables.simple.ContinuousTimetable'
    WHEN 'cron_trigger' THEN 'airflow.timetables.trigger.CronTriggerTimetable'
    WHEN 'multiple_cron_trigger' THEN 'airflow.timetables.trigger.MultipleCronTriggerTimetable'
    WHEN 'cron_interval' THEN 'airflow.timetables.interval.CronDataIntervalTimetable'
    WHEN 'delta_trigger' THEN 'airflow.timetables.trigger.DeltaTriggerTimetable'
    WHEN 'delta_interval' THEN 'airflow.timetables.interval.DeltaDataIntervalTimetable'
    WHEN 'events' THEN 'airflow.timetables.events.EventsTimetable'
    WHEN 'asset' THEN 'airflow.timetables.simple.AssetTriggeredTimetable'
    WHEN 'cron_partition' THEN 'airflow.timetables.trigger.CronPartitionTimetable'
    WHEN 'partitioned_asset' THEN 'airflow.timetables.simple.PartitionedAssetTimetable'
    WHEN 'partitioned_at_runtime' THEN 'airflow.timetables.simple.PartitionedAtRuntime'
    WHEN 'asset_or_time' THEN 'airflow.timetables.assets.AssetOrTimeSchedule'
    WHEN 'asset_and_time' THEN 'airflow.timetables.assets.AssetAndTimeSchedule'
    ELSE 'airflow.timetables.simple.NullTimetable' END";

list_fields! {
    /// Fields of DAGs, for lists.
    DagField, key: [DagId], filter: DagFilter;
    DagId = text("d.dag_id"),
    DisplayName = text("coalesce(v.structure->>'dag_display_name', d.dag_id)"),
    NextInterval = time("d.next_interval_start"),
    NextRunAfter = time("d.next_run_after"),
    LastRunState = text(LAST_STATE),
    LastRunStart = time(LAST_START),
    /// Airflow's class for the timetable.
    TimetableType = text(TIMETABLE_TYPE),
    BundleVersion = text("v.version_number::text"),
}

/// Filters of DAGs.
#[derive(Debug, Default)]
pub struct DagFilter {
    pub activity: Activity,
    pub is_paused: Option<bool>,
    pub scheduling: Option<Scheduling>,
    /// Beginning of the path of the DAG's file in the workspace.
    pub file_prefix: Option<String>,
    pub is_favorite: Option<bool>,
    pub tags: Option<Tags>,
    /// Substrings of owner names; one match is enough.
    pub owners: Vec<String>,
    pub has_import_errors: Option<bool>,
    pub last_run_state: Option<String>,
    pub has_asset_schedule: Option<bool>,
    /// True if it has a schedule of any kind.
    pub is_scheduled: Option<bool>,
    /// Substring of the name or URI of an asset that the DAG is scheduled on.
    pub asset: Option<String>,
    pub latest_run: LatestRun,
    /// True if a task waits for a response of a human.
    pub has_pending_response: Option<bool>,
}

/// Whether a file of the workspace must define the DAG.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Activity {
    #[default]
    Any,
    Active,
}

/// Tags of which a DAG must have any or all.
#[derive(Debug, Clone)]
pub enum Tags {
    Any(Vec<String>),
    All(Vec<String>),
}

impl Tags {
    /// Adds the condition on the version `v` of a DAG, between two parts of SQL.
    pub(crate) fn add_to(self, before: &str, after: &str, conditions: &mut Conditions) {
        let (function, tags) = match self {
            Self::Any(tags) => ("jsonb_exists_any", tags),
            Self::All(tags) => ("jsonb_exists_all", tags),
        };
        conditions.with(&format!("{before}{function}(v.structure->'tags', {{}}){after}"), tags);
    }
}

/// Filters by the latest run of a DAG.
#[derive(Debug, Default)]
pub struct LatestRun {
    pub states: Vec<String>,
    /// Earliest `run_after`.
    pub since: Option<Timestamp>,
    pub start_date: Range<Timestamp>,
    pub end_date: Range<Timestamp>,
}

impl Filter for DagFilter {
    fn add_to(self, conditions: &mut Conditions) {
        if self.activity == Activity::Active {
            conditions.add("d.is_active", Vec::new());
        }
        conditions.maybe("d.is_paused = {}", self.is_paused);
        if let Some(scheduling) = self.scheduling {
            conditions.with("d.is_paused = {}", scheduling == Scheduling::Paused);
            conditions.with("d.is_draining = {}", scheduling == Scheduling::Draining);
        }
        conditions.maybe("starts_with(d.relative_fileloc, {}::text)", self.file_prefix);
        conditions.maybe("d.is_favorite = {}", self.is_favorite);
        if let Some(tags) = self.tags {
            tags.add_to("", "", conditions);
        }
        let is_scheduled = "(coalesce(v.structure->'timetable'->>'kind', 'null') <> 'null') = {}";
        conditions.maybe(is_scheduled, self.is_scheduled);
        if !self.owners.is_empty() {
            let patterns: Vec<String> = self.owners.iter().map(|owner| containing(owner)).collect();
            let any = "EXISTS (SELECT FROM jsonb_array_elements_text(v.structure->'owners') AS o (name)
                               WHERE o.name ILIKE ANY ({}))";
            conditions.with(any, patterns);
        }
        let errors = "EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc) = {}";
        conditions.maybe(errors, self.has_import_errors);
        conditions.maybe(&format!("{LAST_STATE} = {{}}"), self.last_run_state);
        conditions.maybe("(v.structure->'asset_condition' IS NOT NULL) = {}", self.has_asset_schedule);
        if let Some(pattern) = self.asset.as_deref().map(containing) {
            let scheduled_on = "EXISTS (SELECT FROM dag_asset a WHERE a.dag_id = d.dag_id AND a.role = 'schedule'
                                          AND (a.name ILIKE {} OR a.uri ILIKE {}))";
            conditions.add(scheduled_on, vec![Box::new(pattern.clone()), Box::new(pattern)]);
        }
        let pending = format!(
            "EXISTS (SELECT FROM hitl_detail h JOIN task_instance ti USING ({KEY})
                     WHERE h.dag_id = d.dag_id AND h.responded_at IS NULL
                       AND ti.state IN ('deferred', 'awaiting_input')) = {{}}"
        );
        conditions.maybe(&pending, self.has_pending_response);
        self.latest_run.add_to(conditions);
    }
}

impl LatestRun {
    fn add_to(self, conditions: &mut Conditions) {
        let mut of_run = Conditions::default();
        of_run.any(Column::text("r.state"), self.states);
        of_run.maybe("r.run_after >= {}", self.since);
        self.start_date.add_to(&mut of_run, "r.start_date", Unset::Outside);
        self.end_date.add_to(&mut of_run, "r.end_date", Unset::Outside);
        let latest = "SELECT FROM (SELECT * FROM dag_run WHERE dag_id = d.dag_id
                                   ORDER BY run_after DESC, queued_at DESC LIMIT 1) r WHERE true";
        conditions.exists(latest, of_run);
    }
}

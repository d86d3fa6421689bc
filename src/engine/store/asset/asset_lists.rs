//! Assets and their events, for display and for tasks.

use crate::model::keys::{Position, RunKey};
use crate::schedule::asset_condition::Reference;
use crate::store::Result;
use crate::store::list::conditions::Conditions;
use crate::store::list::field::{Filter, list_fields};
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{self, fetch_all, fetch_one, fetch_optional, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde::Deserialize;
use serde_json::{Map, Value};
use std::collections::HashMap;
use tokio_postgres::Row;
use tokio_postgres::types::Json;

from_row! {
    /// An asset, with the DAGs that it schedules and the tasks that produce or read it.
    #[derive(Debug)]
    pub struct Asset {
        pub id: i64,
        pub name: String,
        pub uri: String,
        pub group: String = "group_name",
        pub extra: Value,
        pub created_at: Timestamp,
        pub updated_at: Timestamp,
        pub uses: Vec<AssetUse> as Json,
        /// Id, name and group of each alias that resolves to the asset, as JSON in Airflow's form.
        pub aliases: Value,
        /// Id and time of the newest event.
        pub last_event: Option<(i64, Timestamp)> => last_event,
    }
}

fn last_event(row: &Row) -> Result<Option<(i64, Timestamp)>> {
    let (id, happened_at): (Option<i64>, Option<Timestamp>) =
        (rows::get(row, "event_id")?, rows::get(row, "happened_at")?);
    Ok(id.zip(happened_at))
}

/// A DAG or a task that references an asset.
#[derive(Debug, Deserialize)]
pub struct AssetUse {
    pub dag_id: String,
    /// Empty for a DAG that is scheduled by the asset.
    pub task_id: String,
    /// `schedule`, `outlet` or `inlet`.
    pub role: String,
    pub created_at: String,
}

from_row! {
    /// An asset event.
    #[derive(Debug)]
    pub struct AssetEvent {
        pub id: i64,
        pub asset_id: i64,
        pub name: String,
        pub uri: String,
        pub group: String = "group_name",
        pub extra: Value,
        pub happened_at: Timestamp,
        pub source_dag_id: Option<String>,
        pub source_task_id: Option<String>,
        pub source_run_id: Option<String>,
        pub source_position: Position = "source_map_index",
        pub aliases: Vec<String>,
        pub partition_key: Option<String>,
        /// The runs triggered by the event, with Airflow's field names.
        pub created_runs: Value = "created",
    }
}

/// Columns of an asset for display.
const ASSET: &str = "
    a.*, (SELECT id FROM asset_event WHERE asset_id = a.id ORDER BY happened_at DESC, id DESC LIMIT 1) AS event_id,
    (SELECT max(happened_at) FROM asset_event WHERE asset_id = a.id) AS happened_at,
           (SELECT coalesce(json_agg(json_build_object('dag_id', d.dag_id, 'task_id', d.task_id, 'role', d.role,
                                                       'created_at', d.created_at)
                                     ORDER BY d.dag_id, d.task_id), '[]')
            FROM dag_asset d JOIN dag USING (dag_id)
            WHERE dag.is_active AND (d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri
                  OR d.kind = 'name' AND d.name = a.name OR d.kind = 'uri' AND d.uri = a.uri)) AS uses,
           (SELECT coalesce(json_agg(json_build_object('id', n.id, 'name', n.name, 'group', n.group_name)), '[]')
            FROM asset_alias_asset l JOIN asset_alias n ON n.id = l.alias_id WHERE l.asset_id = a.id) AS aliases";

/// Columns of an event for a task, without the triggered runs, because a task may read thousands of events.
const EVENT: &str = "e.*, a.name, a.uri, a.group_name, '[]'::json AS created";
const EVENTS: &str = "asset_event e JOIN asset a ON a.id = e.asset_id";

/// Columns of an event for display. The latest of the events of a run is the one that triggers the run.
const EVENT_WITH_RUNS: &str = "
    e.*, a.name, a.uri, a.group_name,
           (SELECT coalesce(json_agg(json_build_object(
                'run_id', r.run_id, 'dag_id', r.dag_id, 'logical_date', r.logical_date, 'start_date', r.start_date,
                'end_date', r.end_date, 'state', r.state, 'data_interval_start', r.data_interval_start,
                'data_interval_end', r.data_interval_end, 'partition_key', r.partition_key,
                'triggering', e.id = (SELECT l.id FROM dag_run_asset_event c JOIN asset_event l ON l.id = c.event_id
                                      WHERE (c.dag_id, c.run_id) = (r.dag_id, r.run_id)
                                      ORDER BY l.happened_at DESC, l.id DESC LIMIT 1))), '[]')
            FROM dag_run_asset_event d JOIN dag_run r USING (dag_id, run_id) WHERE d.event_id = e.id) AS created";

/// A page of assets with the total number of matches.
pub async fn list(client: &impl GenericClient, listing: Listing<AssetField>) -> Result<ListPage<Asset>> {
    listing.fetch(client, &Source::new(ASSET, "asset a")).await
}

pub async fn get(client: &impl GenericClient, id: i64) -> Result<Option<Asset>> {
    fetch_optional(client, &format!("SELECT {ASSET} FROM asset a WHERE a.id = $1"), &[&id]).await
}

from_row! {
    /// An asset with the attributes that tasks can read.
    #[derive(Debug)]
    pub struct NamedAsset {
        pub id: i64,
        pub name: String,
        pub uri: String,
        pub group: String = "group_name",
        pub extra: Value,
    }
}

/// Finds an asset by name or URI; if there are several, the one that was updated last.
pub async fn named(client: &impl GenericClient, name: Option<&str>, uri: Option<&str>) -> Result<Option<NamedAsset>> {
    let query = "SELECT id, name, uri, group_name, extra FROM asset WHERE name = $1 OR uri = $2
                 ORDER BY updated_at DESC, id DESC LIMIT 1";
    fetch_optional(client, query, &[&name, &uri]).await
}

/// Ids of the assets with these names, or of all assets, by name and URI.
pub async fn ids(client: &impl GenericClient, names: Option<&[&str]>) -> Result<HashMap<(String, String), i64>> {
    let query = "SELECT name, uri, id FROM asset WHERE $1::text[] IS NULL OR name = ANY ($1)";
    let rows: Vec<(String, String, i64)> = fetch_all(client, query, &[&names]).await?;
    Ok(rows.into_iter().map(|(name, uri, id)| ((name, uri), id)).collect())
}

/// The assets that an alias has resolved to.
pub async fn of_alias(client: &impl GenericClient, alias: &str) -> Result<Vec<NamedAsset>> {
    let query = "SELECT a.id, a.name, a.uri, a.group_name, a.extra
                 FROM asset a JOIN asset_alias_asset link ON link.asset_id = a.id JOIN asset_alias l ON l.id = link.alias_id
                 WHERE l.name = $1 ORDER BY a.id";
    fetch_all(client, query, &[&alias]).await
}

/// Ids of the active DAGs with a task that produces the asset.
pub async fn producers(client: &impl GenericClient, id: i64) -> Result<Vec<String>> {
    let query = "SELECT DISTINCT d.dag_id FROM dag_asset d JOIN dag USING (dag_id) JOIN asset a ON a.id = $1
                 WHERE dag.is_active AND d.role = 'outlet' AND d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri";
    fetch_all(client, query, &[&id]).await
}

from_row! {
    /// An asset update that is queued for a DAG until the DAG's other assets are updated too.
    #[derive(Debug)]
    pub struct QueuedUpdate {
        pub dag_id: String,
        pub asset_id: i64,
        pub created_at: Timestamp,
    }
}

/// SQL condition for queued updates; a parameter that is NULL does not filter.
const QUEUED: &str = "WHERE ($1::text IS NULL OR dag_id = $1) AND ($2::bigint IS NULL OR asset_id = $2)
                      AND ($3::timestamptz IS NULL OR created_at < $3)";

/// The queued updates of a DAG or of an asset, created before `before`; `None` does not filter.
pub async fn queued(
    client: &impl GenericClient,
    dag_id: Option<&str>,
    asset_id: Option<i64>,
    before: Option<Timestamp>,
) -> Result<Vec<QueuedUpdate>> {
    let query = format!("SELECT dag_id, asset_id, created_at FROM asset_queue {QUEUED} ORDER BY created_at");
    fetch_all(client, &query, &[&dag_id, &asset_id, &before]).await
}

/// Deletes the updates that `queued` would return, and returns their number. The DAGs then wait for another update.
pub async fn forget_queued(
    client: &impl GenericClient,
    dag_id: Option<&str>,
    asset_id: Option<i64>,
    before: Option<Timestamp>,
) -> Result<u64> {
    let query = format!("DELETE FROM asset_queue {QUEUED}");
    Ok(client.execute(&query, &[&dag_id, &asset_id, &before]).await?)
}

const ALIAS: &str = "n.id, n.name, n.group_name";

/// A page of aliases: id, name and group.
pub async fn aliases(
    client: &impl GenericClient,
    listing: Listing<AliasField>,
) -> Result<ListPage<(i64, String, String)>> {
    listing.fetch(client, &Source::new(ALIAS, "asset_alias n")).await
}

pub async fn alias(client: &impl GenericClient, id: i64) -> Result<Option<(i64, String, String)>> {
    fetch_optional(client, &format!("SELECT {ALIAS} FROM asset_alias n WHERE n.id = $1"), &[&id]).await
}

/// A page of events with the total number of matches.
pub async fn events(client: &impl GenericClient, listing: Listing<AssetEventField>) -> Result<ListPage<AssetEvent>> {
    listing.fetch(client, &Source::new(EVENT_WITH_RUNS, EVENTS)).await
}

pub async fn event(client: &impl GenericClient, id: i64) -> Result<AssetEvent> {
    fetch_one(client, &format!("SELECT {EVENT_WITH_RUNS} FROM {EVENTS} WHERE e.id = $1"), &[&id]).await
}

/// Whether an event is read with all the runs that it triggered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CreatedRuns {
    Read,
    LeaveOut,
}

/// The events that triggered a run, oldest first.
pub async fn events_of_run(
    client: &impl GenericClient,
    run: &RunKey,
    created_runs: CreatedRuns,
) -> Result<Vec<AssetEvent>> {
    let fields = match created_runs {
        CreatedRuns::Read => EVENT_WITH_RUNS,
        CreatedRuns::LeaveOut => EVENT,
    };
    let query = format!(
        "SELECT {fields} FROM {EVENTS} JOIN dag_run_asset_event c ON c.event_id = e.id WHERE c.dag_id = $1 AND c.run_id = $2
         ORDER BY e.happened_at, e.id"
    );
    fetch_all(client, &query, &[&run.dag_id, &run.run_id]).await
}

/// All events of the asset or alias that a task reads, oldest first, without the triggered runs.
pub async fn events_of(client: &impl GenericClient, reference: &Reference<'_>) -> Result<Vec<AssetEvent>> {
    let (kind, name, uri) = reference.columns();
    let query = format!(
        "SELECT {EVENT} FROM {EVENTS} WHERE CASE $1 WHEN 'asset' THEN a.name = $2 AND a.uri = $3 WHEN 'name' THEN a.name = $2
                               WHEN 'uri' THEN a.uri = $3 ELSE $2 = ANY (e.aliases) END ORDER BY e.happened_at, e.id"
    );
    fetch_all(client, &query, &[&kind, &name, &uri]).await
}

list_fields! {
    /// Fields of assets, for lists.
    AssetField, key: [Id], filter: AssetFilter;
    Id = whole("a.id"),
    Name = text("a.name"),
    Uri = text("a.uri"),
    CreatedAt = time("a.created_at"),
    UpdatedAt = time("a.updated_at"),
    Group = text("a.group_name"),
    LastEvent = time("(SELECT max(happened_at) FROM asset_event WHERE asset_id = a.id)"),
}

/// Filters of assets.
#[derive(Debug, Default)]
pub struct AssetFilter {
    /// Selects the assets that one of these DAGs, or one of their tasks, references; an empty list selects every asset.
    pub dag_ids: Vec<String>,
    pub used_by: UsedBy,
    /// Whether the asset must have an event, or none.
    pub has_events: Option<bool>,
}

/// Whether an active DAG must reference an asset.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum UsedBy {
    #[default]
    Any,
    /// An active DAG, or one of its tasks, references the asset, and no older asset conflicts with it.
    ActiveDag,
}

/// SQL condition: the row `d` of `dag_asset` references the asset `a`.
const REFERENCES: &str =
    "(d.kind = 'asset' AND d.name = a.name AND d.uri = a.uri OR d.kind = 'name' AND d.name = a.name
    OR d.kind = 'uri' AND d.uri = a.uri)";

/// SQL conditions: an older asset `o` that an active DAG references has the same name as the asset `a` (first
/// condition) or the same URI (second condition). As in Airflow, only the oldest asset with a name or URI is active.
pub(crate) const CONFLICTS: [&str; 2] = [
    "o.id < a.id AND o.name = a.name AND EXISTS (
         SELECT FROM dag_asset od JOIN dag og ON og.dag_id = od.dag_id
         WHERE og.is_active AND od.kind = 'asset' AND od.name = o.name AND od.uri = o.uri)",
    "o.id < a.id AND o.uri = a.uri AND EXISTS (
         SELECT FROM dag_asset od JOIN dag og ON og.dag_id = od.dag_id
         WHERE og.is_active AND od.kind = 'asset' AND od.name = o.name AND od.uri = o.uri)",
];

/// The names and URIs of the assets among a task's inlets and outlets that are not active, because an older asset has
/// their name or URI.
pub async fn inactive_of_task(
    client: &impl GenericClient,
    dag_id: &str,
    task_id: &str,
) -> Result<Vec<(String, String)>> {
    let [same_name, same_uri] = CONFLICTS;
    let query = format!(
        "SELECT DISTINCT a.name, a.uri FROM dag_asset d JOIN asset a ON a.name = d.name AND a.uri = d.uri
         WHERE d.dag_id = $1 AND d.task_id = $2 AND d.role IN ('inlet', 'outlet') AND d.kind = 'asset'
           AND EXISTS (SELECT FROM asset o WHERE {same_name} OR {same_uri})
         ORDER BY a.name, a.uri"
    );
    fetch_all(client, &query, &[&dag_id, &task_id]).await
}

impl Filter for AssetFilter {
    fn add_to(self, conditions: &mut Conditions) {
        if !self.dag_ids.is_empty() {
            let used = "SELECT FROM dag_asset d WHERE d.dag_id = ANY ({}::text[])";
            conditions.with(&format!("EXISTS ({used} AND {REFERENCES})"), self.dag_ids);
        }
        conditions.maybe("EXISTS (SELECT FROM asset_event WHERE asset_id = a.id) = {}", self.has_events);
        if self.used_by == UsedBy::ActiveDag {
            let used = "SELECT FROM dag_asset d JOIN dag USING (dag_id) WHERE dag.is_active";
            conditions.add(&format!("EXISTS ({used} AND {REFERENCES})"), Vec::new());
            for conflict in CONFLICTS {
                conditions.add(&format!("NOT EXISTS (SELECT FROM asset o WHERE {conflict})"), Vec::new());
            }
        }
    }
}

list_fields! {
    /// Fields of asset aliases, for lists.
    AliasField, key: [Id];
    Id = whole("n.id"),
    Name = text("n.name"),
}

list_fields! {
    /// Fields of asset events, for lists.
    AssetEventField, key: [Id], filter: AssetEventFilter;
    Id = whole("e.id"),
    HappenedAt = time("e.happened_at"),
    AssetId = whole("e.asset_id"),
    AssetName = text("a.name"),
    SourceDagId = text("e.source_dag_id"),
    SourceTaskId = text("e.source_task_id"),
    SourceRunId = text("e.source_run_id"),
    SourceMapIndex = whole("e.source_map_index"),
    PartitionKey = text("e.partition_key"),
}

/// True if Postgres accepts a regular expression.
pub async fn is_pattern(client: &impl GenericClient, pattern: &str) -> bool {
    client.query_one("SELECT '' ~ $1", &[&pattern]).await.is_ok()
}

/// Filters of asset events.
#[derive(Debug, Default)]
pub struct AssetEventFilter {
    /// A regular expression.
    pub partition_key_matches: Option<String>,
    /// Fields that `extra` must have.
    pub extra: Option<Map<String, Value>>,
}

impl Filter for AssetEventFilter {
    fn add_to(self, conditions: &mut Conditions) {
        conditions.maybe("e.partition_key ~ {}", self.partition_key_matches);
        conditions.maybe("e.extra::jsonb @> {}", self.extra.map(Json));
    }
}

from_row! {
    /// An asset that a DAG waits for.
    #[derive(Debug)]
    pub struct AwaitedAsset {
        pub id: i64,
        pub name: String,
        pub uri: String,
        /// When an update of the asset was queued for the next run; `None` if the DAG still waits for one.
        pub queued_at: Option<Timestamp>,
    }
}

/// The assets in the schedule of a DAG.
pub async fn awaited(client: &impl GenericClient, dag_id: &str) -> Result<Vec<AwaitedAsset>> {
    let query = "
        SELECT DISTINCT a.id, a.name, a.uri, q.created_at AS queued_at
        FROM dag_asset d JOIN asset a
             ON CASE d.kind WHEN 'asset' THEN a.name = d.name AND a.uri = d.uri WHEN 'name' THEN a.name = d.name
                            WHEN 'uri' THEN a.uri = d.uri END
        LEFT JOIN asset_queue q ON q.asset_id = a.id AND q.dag_id = d.dag_id
        WHERE d.dag_id = $1 AND d.role = 'schedule' ORDER BY a.uri";
    fetch_all(client, query, &[&dag_id]).await
}

//! Assets in Postgres: their definitions, their events, and the runs that they trigger.

use super::partitions::{self, WAITS_FOR_PARTITIONS};
use crate::model::dag::Structure;
use crate::model::keys::{InstanceKey, Position, RunKey, TryKey};
use crate::schedule::asset_condition::{self, Reference, Updated};
use crate::schedule::timetable::Partition;
use crate::store::Result;
use crate::store::events::{self, Event};
use crate::store::instance_key::TRY;
use crate::store::rows::{self, execute, exists, fetch_all, fetch_one, fetch_optional, from_row};
use crate::store::run::new_run::{self, BELOW_MAX_ACTIVE_RUNS, NewRun};
use deadpool_postgres::{ClientWrapper, Transaction};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Map, Value};
use std::collections::BTreeSet;
use tokio_postgres::types::{Json, ToSql};

/// Saves the asset references of a DAG's current version: its schedule, and the inlets and outlets of its tasks.
pub(crate) async fn save_references(transaction: &Transaction<'_>, structure: &Structure) -> Result<()> {
    let mut references: Vec<(&str, &'static str, &Value)> = Vec::new();
    let mut scheduled = Vec::new();
    if let Some(condition) = &structure.asset_condition {
        asset_condition::references(condition, &mut scheduled);
    }
    references.extend(scheduled.into_iter().map(|value| ("", "schedule", value)));
    for task in &structure.tasks {
        references.extend(task.inlets.iter().map(|value| (task.task_id.as_str(), "inlet", value)));
        references.extend(task.outlets.iter().map(|value| (task.task_id.as_str(), "outlet", value)));
    }
    let mut rows = BTreeSet::new();
    for (task_id, role, value) in references {
        let Some(reference) = asset_condition::reference(value) else { continue };
        match reference {
            Reference::Asset { .. } => drop(save_asset(transaction, &value["asset"]).await?),
            Reference::Alias(name) => drop(save_alias(transaction, name).await?),
            _ => {}
        }
        let (kind, name, uri) = reference.columns();
        rows.insert((task_id.to_owned(), role, kind, name.to_owned(), uri.to_owned()));
    }
    let columns: [Vec<&str>; 5] = [
        rows.iter().map(|row| row.0.as_str()).collect(),
        rows.iter().map(|row| row.1).collect(),
        rows.iter().map(|row| row.2).collect(),
        rows.iter().map(|row| row.3.as_str()).collect(),
        rows.iter().map(|row| row.4.as_str()).collect(),
    ];
    let [tasks, roles, kinds, names, uris] = &columns;
    let query = "
        WITH declared AS (
                SELECT * FROM unnest($2::text[], $3::text[], $4::text[], $5::text[], $6::text[])
                     AS declared (task_id, role, kind, name, uri)),
             deleted AS (
                DELETE FROM dag_asset d WHERE dag_id = $1 AND NOT EXISTS (
                    SELECT FROM declared c
                    WHERE (d.task_id, d.role, d.kind, d.name, d.uri) = (c.task_id, c.role, c.kind, c.name, c.uri)))
        INSERT INTO dag_asset (dag_id, task_id, role, kind, name, uri)
        SELECT $1, task_id, role, kind, name, uri FROM declared ON CONFLICT DO NOTHING";
    execute(transaction, query, &[&structure.dag_id, tasks, roles, kinds, names, uris]).await
}

/// Creates or updates an asset and returns its id.
async fn save_asset(client: &impl GenericClient, asset: &Value) -> Result<i64> {
    let text = |name: &str| asset.get(name).and_then(Value::as_str).unwrap_or_default().to_owned();
    let group = asset.get("group").and_then(Value::as_str).unwrap_or("asset");
    let extra = asset.get("extra").cloned().unwrap_or_else(|| Value::Object(Map::new()));
    let query = "
        INSERT INTO asset (name, uri, group_name, extra) VALUES ($1, $2, $3, $4)
        ON CONFLICT (name, uri) DO UPDATE SET group_name = EXCLUDED.group_name, extra = EXCLUDED.extra,
            updated_at = CASE WHEN (asset.group_name, asset.extra) = (EXCLUDED.group_name, EXCLUDED.extra)
                              THEN asset.updated_at ELSE now() END
        RETURNING id";
    fetch_one(client, query, &[&text("name"), &text("uri"), &group, &Json(extra)]).await
}

/// Creates an alias if it does not exist, and returns its id.
async fn save_alias(client: &impl GenericClient, name: &str) -> Result<i64> {
    let query = "INSERT INTO asset_alias (name) VALUES ($1) ON CONFLICT (name) DO UPDATE SET name = EXCLUDED.name
                 RETURNING id";
    fetch_one(client, query, &[&name]).await
}

/// Finds the id of the asset that a reference names; `None` for an alias.
async fn find_asset(client: &impl GenericClient, reference: &Reference<'_>) -> Result<Option<i64>> {
    let (kind, name, uri) = reference.columns();
    let query = "SELECT id FROM asset WHERE CASE $1 WHEN 'asset' THEN name = $2 AND uri = $3 WHEN 'name' THEN name = $2
                                                     WHEN 'uri' THEN uri = $3 ELSE false END ORDER BY id LIMIT 1";
    fetch_optional(client, query, &[&kind, &name, &uri]).await
}

/// Adds the asset events that a successful try has reported.
pub(crate) async fn save_events(transaction: &Transaction<'_>, key: &TryKey) -> Result<()> {
    let query = format!(
        "SELECT t.asset_events, r.partition_key, r.partition_date
         FROM task_try t JOIN dag_run r ON (r.dag_id, r.run_id) = (t.dag_id, t.run_id) WHERE {}",
        TRY.is("t", 1)
    );
    let Some(row) = transaction.query_opt(&query, &key.after(&[])).await? else { return Ok(()) };
    let Some(Value::Array(reported)) = rows::get(&row, "asset_events")? else { return Ok(()) };
    let run_partition = partitions::read(&row)?;
    for event in &reported {
        let alias = event.get("alias").and_then(Value::as_str);
        let asset = match event.get("asset") {
            Some(asset) => Some(save_asset(transaction, asset).await?),
            None => match asset_condition::reference(event) {
                Some(reference) => find_asset(transaction, &reference).await?,
                None => None,
            },
        };
        let Some(asset) = asset else { continue };
        let aliases: Vec<&str> = alias.into_iter().collect();
        if let Some(alias) = alias {
            let alias = save_alias(transaction, alias).await?;
            let link = "INSERT INTO asset_alias_asset (alias_id, asset_id) VALUES ($1, $2) ON CONFLICT DO NOTHING";
            transaction.execute(link, &[&alias, &asset]).await?;
        }
        let extra = event.get("extra").cloned().unwrap_or_else(|| Value::Object(Map::new()));
        // A task may report another partition than that of its run.
        let task_partition = event.get("partition_key").and_then(Value::as_str);
        let partition = match (task_partition, &run_partition) {
            (Some(key), Some(run_partition)) if key == run_partition.key => Some(run_partition.clone()),
            (Some(key), _) => Some(Partition { key: key.to_owned(), date: None }),
            (None, run_partition) => run_partition.clone(),
        };
        add_event(transaction, asset, &extra, Some(&key.instance), &aliases, partition.as_ref()).await?;
    }
    Ok(())
}

/// Adds an event of the asset with the id `asset`, and queues it for the DAGs that wait for it. `source` is the task
/// instance that reported it, if any. Returns the event's id.
pub async fn add_event(
    transaction: &Transaction<'_>,
    asset: i64,
    extra: &Value,
    source: Option<&InstanceKey>,
    aliases: &[&str],
    partition: Option<&Partition>,
) -> Result<i64> {
    let run = source.map(|source| &source.run);
    let (dag_id, run_id) = run.map(|run| (run.dag_id.as_str(), run.run_id.as_str())).unzip();
    let (task_id, position) =
        source.map_or((None, Position::ONLY), |source| (Some(source.task_id.as_str()), source.position));
    let query = "
        INSERT INTO asset_event (asset_id, extra, source_dag_id, source_run_id, source_task_id, source_map_index, aliases,
                                 partition_key)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
    let key = partition.map(|partition| &partition.key);
    let parameters: [&(dyn ToSql + Sync); 8] =
        [&asset, &Json(extra), &dag_id, &run_id, &task_id, &position, &aliases, &key];
    let event = fetch_one(transaction, query, &parameters).await?;
    // As in Airflow, paused DAGs do not receive events; an event with a partition goes only to DAGs that wait for
    // partitions.
    let query = format!(
        "SELECT DISTINCT s.dag_id, coalesce({WAITS_FOR_PARTITIONS}, false) AS waits_for_partitions,
                coalesce((v.structure->>'run_for_each_asset_event')::boolean, false) AS runs_for_each FROM asset a
        JOIN dag_asset s ON s.role = 'schedule' AND (
            s.kind = 'asset' AND s.name = a.name AND s.uri = a.uri OR s.kind = 'name' AND s.name = a.name
            OR s.kind = 'uri' AND s.uri = a.uri
            OR s.kind = 'alias' AND EXISTS (SELECT FROM asset_alias_asset l JOIN asset_alias n ON n.id = l.alias_id
                                            WHERE n.name = s.name AND l.asset_id = a.id))
        JOIN dag d ON d.dag_id = s.dag_id AND d.is_active AND NOT d.is_paused AND NOT d.is_draining
        JOIN dag_version v ON v.id = d.current_version_id
        WHERE a.id = $1"
    );
    let dags: Vec<(String, bool, bool)> = fetch_all(transaction, &query, &[&asset]).await?;
    let (partitioned, unpartitioned): (Vec<_>, Vec<_>) = dags.into_iter().partition(|dag| dag.1);
    if partition.is_none() {
        let (dag_ids, for_each): (Vec<String>, Vec<bool>) =
            unpartitioned.into_iter().map(|(dag_id, _, for_each)| (dag_id, for_each)).unzip();
        let queue = "INSERT INTO asset_queue (asset_id, dag_id, events)
                     SELECT $1, dag_id, CASE WHEN for_each THEN ARRAY[$4::bigint] ELSE '{}' END
                     FROM unnest($2::text[], $3::boolean[]) AS d (dag_id, for_each)
                     ON CONFLICT (asset_id, dag_id) DO UPDATE
                     SET created_at = EXCLUDED.created_at, events = asset_queue.events || EXCLUDED.events";
        transaction.execute(queue, &[&asset, &dag_ids, &for_each, &event]).await?;
    }
    let partitioned: Vec<String> = partitioned.into_iter().map(|(dag_id, ..)| dag_id).collect();
    partitions::queue(transaction, asset, event, partition, &partitioned).await?;
    events::notify(transaction, &Event::Assets).await?;
    Ok(event)
}

from_row! {
    /// An asset with an update that is queued for a DAG.
    struct QueuedAsset {
        name: String,
        uri: String,
        created_at: Timestamp,
        aliases: Vec<String>,
    }
}

/// SQL condition on the version `v` of a DAG: true if its runs are due at times, and wait for its assets.
const WAITS_AT_TIMES: &str = "v.structure->'timetable'->>'kind' = 'asset_and_time'";

/// Creates the runs of each DAG whose asset condition is met.
pub(crate) async fn make_runs(client: &mut ClientWrapper) -> Result<()> {
    let transaction = client.transaction().await?;
    let query = format!(
        "
        SELECT d.dag_id, v.id, v.structure FROM dag d JOIN dag_version v ON v.id = d.current_version_id
        WHERE d.is_active AND NOT d.is_paused AND NOT d.is_draining AND EXISTS (SELECT FROM asset_queue q WHERE q.dag_id = d.dag_id)
          AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
          AND ({WAITS_AT_TIMES}) IS NOT TRUE AND {BELOW_MAX_ACTIVE_RUNS}
        ORDER BY d.dag_id FOR UPDATE OF d SKIP LOCKED"
    );
    for row in transaction.query(&query, &[]).await? {
        let Json(structure): Json<Structure> = row.get("structure");
        let Some(newest) = newest_update(&transaction, &structure).await? else { continue };
        match structure.run_for_each_asset_event {
            true => make_runs_of_events(&transaction, &structure, row.get("id"), newest).await?,
            false => make_run(&transaction, &structure, row.get("id"), newest).await?,
        }
    }
    transaction.commit().await?;
    Ok(())
}

/// The time of the newest update that is queued for a DAG, if the updates meet its asset condition.
pub(crate) async fn newest_update(client: &impl GenericClient, structure: &Structure) -> Result<Option<Timestamp>> {
    let Some(condition) = &structure.asset_condition else { return Ok(None) };
    let queued = "
        SELECT a.name, a.uri, q.created_at,
               coalesce(array_agg(n.name) FILTER (WHERE n.name IS NOT NULL), '{}') AS aliases
        FROM asset_queue q JOIN asset a ON a.id = q.asset_id
        LEFT JOIN asset_alias_asset l ON l.asset_id = a.id LEFT JOIN asset_alias n ON n.id = l.alias_id
        WHERE q.dag_id = $1 GROUP BY a.name, a.uri, q.created_at";
    let queued: Vec<QueuedAsset> = fetch_all(client, queued, &[&structure.dag_id]).await?;
    let updated: Vec<Updated<'_>> =
        queued.iter().map(|QueuedAsset { name, uri, aliases, .. }| Updated { name, uri, aliases }).collect();
    let newest = queued.iter().map(|asset| asset.created_at).max();
    Ok(newest.filter(|_| asset_condition::is_met_by(condition, &updated)))
}

/// Creates the run of a DAG with the asset events that triggered it. `newest` is the time of the DAG's newest queued
/// update.
async fn make_run(
    transaction: &Transaction<'_>,
    structure: &Structure,
    version_id: i64,
    newest: Timestamp,
) -> Result<()> {
    let run = NewRun::of_assets(&structure.dag_id, version_id, newest, None);
    if new_run::insert(transaction, &run, structure).await? {
        let events = unread_events(transaction, structure, newest).await?;
        add_events_to_run(transaction, &run.key, events.iter().map(|(id, _)| *id).collect()).await?;
    }
    forget_updates(transaction, &structure.dag_id, newest).await
}

/// Creates a run of a DAG for each queued event, while the DAG is below its `max_active_runs`. As on Airflow, with
/// catchup also for the events that happened before the DAG began to wait or while it was paused.
async fn make_runs_of_events(
    transaction: &Transaction<'_>,
    structure: &Structure,
    version_id: i64,
    newest: Timestamp,
) -> Result<()> {
    let dag_id = &structure.dag_id;
    let queued = "SELECT e.id, e.happened_at FROM asset_queue q, unnest(q.events) AS waiting (id)
                  JOIN asset_event e USING (id) WHERE q.dag_id = $1 ORDER BY e.happened_at, e.id";
    let mut events: Vec<(i64, Timestamp)> = fetch_all(transaction, queued, &[dag_id]).await?;
    if events.is_empty() || structure.catchup {
        // The updates of an earlier version of the DAG have no events.
        events = unread_events(transaction, structure, newest).await?;
    }
    let has_room = format!(
        "SELECT FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.dag_id = $1 AND {BELOW_MAX_ACTIVE_RUNS}"
    );
    for (event, happened_at) in events {
        if !exists(transaction, &has_room, &[dag_id]).await? {
            return Ok(());
        }
        let run = NewRun::of_assets(dag_id, version_id, happened_at, None);
        if new_run::insert(transaction, &run, structure).await? {
            add_events_to_run(transaction, &run.key, vec![event]).await?;
        }
        let read = "UPDATE asset_queue SET events = array_remove(events, $2) WHERE dag_id = $1 AND $2 = ANY (events)";
        transaction.execute(read, &[dag_id, &event]).await?;
    }
    forget_updates(transaction, dag_id, newest).await
}

/// Adds the asset events that a scheduled run has waited for to the run. `newest` is the time of the newest update.
pub(crate) async fn read_events(
    transaction: &Transaction<'_>,
    structure: &Structure,
    run: &RunKey,
    newest: Timestamp,
) -> Result<()> {
    let events = unread_events(transaction, structure, newest).await?;
    add_events_to_run(transaction, run, events.iter().map(|(id, _)| *id).collect()).await?;
    forget_updates(transaction, &structure.dag_id, newest).await
}

/// The events, oldest first, with their times, that no run of the DAG has read: those since the newest run with events.
/// For the first run, those since the DAG began to wait for its assets or, with catchup, all.
async fn unread_events(
    transaction: &Transaction<'_>,
    structure: &Structure,
    newest: Timestamp,
) -> Result<Vec<(i64, Timestamp)>> {
    let query = "
        WITH last AS (
            SELECT max(e.happened_at) AS read_to FROM dag_run_asset_event l JOIN asset_event e ON e.id = l.event_id
            WHERE l.dag_id = $1 AND l.run_id = (
                SELECT r.run_id FROM dag_run r
                WHERE r.dag_id = $1 AND r.run_type IN ('asset_triggered', 'scheduled') AND r.run_after < $2
                  AND EXISTS (SELECT FROM dag_run_asset_event o WHERE o.dag_id = r.dag_id AND o.run_id = r.run_id)
                ORDER BY r.run_after DESC LIMIT 1))
        SELECT DISTINCT e.id, e.happened_at FROM dag_asset s
        JOIN asset a ON s.kind = 'asset' AND s.name = a.name AND s.uri = a.uri OR s.kind = 'name' AND s.name = a.name
             OR s.kind = 'uri' AND s.uri = a.uri
             OR s.kind = 'alias' AND EXISTS (SELECT FROM asset_alias_asset l JOIN asset_alias n ON n.id = l.alias_id
                                             WHERE n.name = s.name AND l.asset_id = a.id)
        JOIN asset_event e ON e.asset_id = a.id
        WHERE s.dag_id = $1 AND s.role = 'schedule' AND e.happened_at <= $2
          AND e.happened_at >= coalesce(
              (SELECT read_to FROM last),
              CASE WHEN $3 THEN '-infinity'::timestamptz
                   ELSE (SELECT min(created_at) FROM dag_asset WHERE dag_id = $1 AND role = 'schedule') END)
          AND NOT EXISTS (SELECT FROM dag_run_asset_event l WHERE l.dag_id = $1 AND l.event_id = e.id)
        ORDER BY e.happened_at, e.id";
    fetch_all(transaction, query, &[&structure.dag_id, &newest, &structure.catchup]).await
}

async fn add_events_to_run(transaction: &Transaction<'_>, run: &RunKey, events: Vec<i64>) -> Result<()> {
    let query = "INSERT INTO dag_run_asset_event (dag_id, run_id, event_id) SELECT $1, $2, unnest($3::bigint[])";
    execute(transaction, query, &[&run.dag_id, &run.run_id, &events]).await
}

/// Removes the updates that runs have read. Those that were queued after `newest` belong to the next run.
async fn forget_updates(transaction: &Transaction<'_>, dag_id: &str, newest: Timestamp) -> Result<()> {
    execute(transaction, "DELETE FROM asset_queue WHERE dag_id = $1 AND created_at <= $2", &[&dag_id, &newest]).await
}

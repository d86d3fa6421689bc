//! Partitions of assets in Postgres: the runs that are to be for them, and what has come in for each.

use super::StoreError;
use super::new_run::{self, NewRun};
use crate::engine::dag::Structure;
use crate::engine::keys::RunKey;
use crate::engine::schedule::asset_condition::{self, Updated};
use crate::engine::schedule::partition_mapper::Mappers;
use crate::engine::schedule::timetable::{Partition, Timetable};
use crate::postgres::GenericClient;
use deadpool_postgres::{ClientWrapper, Transaction};
use jiff::Timestamp;
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use tracing::{info, warn};

/// In SQL, of the version `v` of a DAG: whether it waits for partitions.
pub const WAITS_FOR_PARTITIONS: &str = "v.structure->'timetable'->>'kind' = 'partitioned_asset'";

/// What a DAG waits for: with another definition there is nothing to go on with. How its assets are described otherwise,
/// and whether it waits for all of them, is no part of it.
fn definition(timetable: &Value, condition: &Value) -> Value {
    let mut found = Vec::new();
    asset_condition::references(condition, &mut found);
    let mut assets: Vec<_> =
        found.into_iter().filter_map(asset_condition::reference).map(|one| one.columns()).collect();
    assets.sort_unstable();
    json!([timetable, assets])
}

/// That of a run, of a row with its columns.
pub fn read(row: &Row) -> Option<Partition> {
    let key: Option<String> = row.get("partition_key");
    key.map(|key| Partition { key, date: row.get("partition_date") })
}

/// Which runs of a DAG are meant.
#[derive(Debug)]
pub enum Which {
    Run(String),
    /// Those of a partition.
    Key(String),
    /// Those whose partitions begin from one moment to another, both included.
    Window(Option<Timestamp>, Option<Timestamp>),
}

#[derive(Debug)]
pub struct PartitionedRun {
    pub key: RunKey,
    /// Whether it is of one still.
    pub has_partition: bool,
}

/// In the order of their partitions.
pub async fn runs(client: &impl GenericClient, dag_id: &str, which: &Which) -> Result<Vec<PartitionedRun>, StoreError> {
    let (run_id, partition, from, to) = match which {
        Which::Run(id) => (Some(id), None, None, None),
        Which::Key(key) => (None, Some(key), None, None),
        Which::Window(from, to) => (None, None, *from, *to),
    };
    let query = "
        SELECT run_id, partition_key IS NOT NULL OR partition_date IS NOT NULL FROM dag_run
        WHERE dag_id = $1 AND CASE WHEN $2::text IS NOT NULL THEN run_id = $2
                                   WHEN $3::text IS NOT NULL THEN partition_key = $3
                                   ELSE partition_date IS NOT NULL AND ($4::timestamptz IS NULL OR partition_date >= $4)
                                        AND ($5::timestamptz IS NULL OR partition_date <= $5) END
        ORDER BY partition_date, run_id";
    let rows = client.query(query, &[&dag_id, &run_id, &partition, &from, &to]).await?;
    let one = |row: &Row| PartitionedRun {
        key: RunKey { dag_id: dag_id.to_owned(), run_id: row.get(0) },
        has_partition: row.get(1),
    };
    Ok(rows.iter().map(one).collect())
}

/// From now on the run is of no partition.
pub async fn forget(client: &impl GenericClient, key: &RunKey) -> Result<(), StoreError> {
    let query = "UPDATE dag_run SET partition_key = NULL, partition_date = NULL WHERE dag_id = $1 AND run_id = $2";
    client.execute(query, &[&key.dag_id, &key.run_id]).await?;
    Ok(())
}

/// Notes an event for the runs that its partition is for. `dag_ids` wait for partitions of the asset.
pub async fn queue(
    transaction: &Transaction<'_>,
    asset: i64,
    event: i64,
    partition: Option<&Partition>,
    dag_ids: &[String],
) -> Result<(), StoreError> {
    let Some(partition) = partition else {
        if !dag_ids.is_empty() {
            warn!("an asset that {} wait for by partitions was updated by a run without one", dag_ids.join(", "));
        }
        return Ok(());
    };
    if dag_ids.is_empty() {
        return Ok(());
    }
    // Events that are written at the same time take turns: each may be for several keys of several DAGs.
    transaction.query("SELECT pg_advisory_xact_lock(hashtextextended('asset_partition', 0))", &[]).await?;
    let query = "
        SELECT d.dag_id, v.structure->'timetable', v.structure->'asset_condition', (SELECT name FROM asset WHERE id = $2)
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.dag_id = ANY ($1)";
    for row in transaction.query(query, &[&dag_ids, &asset]).await? {
        let (dag_id, asset_name): (String, String) = (row.get(0), row.get(3));
        let (timetable, condition): (Option<Json<Value>>, Option<Json<Value>>) = (row.get(1), row.get(2));
        let (Some(Json(timetable)), Some(Json(condition))) = (timetable, condition) else { continue };
        let definition = definition(&timetable, &condition);
        let Ok(Timetable::PartitionedAsset(mappers)) = serde_json::from_value(timetable) else { continue };
        let keys = match mappers.limited(&asset_name).to_downstream(&partition.key) {
            Ok(keys) => keys,
            Err(error) => {
                warn!("no run of {dag_id} is for partition {:?} of asset {asset_name:?}: {error}", partition.key);
                continue;
            }
        };
        let date = partition.date.filter(|_| mappers.of(&asset_name).carries_date());
        note(transaction, &dag_id, &keys, date, &definition, event).await?;
    }
    Ok(())
}

/// Two events that carry another date each leave none.
async fn note(
    transaction: &Transaction<'_>,
    dag_id: &str,
    keys: &[String],
    date: Option<Timestamp>,
    definition: &Value,
    event: i64,
) -> Result<(), StoreError> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    // What came in for another definition is no beginning.
    let outdated = "DELETE FROM asset_partition WHERE dag_id = $1 AND partition_key = ANY ($2) AND definition <> $3";
    transaction.execute(outdated, &[&dag_id, &keys, &Json(definition)]).await?;
    let query = "
        WITH awaited AS (
            INSERT INTO asset_partition AS p (dag_id, partition_key, partition_date, definition)
            SELECT $1, key, $3, $4 FROM unnest($2::text[]) AS keys (key)
            ON CONFLICT (dag_id, partition_key) DO UPDATE SET has_news = true, partition_date = CASE
                WHEN p.partition_date IS NULL THEN EXCLUDED.partition_date
                WHEN EXCLUDED.partition_date IS NULL OR EXCLUDED.partition_date = p.partition_date THEN p.partition_date
                END
            RETURNING id)
        INSERT INTO asset_partition_event (partition_id, event_id) SELECT id, $5 FROM awaited";
    transaction.execute(query, &[&dag_id, &keys, &date, &Json(definition), &event]).await?;
    Ok(())
}

/// A run that is to be, with what has come in for it.
struct Awaited {
    id: i64,
    partition: Partition,
    assets: BTreeMap<(String, String), Arrived>,
}

#[derive(Default)]
struct Arrived {
    keys: BTreeSet<String>,
    aliases: Vec<String>,
}

/// Partitions that are looked at in one transaction.
const AT_ONCE: usize = 100;

/// Makes the run of each partition for which all has come in. Returns whether there may be more to look at.
pub async fn make_runs(client: &mut ClientWrapper) -> Result<bool, StoreError> {
    let transaction = client.transaction().await?;
    let query = format!(
        "SELECT d.current_version_id, p.id, p.partition_key, p.partition_date, p.definition
         FROM asset_partition p JOIN dag d USING (dag_id)
         WHERE p.has_news AND d.is_active AND d.current_version_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
         ORDER BY p.id LIMIT {AT_ONCE} FOR UPDATE OF p SKIP LOCKED"
    );
    let rows = transaction.query(&query, &[]).await?;
    let mut versions: HashMap<i64, (Structure, Value)> = HashMap::new();
    let (mut done, mut outdated) = (Vec::new(), 0);
    for row in &rows {
        let (version_id, id): (i64, i64) = (row.get(0), row.get(1));
        let (structure, wanted) = match versions.entry(version_id) {
            Entry::Occupied(known) => known.into_mut(),
            Entry::Vacant(new) => new.insert(version(&transaction, version_id).await?),
        };
        let Json(definition): Json<Value> = row.get(4);
        let Some(Timetable::PartitionedAsset(mappers)) = structure.timetable.as_ref().filter(|_| definition == *wanted)
        else {
            outdated += 1;
            done.push(id);
            continue;
        };
        let partition = Partition { key: row.get(2), date: row.get(3) };
        let awaited = Awaited { id, partition, assets: arrived(&transaction, id).await? };
        if is_complete(structure, mappers, &awaited) {
            make_run(&transaction, structure, version_id, mappers, &awaited).await?;
            done.push(id);
        }
    }
    if outdated > 0 {
        info!("{outdated} partitions are no longer waited for: their DAGs wait for others now");
    }
    transaction.execute("DELETE FROM asset_partition WHERE id = ANY ($1)", &[&done]).await?;
    let looked_at: Vec<i64> = rows.iter().map(|row| row.get(1)).collect();
    let seen = "UPDATE asset_partition SET has_news = false WHERE id = ANY ($1)";
    transaction.execute(seen, &[&looked_at]).await?;
    transaction.commit().await?;
    Ok(rows.len() == AT_ONCE)
}

/// The structure of a version, and what it waits for.
async fn version(client: &impl GenericClient, id: i64) -> Result<(Structure, Value), StoreError> {
    let query = "SELECT structure, structure->'timetable', structure->'asset_condition' FROM dag_version WHERE id = $1";
    let row = client.query_one(query, &[&id]).await?;
    let condition = row.get::<_, Option<Json<Value>>>(2).map_or(Value::Null, |Json(condition)| condition);
    let timetable = row.get::<_, Option<Json<Value>>>(1).map_or(Value::Null, |Json(timetable)| timetable);
    let Json(structure) = row.get(0);
    Ok((structure, definition(&timetable, &condition)))
}

async fn arrived(client: &impl GenericClient, id: i64) -> Result<BTreeMap<(String, String), Arrived>, StoreError> {
    let query = "
        SELECT a.name, a.uri, e.partition_key, e.aliases
        FROM asset_partition_event p JOIN asset_event e ON e.id = p.event_id JOIN asset a ON a.id = e.asset_id
        WHERE p.partition_id = $1 AND e.partition_key IS NOT NULL";
    let mut assets: BTreeMap<(String, String), Arrived> = BTreeMap::new();
    for row in client.query(query, &[&id]).await? {
        let one = assets.entry((row.get(0), row.get(1))).or_default();
        one.keys.insert(row.get(2));
        one.aliases.extend(row.get::<_, Vec<String>>(3));
    }
    Ok(assets)
}

fn is_complete(structure: &Structure, mappers: &Mappers, awaited: &Awaited) -> bool {
    let has_all = |name: &str, keys: &BTreeSet<String>| {
        let (dag_id, key) = (&structure.dag_id, &awaited.partition.key);
        match mappers.of(name).expected(key) {
            Ok(None) => true,
            Ok(Some((expected, wait))) => wait.is_over(keys, &expected).unwrap_or_else(|| {
                warn!(
                    "{dag_id} never has a run of {key:?}: asset {name:?} has {} partitions, and more are wanted",
                    expected.len()
                );
                false
            }),
            Err(error) => {
                warn!("what {dag_id} waits for before its run of {key:?} cannot be worked out: {error}");
                false
            }
        }
    };
    let updated: Vec<Updated<'_>> = awaited
        .assets
        .iter()
        .filter(|((name, _), arrived)| has_all(name, &arrived.keys))
        .map(|((name, uri), arrived)| Updated { name, uri, aliases: &arrived.aliases })
        .collect();
    structure.asset_condition.as_ref().is_some_and(|condition| asset_condition::is_met_by(condition, &updated))
}

async fn make_run(
    transaction: &Transaction<'_>,
    structure: &Structure,
    version_id: i64,
    mappers: &Mappers,
    awaited: &Awaited,
) -> Result<(), StoreError> {
    let dag_id = &structure.dag_id;
    let names: Vec<&str> = awaited.assets.keys().map(|(name, _)| name.as_str()).collect();
    let date = match mappers.dates(&names, &awaited.partition.key) {
        Ok(dates) if dates.is_empty() => awaited.partition.date,
        Ok(dates) => dates.first().filter(|_| dates.len() == 1).copied(),
        Err(_) => None,
    };
    let partition = Partition { key: awaited.partition.key.clone(), date };
    let run = NewRun::of_assets(dag_id, version_id, new_run::now(), Some(&partition));
    if new_run::insert(transaction, &run, structure).await? {
        let events = "INSERT INTO dag_run_asset_event (dag_id, run_id, event_id)
                      SELECT $1, $2, event_id FROM asset_partition_event WHERE partition_id = $3";
        transaction.execute(events, &[dag_id, &run.key.run_id, &awaited.id]).await?;
    }
    Ok(())
}

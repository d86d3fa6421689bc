//! Asset partitions in Postgres. A pending run is a future run for one partition that still waits for asset events; the
//! table `asset_partition` stores it, `asset_partition_event` the events that have arrived.

use crate::model::dag::Structure;
use crate::model::keys::RunKey;
use crate::schedule::asset_condition::{self, Updated};
use crate::schedule::partition_mapper::{Mapper, Mappers};
use crate::schedule::timetable::{Partition, Timetable};
use crate::store::Result;
use crate::store::rows::{execute, fetch_all, from_row, get};
use crate::store::run::new_run::{self, NewRun};
use deadpool_postgres::{ClientWrapper, Transaction};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::{Value, json};
use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet, HashMap};
use tokio_postgres::Row;
use tokio_postgres::types::Json;
use tracing::{info, warn};

/// SQL condition on the version `v` of a DAG: true if it waits for partitions.
pub(crate) const WAITS_FOR_PARTITIONS: &str = "v.structure->'timetable'->>'kind' = 'partitioned_asset'";

/// The part of a DAG's definition that its pending runs depend on: the timetable and the referenced assets, but not
/// other attributes of the assets, and not whether the condition requires all of them. When this part changes, the
/// pending runs are dropped.
fn definition(timetable: &Value, condition: &Value) -> Value {
    let mut references = Vec::new();
    asset_condition::references(condition, &mut references);
    let mut assets: Vec<_> =
        references.into_iter().filter_map(asset_condition::reference).map(|reference| reference.columns()).collect();
    assets.sort_unstable();
    json!([timetable, assets])
}

/// Reads a run's partition from a row with its columns.
pub(crate) fn read(row: &Row) -> Result<Option<Partition>> {
    let (key, date): (Option<String>, _) = (get(row, "partition_key")?, get(row, "partition_date")?);
    Ok(key.map(|key| Partition { key, date }))
}

/// Selects runs of a DAG by id or by partition.
#[derive(Debug)]
pub enum RunSelector {
    Run(String),
    /// The runs of a partition key.
    Key(String),
    /// The runs whose partition dates are in this range, bounds included.
    Window(Option<Timestamp>, Option<Timestamp>),
}

from_row! {
    #[derive(Debug)]
    pub struct PartitionedRun {
        pub key: RunKey => RunKey::from_row,
        /// False if the run never had a partition, or [`forget`] has removed it.
        pub has_partition: bool,
    }
}

/// The selected runs, ordered by partition date.
pub async fn runs(client: &impl GenericClient, dag_id: &str, selector: &RunSelector) -> Result<Vec<PartitionedRun>> {
    let (run_id, partition, from, to) = match selector {
        RunSelector::Run(id) => (Some(id), None, None, None),
        RunSelector::Key(key) => (None, Some(key), None, None),
        RunSelector::Window(from, to) => (None, None, *from, *to),
    };
    let query = "
        SELECT dag_id, run_id, partition_key IS NOT NULL OR partition_date IS NOT NULL AS has_partition FROM dag_run
        WHERE dag_id = $1 AND CASE WHEN $2::text IS NOT NULL THEN run_id = $2
                                   WHEN $3::text IS NOT NULL THEN partition_key = $3
                                   ELSE partition_date IS NOT NULL AND ($4::timestamptz IS NULL OR partition_date >= $4)
                                        AND ($5::timestamptz IS NULL OR partition_date <= $5) END
        ORDER BY partition_date, run_id";
    fetch_all(client, query, &[&dag_id, &run_id, &partition, &from, &to]).await
}

/// Removes the partition of a run.
pub async fn forget(client: &impl GenericClient, key: &RunKey) -> Result<()> {
    let query = "UPDATE dag_run SET partition_key = NULL, partition_date = NULL WHERE dag_id = $1 AND run_id = $2";
    execute(client, query, &[&key.dag_id, &key.run_id]).await
}

/// Adds an asset event to the pending runs that its partition maps to. `asset` and `event` are ids; `dag_ids` are the
/// DAGs that wait for partitions of the asset.
pub async fn queue(
    transaction: &Transaction<'_>,
    asset: i64,
    event: i64,
    partition: Option<&Partition>,
    dag_ids: &[String],
) -> Result<()> {
    let Some(partition) = partition else {
        if !dag_ids.is_empty() {
            warn!("an asset whose partitions {} wait for was updated without a partition", dag_ids.join(", "));
        }
        return Ok(());
    };
    if dag_ids.is_empty() {
        return Ok(());
    }
    // Serializes concurrent writers, since one event may affect several keys of several DAGs.
    transaction.query("SELECT pg_advisory_xact_lock(hashtextextended('asset_partition', 0))", &[]).await?;
    let query = "
        SELECT d.dag_id, v.structure->'timetable' AS timetable, v.structure->'asset_condition' AS condition,
               (SELECT name FROM asset WHERE id = $2) AS asset_name
        FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.dag_id = ANY ($1)";
    for row in transaction.query(query, &[&dag_ids, &asset]).await? {
        let (dag_id, asset_name): (String, String) = (row.get("dag_id"), row.get("asset_name"));
        let (Some(timetable), Some(condition)) = (row.get("timetable"), row.get("condition")) else { continue };
        let definition = definition(&timetable, &condition);
        let Ok(Timetable::PartitionedAsset(mappers)) = serde_json::from_value(timetable) else { continue };
        let keys = match mappers.limited(&asset_name).to_downstream(&partition.key) {
            Ok(keys) => keys,
            Err(error) => {
                warn!("partition {:?} of asset {asset_name:?} triggers no run of {dag_id}: {error}", partition.key);
                continue;
            }
        };
        // If the key itself has no date, the run takes that of the run that updated the asset.
        let date = partition.date.filter(|_| *mappers.of(&asset_name) == Mapper::Identity);
        add_to_pending_runs(transaction, &dag_id, &keys, date, &definition, event).await?;
    }
    Ok(())
}

/// Adds an event to the pending runs with these keys, and creates those that do not exist. A run whose events have
/// different dates has no date.
async fn add_to_pending_runs(
    transaction: &Transaction<'_>,
    dag_id: &str,
    keys: &[String],
    date: Option<Timestamp>,
    definition: &Value,
    event: i64,
) -> Result<()> {
    let keys: Vec<&str> = keys.iter().map(String::as_str).collect::<BTreeSet<_>>().into_iter().collect();
    // Pending runs of an older definition of the DAG are dropped with their events.
    let delete_outdated =
        "DELETE FROM asset_partition WHERE dag_id = $1 AND partition_key = ANY ($2) AND definition <> $3";
    transaction.execute(delete_outdated, &[&dag_id, &keys, &Json(definition)]).await?;
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
    execute(transaction, query, &[&dag_id, &keys, &date, &Json(definition), &event]).await
}

/// A pending run with the events received for it.
struct PendingRun {
    id: i64,
    partition: Partition,
    assets: BTreeMap<(String, String), ReceivedKeys>,
}

/// The partition keys of an asset that a pending run has received, with the aliases of the events.
#[derive(Default)]
struct ReceivedKeys {
    keys: BTreeSet<String>,
    aliases: Vec<String>,
}

/// Maximum number of pending runs evaluated in one transaction.
const BATCH_SIZE: usize = 100;

/// Creates the runs for which enough partition keys have arrived. Returns true if there may be more pending runs to
/// evaluate.
pub(crate) async fn make_runs(client: &mut ClientWrapper) -> Result<bool> {
    let transaction = client.transaction().await?;
    let query = format!(
        "SELECT d.current_version_id, p.id, p.partition_key, p.partition_date, p.definition
         FROM asset_partition p JOIN dag d USING (dag_id)
         WHERE p.has_news AND d.is_active AND NOT d.is_draining AND d.current_version_id IS NOT NULL
           AND NOT EXISTS (SELECT FROM import_error e WHERE e.filename = d.fileloc)
         ORDER BY p.id LIMIT {BATCH_SIZE} FOR UPDATE OF p SKIP LOCKED"
    );
    let rows = transaction.query(&query, &[]).await?;
    let mut versions: HashMap<i64, (Structure, Value)> = HashMap::new();
    let (mut finished, mut outdated) = (Vec::new(), 0);
    for row in &rows {
        let (version_id, id): (i64, i64) = (row.get("current_version_id"), row.get("id"));
        let (structure, current_definition) = match versions.entry(version_id) {
            Entry::Occupied(cached) => cached.into_mut(),
            Entry::Vacant(new) => new.insert(version(&transaction, version_id).await?),
        };
        let Json(definition): Json<Value> = row.get("definition");
        let Some(Timetable::PartitionedAsset(mappers)) =
            structure.timetable.as_ref().filter(|_| definition == *current_definition)
        else {
            outdated += 1;
            finished.push(id);
            continue;
        };
        let partition = Partition { key: row.get("partition_key"), date: row.get("partition_date") };
        let pending_run = PendingRun { id, partition, assets: received_keys(&transaction, id).await? };
        if is_complete(structure, mappers, &pending_run) {
            make_run(&transaction, structure, version_id, mappers, &pending_run).await?;
            finished.push(id);
        }
    }
    if outdated > 0 {
        info!("dropped {outdated} pending partitions: the definitions of their DAGs have changed");
    }
    transaction.execute("DELETE FROM asset_partition WHERE id = ANY ($1)", &[&finished]).await?;
    let evaluated: Vec<i64> = rows.iter().map(|row| row.get("id")).collect();
    let mark_evaluated = "UPDATE asset_partition SET has_news = false WHERE id = ANY ($1)";
    transaction.execute(mark_evaluated, &[&evaluated]).await?;
    transaction.commit().await?;
    Ok(rows.len() == BATCH_SIZE)
}

/// Returns the structure of a version and its definition.
async fn version(client: &impl GenericClient, id: i64) -> Result<(Structure, Value)> {
    let query = "SELECT structure, structure->'timetable' AS timetable, structure->'asset_condition' AS condition
                 FROM dag_version WHERE id = $1";
    let row = client.query_one(query, &[&id]).await?;
    let part = |name: &str| row.get::<_, Option<Value>>(name).unwrap_or_default();
    let Json(structure) = row.get("structure");
    Ok((structure, definition(&part("timetable"), &part("condition"))))
}

/// Reads the partition keys that have arrived for a pending run, by name and URI of the asset.
async fn received_keys(client: &impl GenericClient, id: i64) -> Result<BTreeMap<(String, String), ReceivedKeys>> {
    let query = "
        SELECT a.name, a.uri, e.partition_key, e.aliases
        FROM asset_partition_event p JOIN asset_event e ON e.id = p.event_id JOIN asset a ON a.id = e.asset_id
        WHERE p.partition_id = $1 AND e.partition_key IS NOT NULL";
    let mut assets: BTreeMap<(String, String), ReceivedKeys> = BTreeMap::new();
    for row in client.query(query, &[&id]).await? {
        let received = assets.entry((row.get("name"), row.get("uri"))).or_default();
        received.keys.insert(row.get("partition_key"));
        received.aliases.extend(row.get::<_, Vec<String>>("aliases"));
    }
    Ok(assets)
}

/// True if the partition keys that have arrived meet the DAG's asset condition, and suffice for each of its assets.
fn is_complete(structure: &Structure, mappers: &Mappers, pending_run: &PendingRun) -> bool {
    let has_all = |name: &str, keys: &BTreeSet<String>| {
        let (dag_id, key) = (&structure.dag_id, &pending_run.partition.key);
        match mappers.of(name).expected(key) {
            Ok(None) => true,
            Ok(Some((expected, wait))) => wait.is_over(keys, &expected).unwrap_or_else(|| {
                warn!("{dag_id} can never run for {key:?}: asset {name:?} has only {} partitions", expected.len());
                false
            }),
            Err(error) => {
                warn!("cannot compute what the run of {dag_id} for {key:?} waits for: {error}");
                false
            }
        }
    };
    let updated: Vec<Updated<'_>> = pending_run
        .assets
        .iter()
        .filter(|((name, _), received)| has_all(name, &received.keys))
        .map(|((name, uri), received)| Updated { name, uri, aliases: &received.aliases })
        .collect();
    structure.asset_condition.as_ref().is_some_and(|condition| asset_condition::is_met_by(condition, &updated))
}

async fn make_run(
    transaction: &Transaction<'_>,
    structure: &Structure,
    version_id: i64,
    mappers: &Mappers,
    pending_run: &PendingRun,
) -> Result<()> {
    let dag_id = &structure.dag_id;
    let names: Vec<&str> = pending_run.assets.keys().map(|(name, _)| name.as_str()).collect();
    let date = match mappers.dates(&names, &pending_run.partition.key) {
        Ok(dates) if dates.is_empty() => pending_run.partition.date,
        Ok(dates) => dates.first().filter(|_| dates.len() == 1).copied(),
        Err(_) => None,
    };
    let partition = Partition { key: pending_run.partition.key.clone(), date };
    let run = NewRun::of_assets(dag_id, version_id, new_run::now(), Some(&partition));
    if new_run::insert(transaction, &run, structure).await? {
        let events = "INSERT INTO dag_run_asset_event (dag_id, run_id, event_id)
                      SELECT $1, $2, event_id FROM asset_partition_event WHERE partition_id = $3";
        transaction.execute(events, &[dag_id, &run.key.run_id, &pending_run.id]).await?;
    }
    Ok(())
}

from_row! {
    /// A pending run of a DAG that waits for partitions.
    #[derive(Debug)]
    pub struct PendingPartition {
        pub id: i64,
        pub dag_id: String,
        pub key: String = "partition_key",
        pub created_at: Timestamp,
    }
}

/// The pending runs of one DAG or of all, oldest first.
pub async fn pending(client: &impl GenericClient, dag_id: Option<&str>) -> Result<Vec<PendingPartition>> {
    let query = "
        SELECT p.id, p.dag_id, p.partition_key, p.created_at
        FROM asset_partition p WHERE $1::text IS NULL OR p.dag_id = $1 ORDER BY p.created_at, p.id";
    fetch_all(client, query, &[&dag_id]).await
}

/// The partition keys received for a pending run, by asset id.
pub async fn received(client: &impl GenericClient, partition_id: i64) -> Result<BTreeMap<i64, BTreeSet<String>>> {
    let query = "
        SELECT e.asset_id, e.partition_key FROM asset_partition_event p JOIN asset_event e ON e.id = p.event_id
        WHERE p.partition_id = $1 AND e.partition_key IS NOT NULL";
    let mut keys: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for row in client.query(query, &[&partition_id]).await? {
        keys.entry(row.get("asset_id")).or_default().insert(row.get("partition_key"));
    }
    Ok(keys)
}

//! Assets and partitions that asset-scheduled DAGs wait for.

use crate::store::StoreError;
use crate::store::rows::{fetch_all, from_row};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use std::collections::{BTreeMap, BTreeSet};

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
pub async fn assets(client: &impl GenericClient, dag_id: &str) -> Result<Vec<AwaitedAsset>, StoreError> {
    let query = "
        SELECT DISTINCT a.id, a.name, a.uri, q.created_at AS queued_at
        FROM dag_asset d JOIN asset a
             ON CASE d.kind WHEN 'asset' THEN a.name = d.name AND a.uri = d.uri WHEN 'name' THEN a.name = d.name
                            WHEN 'uri' THEN a.uri = d.uri END
        LEFT JOIN asset_queue q ON q.asset_id = a.id AND q.dag_id = d.dag_id
        WHERE d.dag_id = $1 AND d.role = 'schedule' ORDER BY a.uri";
    fetch_all(client, query, &[&dag_id]).await
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
pub async fn partitions(
    client: &impl GenericClient,
    dag_id: Option<&str>,
) -> Result<Vec<PendingPartition>, StoreError> {
    let query = "
        SELECT p.id, p.dag_id, p.partition_key, p.created_at
        FROM asset_partition p WHERE $1::text IS NULL OR p.dag_id = $1 ORDER BY p.created_at, p.id";
    fetch_all(client, query, &[&dag_id]).await
}

/// The partition keys received for a pending run, by asset id.
pub async fn received(
    client: &impl GenericClient,
    partition_id: i64,
) -> Result<BTreeMap<i64, BTreeSet<String>>, StoreError> {
    let query = "
        SELECT e.asset_id, e.partition_key FROM asset_partition_event p JOIN asset_event e ON e.id = p.event_id
        WHERE p.partition_id = $1 AND e.partition_key IS NOT NULL";
    let mut keys: BTreeMap<i64, BTreeSet<String>> = BTreeMap::new();
    for row in client.query(query, &[&partition_id]).await? {
        keys.entry(row.get("asset_id")).or_default().insert(row.get("partition_key"));
    }
    Ok(keys)
}

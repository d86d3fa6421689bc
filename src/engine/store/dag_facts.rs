//! What is told of all DAGs together.

use super::StoreError;
use super::listing::{Column, Found, Listing, Source};
use crate::postgres::GenericClient;
use jiff::Timestamp;
use serde_json::Value;
use tokio_postgres::types::Json;

/// The tags of active DAGs, each once.
pub async fn tags(client: &impl GenericClient, listing: Listing) -> Result<Found<String>, StoreError> {
    let from = "(SELECT DISTINCT jsonb_array_elements_text(v.structure->'tags') AS name
                 FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.is_active) t";
    listing.fetch(client, &Source::of("t.name", from, &[Column::text("t.name")]), |row| row.get(0)).await
}

/// Of each active DAG, or of those that are named, its id and how many of its runs are in which state.
pub async fn count_runs(client: &impl GenericClient, dag_ids: &[String]) -> Result<Vec<(String, Value)>, StoreError> {
    let query = "
        SELECT d.dag_id, (SELECT coalesce(json_object_agg(state, count), '{}')
                          FROM (SELECT state, count(*) FROM dag_run r WHERE r.dag_id = d.dag_id GROUP BY state) AS counted)
        FROM dag d WHERE CASE WHEN cardinality($1::text[]) = 0 THEN d.is_active ELSE d.dag_id = ANY ($1) END
        ORDER BY d.dag_id";
    let rows = client.query(query, &[&dag_ids]).await?;
    let read = |row: &tokio_postgres::Row| {
        let Json(counts) = row.get(1);
        (row.get(0), counts)
    };
    Ok(rows.iter().map(read).collect())
}

/// Active DAGs with a task whose pool is not there: the DAG, the pool, and since when the DAG is so.
pub async fn with_unknown_pools(
    client: &impl GenericClient,
    listing: Listing,
) -> Result<Found<(String, String, Timestamp)>, StoreError> {
    let from = "
        (SELECT DISTINCT d.dag_id, task->>'pool' AS pool, v.created_at AS at
         FROM dag d JOIN dag_version v ON v.id = d.current_version_id,
              jsonb_array_elements(v.structure->'tasks') AS task
         WHERE d.is_active AND task->>'pool' <> 'default_pool'
           AND NOT EXISTS (SELECT FROM pool p WHERE p.name = task->>'pool')) w";
    let key = &[Column::text("w.dag_id"), Column::text("w.pool")];
    listing
        .fetch(client, &Source::of("w.dag_id, w.pool, w.at", from, key), |row| (row.get(0), row.get(1), row.get(2)))
        .await
}

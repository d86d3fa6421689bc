//! Facts about all DAGs together: tags, run counts, unknown pools.

use crate::store::StoreError;
use crate::store::list::field::list_fields;
use crate::store::list::listing::{ListPage, Listing};
use crate::store::list::page_query::Source;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use serde_json::Value;
use tokio_postgres::types::Json;

list_fields! {
    /// Fields of tags, for lists.
    TagField, key: [Name];
    Name = text("t.name"),
}

list_fields! {
    /// Fields of the list of unknown pools.
    UnknownPoolField, key: [DagId, Pool];
    DagId = text("w.dag_id"),
    Pool = text("w.pool"),
    ParsedAt = time("w.at"),
}

/// The distinct tags of active DAGs.
pub async fn tags(client: &impl GenericClient, listing: Listing<TagField>) -> Result<ListPage<String>, StoreError> {
    let from = "(SELECT DISTINCT jsonb_array_elements_text(v.structure->'tags') AS name
                 FROM dag d JOIN dag_version v ON v.id = d.current_version_id WHERE d.is_active) t";
    listing.fetch(client, &Source::new("t.name", from), |row| row.get(0)).await
}

/// The number of runs in each state, for each active DAG or for the named ones.
pub async fn count_runs(client: &impl GenericClient, dag_ids: &[String]) -> Result<Vec<(String, Value)>, StoreError> {
    let query = "
        SELECT d.dag_id, (SELECT coalesce(json_object_agg(state, count), '{}')
                          FROM (SELECT state, count(*) FROM dag_run r WHERE r.dag_id = d.dag_id GROUP BY state) AS counted) AS counts
        FROM dag d WHERE CASE WHEN cardinality($1::text[]) = 0 THEN d.is_active ELSE d.dag_id = ANY ($1) END
        ORDER BY d.dag_id";
    let rows = client.query(query, &[&dag_ids]).await?;
    let read = |row: &tokio_postgres::Row| {
        let Json(counts) = row.get("counts");
        (row.get("dag_id"), counts)
    };
    Ok(rows.iter().map(read).collect())
}

/// Active DAGs with a task whose pool does not exist: the DAG, the pool, and when the DAG's version was created.
pub async fn with_unknown_pools(
    client: &impl GenericClient,
    listing: Listing<UnknownPoolField>,
) -> Result<ListPage<(String, String, Timestamp)>, StoreError> {
    let from = "
        (SELECT DISTINCT d.dag_id, task->>'pool' AS pool, v.created_at AS at
         FROM dag d JOIN dag_version v ON v.id = d.current_version_id,
              jsonb_array_elements(v.structure->'tasks') AS task
         WHERE d.is_active AND task->>'pool' <> 'default_pool'
           AND NOT EXISTS (SELECT FROM pool p WHERE p.name = task->>'pool')) w";
    listing
        .fetch(client, &Source::new("w.dag_id, w.pool, w.at", from), |row| (row.get(0), row.get(1), row.get(2)))
        .await
}

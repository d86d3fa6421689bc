//! The audit log.

use super::StoreError;
use super::list::listing::{Column, ListPage, Listing, Source};
use jiff::Timestamp;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

/// Number of newest entries that are retained.
const MAX_EVENTS: i64 = 100_000;
/// Old entries are deleted each time this many new ones were added.
const CLEANUP_INTERVAL: i64 = 1_000;

#[derive(Debug, Clone)]
pub struct LoggedEvent {
    pub id: i64,
    pub created_at: Timestamp,
    pub what: NewEvent,
}

#[derive(Debug, Clone, Default)]
pub struct NewEvent {
    /// The name of Airflow's operation.
    pub event: String,
    pub owner: Option<String>,
    pub dag_id: Option<String>,
    pub run_id: Option<String>,
    pub task_id: Option<String>,
    pub map_index: Option<i32>,
    pub logical_date: Option<Timestamp>,
    /// The request as JSON, without secrets.
    pub extra: Option<String>,
}

fn read(row: &Row) -> LoggedEvent {
    LoggedEvent {
        id: row.get("id"),
        created_at: row.get("created_at"),
        what: NewEvent {
            event: row.get("event"),
            owner: row.get("owner"),
            dag_id: row.get("dag_id"),
            run_id: row.get("run_id"),
            task_id: row.get("task_id"),
            map_index: row.get("map_index"),
            logical_date: row.get("logical_date"),
            extra: row.get("extra"),
        },
    }
}

pub async fn add(client: &impl GenericClient, new: &NewEvent) -> Result<(), StoreError> {
    let query = "
        INSERT INTO event_log (event, owner, dag_id, run_id, task_id, map_index, logical_date, extra)
        VALUES ($1, $2, $3, $4, $5, $6, $7, $8) RETURNING id";
    let NewEvent { event, owner, dag_id, run_id, task_id, map_index, logical_date, extra } = new;
    let parameters: [&(dyn tokio_postgres::types::ToSql + Sync); 8] =
        [event, owner, dag_id, run_id, task_id, map_index, logical_date, extra];
    let id: i64 = client.query_one(query, &parameters).await?.get(0);
    if id % CLEANUP_INTERVAL == 0 {
        client.execute("DELETE FROM event_log WHERE id <= $1", &[&(id - MAX_EVENTS)]).await?;
    }
    Ok(())
}

pub async fn list(client: &impl GenericClient, listing: Listing) -> Result<ListPage<LoggedEvent>, StoreError> {
    listing.fetch(client, &Source::new("*", "event_log", &[Column::whole("id")]), read).await
}

pub async fn get(client: &impl GenericClient, id: i64) -> Result<LoggedEvent, StoreError> {
    let row = client.query_opt("SELECT * FROM event_log WHERE id = $1", &[&id]).await?;
    row.as_ref().map(read).ok_or_else(|| StoreError::NotFound { what: "event log", id: id.to_string() })
}

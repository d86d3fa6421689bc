//! Pools: how much may run at once of what shares something.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use super::StoreError;
use super::events::{self, Event};
use super::listing::{Column, Found, Listing, Source};
use crate::engine::dag::DEFAULT_POOL;
use crate::engine::keys::RunKey;
use crate::engine::planner::concurrency::Usage;
use crate::postgres::GenericClient;
use tokio_postgres::Row;

/// Slots of the pool that is there without having been made.
pub const DEFAULT_SLOTS: i32 = 128;

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    pub name: String,
    /// -1 is no limit.
    pub slots: i32,
    pub description: Option<String>,
    pub include_deferred: bool,
    pub running: i64,
    pub queued: i64,
    pub scheduled: i64,
}

impl Pool {
    pub fn occupied(&self) -> i64 {
        self.running + self.queued
    }

    pub fn open(&self) -> i64 {
        if self.slots < 0 { -1 } else { (i64::from(self.slots) - self.occupied()).max(0) }
    }
}

const ALL: &str = "
    (SELECT name, slots, description, include_deferred FROM pool
     UNION ALL SELECT 'default_pool', 128, 'Default pool', false
     WHERE NOT EXISTS (SELECT FROM pool WHERE name = 'default_pool')) p";

const USED: &str = "
    LEFT JOIN LATERAL (
        SELECT coalesce(sum(pool_slots) FILTER (WHERE state IN ('running', 'restarting')), 0)::bigint AS running,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'queued'), 0)::bigint AS queued,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'scheduled'), 0)::bigint AS scheduled
        FROM task_instance WHERE pool = p.name AND state IN ('running', 'restarting', 'queued', 'scheduled')) u ON true";

fn read(row: &Row) -> Pool {
    Pool {
        name: row.get("name"),
        slots: row.get("slots"),
        description: row.get("description"),
        include_deferred: row.get("include_deferred"),
        running: row.get("running"),
        queued: row.get("queued"),
        scheduled: row.get("scheduled"),
    }
}

pub async fn list(client: &impl GenericClient, listing: Listing) -> Result<Found<Pool>, StoreError> {
    listing.fetch(client, &Source::of("*", &format!("{ALL} {USED}"), &[Column::text("p.name")]), read).await
}

fn not_found(name: &str) -> StoreError {
    StoreError::NotFound { what: "pool", id: name.to_owned() }
}

pub async fn get(client: &impl GenericClient, name: &str) -> Result<Pool, StoreError> {
    let query = format!("SELECT * FROM {ALL} {USED} WHERE p.name = $1");
    client.query_opt(&query, &[&name]).await?.as_ref().map(read).ok_or_else(|| not_found(name))
}

/// What a pool is given.
#[derive(Debug, Clone)]
pub struct Given<'a> {
    pub name: &'a str,
    pub slots: i32,
    pub description: Option<&'a str>,
    pub include_deferred: bool,
}

pub async fn create(client: &impl GenericClient, pool: &Given<'_>) -> Result<(), StoreError> {
    let exists = || StoreError::AlreadyExists { what: "pool", id: pool.name.to_owned() };
    if pool.name == DEFAULT_POOL {
        return Err(exists());
    }
    let query = "INSERT INTO pool (name, slots, description, include_deferred) VALUES ($1, $2, $3, $4)
                 ON CONFLICT DO NOTHING";
    let made = client.execute(query, &[&pool.name, &pool.slots, &pool.description, &pool.include_deferred]).await?;
    if made == 0 {
        return Err(exists());
    }
    changed(client).await
}

pub async fn set(client: &impl GenericClient, pool: &Given<'_>) -> Result<(), StoreError> {
    let query = "INSERT INTO pool (name, slots, description, include_deferred) VALUES ($1, $2, $3, $4)
                 ON CONFLICT (name) DO UPDATE SET slots = EXCLUDED.slots, description = EXCLUDED.description,
                     include_deferred = EXCLUDED.include_deferred";
    client.execute(query, &[&pool.name, &pool.slots, &pool.description, &pool.include_deferred]).await?;
    changed(client).await
}

pub async fn delete(client: &impl GenericClient, name: &str) -> Result<(), StoreError> {
    if name == DEFAULT_POOL {
        return Err(StoreError::Invalid("Default Pool can't be deleted".to_owned()));
    }
    match client.execute("DELETE FROM pool WHERE name = $1", &[&name]).await? {
        0 => Err(not_found(name)),
        _ => changed(client).await,
    }
}

/// What waits for it may have room now.
async fn changed(client: &impl GenericClient) -> Result<(), StoreError> {
    events::notify(client, &Event::Room).await?;
    Ok(())
}

/// What runs, everywhere but in one run, and the slots of all pools.
pub async fn usage(client: &impl GenericClient, but: Option<&RunKey>) -> Result<Usage, StoreError> {
    let mut usage = Usage::default();
    usage.pools.insert(DEFAULT_POOL.to_owned(), (DEFAULT_SLOTS.into(), 0));
    for row in client.query("SELECT name, slots FROM pool", &[]).await? {
        usage.pools.insert(row.get(0), (row.get::<_, i32>(1).into(), 0));
    }
    let (dag_id, run_id) = but.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    // First those that take slots, which have an index: by their runs all that these consist of would be read. Then the
    // runs by their key: `IS TRUE` keeps the index of running ones out, in which all are read for a few.
    let query = "
        WITH active AS MATERIALIZED (
            SELECT dag_id, run_id, task_id, pool, pool_slots FROM task_instance
            WHERE state IN ('queued', 'running', 'restarting') AND ($1::text IS NULL OR (dag_id, run_id) <> ($1, $2)))
        SELECT dag_id, run_id, task_id, pool, sum(pool_slots)::bigint, count(*)
        FROM active JOIN dag_run r USING (dag_id, run_id) WHERE (r.state = 'running') IS TRUE
        GROUP BY dag_id, run_id, task_id, pool";
    for row in client.query(query, &[&dag_id, &run_id]).await? {
        let run = RunKey { dag_id: row.get(0), run_id: row.get(1) };
        let count = u32::try_from(row.get::<_, i64>(5)).unwrap_or(u32::MAX);
        usage.take(&run, row.get(2), row.get(3), row.get(4), count);
    }
    Ok(usage)
}

//! Pools, which limit how many tasks that share a resource run at once.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use super::events::{self, Event};
use super::instance_key::{TRY, TRY_KEY};
use super::list::field::list_fields;
use super::list::listing::{ListPage, Listing, Source};
use super::rows::{self, FromRow, fetch_optional, from_row};
use super::{Result, StoreError};
use crate::model::dag::DEFAULT_POOL;
use crate::model::keys::RunKey;
use crate::planner::pool_limits::{PoolSlots, SlotUse, Usage};
use leoflow_postgres::GenericClient;
use std::sync::LazyLock;

/// Number of slots of the default pool while it has no row in the table; the pool exists even so.
pub(crate) const DEFAULT_SLOTS: i32 = 128;

from_row! {
    #[derive(Debug, Clone, PartialEq, Eq)]
    pub struct Pool {
        pub name: String,
        /// -1 is no limit.
        pub slots: i32,
        pub description: Option<String>,
        pub include_deferred: bool,
        // Number of slots by state of the task instances.
        pub running: i64,
        pub queued: i64,
        pub scheduled: i64,
        pub deferred: i64,
    }
}

impl Pool {
    pub fn occupied(&self) -> i64 {
        self.running + self.queued + if self.include_deferred { self.deferred } else { 0 }
    }

    /// Number of free slots; -1 is no limit.
    pub fn open(&self) -> i64 {
        if self.slots < 0 { -1 } else { (i64::from(self.slots) - self.occupied()).max(0) }
    }
}

/// SQL table of all pools, with the default pool if it has no row.
const ALL: &str = "
    (SELECT name, slots, description, include_deferred FROM pool
     UNION ALL SELECT 'default_pool', 128, 'Default pool', false
     WHERE NOT EXISTS (SELECT FROM pool WHERE name = 'default_pool')) p";

/// SQL join of the number of slots in each state.
const USED: &str = "
    LEFT JOIN LATERAL (
        SELECT coalesce(sum(pool_slots) FILTER (WHERE state = 'running'), 0)::bigint AS running,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'queued'), 0)::bigint AS queued,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'scheduled'), 0)::bigint AS scheduled,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'deferred'), 0)::bigint AS deferred
        FROM task_instance WHERE pool = p.name AND state IN ('running', 'queued', 'scheduled', 'deferred')) u ON true";

list_fields! {
    /// Fields of pools, for lists.
    PoolField, key: [Name];
    Name = text("p.name"),
}

pub async fn list(client: &impl GenericClient, listing: Listing<PoolField>) -> Result<ListPage<Pool>> {
    listing.fetch(client, &Source::new("*", &format!("{ALL} {USED}"))).await
}

fn not_found(name: &str) -> StoreError {
    StoreError::NotFound { what: "pool", id: name.to_owned() }
}

pub async fn get(client: &impl GenericClient, name: &str) -> Result<Pool> {
    let query = format!("SELECT * FROM {ALL} {USED} WHERE p.name = $1");
    fetch_optional(client, &query, &[&name]).await?.ok_or_else(|| not_found(name))
}

/// The settings of a pool.
#[derive(Debug, Clone)]
pub struct PoolSettings<'a> {
    pub name: &'a str,
    pub slots: i32,
    pub description: Option<&'a str>,
    pub include_deferred: bool,
}

pub async fn create(client: &impl GenericClient, pool: &PoolSettings<'_>) -> Result<()> {
    let exists = || StoreError::AlreadyExists { what: "pool", id: pool.name.to_owned() };
    if pool.name == DEFAULT_POOL {
        return Err(exists());
    }
    match write(client, pool, "NOTHING").await? {
        0 => Err(exists()),
        _ => Ok(()),
    }
}

pub async fn set(client: &impl GenericClient, pool: &PoolSettings<'_>) -> Result<()> {
    let replace = "UPDATE SET slots = EXCLUDED.slots, description = EXCLUDED.description,
                              include_deferred = EXCLUDED.include_deferred";
    write(client, pool, replace).await.map(drop)
}

/// Inserts a pool and notifies the scheduler; `on_conflict` is the SQL for an existing name. Returns the number of rows
/// written.
async fn write(client: &impl GenericClient, pool: &PoolSettings<'_>, on_conflict: &str) -> Result<u64> {
    let query = format!(
        "INSERT INTO pool (name, slots, description, include_deferred) VALUES ($1, $2, $3, $4)
         ON CONFLICT (name) DO {on_conflict}"
    );
    let PoolSettings { name, slots, description, include_deferred } = pool;
    let written = client.execute(&query, &[name, slots, description, include_deferred]).await?;
    if written > 0 {
        notify_capacity(client).await?;
    }
    Ok(written)
}

pub async fn delete(client: &impl GenericClient, name: &str) -> Result<()> {
    if name == DEFAULT_POOL {
        return Err(StoreError::Invalid("Default Pool can't be deleted".to_owned()));
    }
    match client.execute("DELETE FROM pool WHERE name = $1", &[&name]).await? {
        0 => Err(not_found(name)),
        _ => notify_capacity(client).await,
    }
}

/// Notifies the scheduler, since waiting tasks may fit now.
async fn notify_capacity(client: &impl GenericClient) -> Result<()> {
    events::notify(client, &Event::Capacity).await
}

/// SQL query for the number of task instances and slots in each state that a limit counts, for each task of each run
/// except the run `($1, $2)`.
static IN_FLIGHT: LazyLock<String> = LazyLock::new(|| {
    format!(
        "
    WITH in_flight AS MATERIALIZED (
        -- Two parts, because each has its own index.
        SELECT {TRY_KEY}, state, pool, pool_slots FROM task_instance
        WHERE state IN ('queued', 'running') AND ($1::text IS NULL OR (dag_id, run_id) <> ($1, $2))
        UNION ALL
        SELECT {TRY_KEY}, state, pool, pool_slots FROM task_instance
        WHERE state IN ('deferred', 'awaiting_input') AND ($1::text IS NULL OR (dag_id, run_id) <> ($1, $2))),
    -- The scheduler settles an ended try only while its run is running. In other runs, the state of the try counts
    -- instead. The few running instances are looked up by key: a join would read all runs.
    counted AS (
        SELECT dag_id, run_id, task_id, pool, pool_slots,
               CASE WHEN i.state = 'running' AND (SELECT r.state FROM dag_run r WHERE (r.dag_id, r.run_id)
                                                         = (i.dag_id, i.run_id)) IS DISTINCT FROM 'running'
                    THEN (SELECT t.state FROM task_try t WHERE {})
                    ELSE i.state END AS state
        FROM in_flight i)
    SELECT dag_id, run_id, task_id, state, pool, sum(pool_slots)::bigint AS slots, count(*) AS count
    FROM counted GROUP BY dag_id, run_id, task_id, state, pool",
        TRY.same("t", "i")
    )
});

/// Reads the slots of all pools, and the current usage of all limits by runs in any state except `excluded_run`.
pub async fn usage(client: &impl GenericClient, excluded_run: Option<&RunKey>) -> Result<Usage> {
    let mut usage = Usage::default();
    let unused_slots = |all: i32, include_deferred| PoolSlots { all: all.into(), used: 0, include_deferred };
    usage.pools.insert(DEFAULT_POOL.to_owned(), unused_slots(DEFAULT_SLOTS, false));
    for row in client.query("SELECT name, slots, include_deferred FROM pool", &[]).await? {
        usage.pools.insert(row.get("name"), unused_slots(row.get("slots"), row.get("include_deferred")));
    }
    let (dag_id, run_id) = excluded_run.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    for row in client.query(&IN_FLIGHT, &[&dag_id, &run_id]).await? {
        // NULL if the instance has no try and its run is not running.
        let Some(state) = rows::get(&row, "state")? else { continue };
        let count = u32::try_from(row.get::<_, i64>("count")).unwrap_or(u32::MAX);
        let (task_id, pool, slots) = (row.get("task_id"), row.get("pool"), row.get("slots"));
        usage.take(&RunKey::from_row(&row)?, SlotUse { task_id, state, pool, slots, count });
    }
    Ok(usage)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn deferred_slots_are_occupied_where_the_pool_counts_them() {
        let pool = |include_deferred| Pool {
            name: "p".to_owned(),
            slots: 9,
            description: None,
            include_deferred,
            running: 1,
            queued: 2,
            scheduled: 8,
            deferred: 4,
        };
        assert_eq!((pool(false).occupied(), pool(false).open()), (3, 6));
        assert_eq!((pool(true).occupied(), pool(true).open()), (7, 2));
    }
}

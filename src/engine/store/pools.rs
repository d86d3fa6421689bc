//! Pools: how much may run at once of what shares something.
//!
//! <https://airflow.apache.org/docs/apache-airflow/stable/administration-and-deployment/pools.html>

use super::StoreError;
use super::events::{self, Event};
use super::listing::{Column, Found, Listing, Source};
use crate::engine::dag::DEFAULT_POOL;
use crate::engine::keys::RunKey;
use crate::engine::planner::concurrency::{PoolSlots, Taken, Usage};
use crate::engine::state::TaskState;
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
    pub deferred: i64,
}

impl Pool {
    pub fn occupied(&self) -> i64 {
        self.running + self.queued + if self.include_deferred { self.deferred } else { 0 }
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
        SELECT coalesce(sum(pool_slots) FILTER (WHERE state = 'running'), 0)::bigint AS running,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'queued'), 0)::bigint AS queued,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'scheduled'), 0)::bigint AS scheduled,
               coalesce(sum(pool_slots) FILTER (WHERE state = 'deferred'), 0)::bigint AS deferred
        FROM task_instance WHERE pool = p.name AND state IN ('running', 'queued', 'scheduled', 'deferred')) u ON true";

fn read(row: &Row) -> Pool {
    Pool {
        name: row.get("name"),
        slots: row.get("slots"),
        description: row.get("description"),
        include_deferred: row.get("include_deferred"),
        running: row.get("running"),
        queued: row.get("queued"),
        scheduled: row.get("scheduled"),
        deferred: row.get("deferred"),
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

/// In SQL, how many task instances and slots each task of each run has in each state that a limit counts, but those of
/// the run `($1, $2)`.
const IN_FLIGHT: &str = "
    WITH in_flight AS MATERIALIZED (
        -- In two parts, because each has an index.
        SELECT dag_id, run_id, task_id, map_index, try_number, state, pool, pool_slots FROM task_instance
        WHERE state IN ('queued', 'running') AND ($1::text IS NULL OR (dag_id, run_id) <> ($1, $2))
        UNION ALL
        SELECT dag_id, run_id, task_id, map_index, try_number, state, pool, pool_slots FROM task_instance
        WHERE state IN ('deferred', 'awaiting_input') AND ($1::text IS NULL OR (dag_id, run_id) <> ($1, $2))),
    -- What ends in a run that does not run is settled once it does: until then its try says what it is. Each of those that
    -- run is looked up by its key, and there are few: a join would read all runs.
    counted AS (
        SELECT dag_id, run_id, task_id, pool, pool_slots,
               CASE WHEN i.state = 'running' AND (SELECT r.state FROM dag_run r WHERE (r.dag_id, r.run_id)
                                                         = (i.dag_id, i.run_id)) IS DISTINCT FROM 'running'
                    THEN (SELECT t.state FROM task_try t
                          WHERE (t.dag_id, t.run_id, t.task_id, t.map_index, t.try_number)
                                = (i.dag_id, i.run_id, i.task_id, i.map_index, i.try_number))
                    ELSE i.state END AS state
        FROM in_flight i)
    SELECT dag_id, run_id, task_id, state, pool, sum(pool_slots)::bigint, count(*)
    FROM counted GROUP BY dag_id, run_id, task_id, state, pool";

/// What the limits count, everywhere but in one run and whatever the state of the run is, and the slots of all pools.
pub async fn usage(client: &impl GenericClient, but: Option<&RunKey>) -> Result<Usage, StoreError> {
    let mut usage = Usage::default();
    let unused = |all: i32, include_deferred| PoolSlots { all: all.into(), used: 0, include_deferred };
    usage.pools.insert(DEFAULT_POOL.to_owned(), unused(DEFAULT_SLOTS, false));
    for row in client.query("SELECT name, slots, include_deferred FROM pool", &[]).await? {
        usage.pools.insert(row.get(0), unused(row.get(1), row.get(2)));
    }
    let (dag_id, run_id) = but.map(|key| (key.dag_id.as_str(), key.run_id.as_str())).unzip();
    for row in client.query(IN_FLIGHT, &[&dag_id, &run_id]).await? {
        let run = RunKey { dag_id: row.get(0), run_id: row.get(1) };
        let Some(state) = row.get::<_, Option<&str>>(3).and_then(TaskState::parse) else { continue };
        let count = u32::try_from(row.get::<_, i64>(6)).unwrap_or(u32::MAX);
        usage.take(&run, Taken { task_id: row.get(2), state, pool: row.get(4), slots: row.get(5), count });
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

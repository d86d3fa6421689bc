//! Connections to the datastore, kept and handed out.

use super::api_error::ApiError;
use crate::sys::memory;
use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolConfig, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio_postgres::NoTls;

/// Few: the datastore is local and every request is short.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a check waits for a connection of the pool.
const POOL_PATIENCE: Duration = Duration::from_millis(100);
/// So long after it was used a connection beyond the first is given back: each is a process of Postgres.
const SPARE: Duration = Duration::from_secs(5);
/// One that was used more often has grown, and is given back too.
const MANY_USES: usize = 20;

pub struct Database {
    pool: Pool,
    used: Notify,
    config: tokio_postgres::Config,
    checking: Mutex<()>,
}

async fn ask(client: &tokio_postgres::Client) -> Result<(), String> {
    client.simple_query("SELECT 1").await.map(drop).map_err(|error| error.to_string())
}

impl Database {
    pub fn new(config: &tokio_postgres::Config) -> Self {
        // `Fast` asks only whether the connection is closed, which it is at once when Postgres goes.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, recycling);
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
        let pool_config = PoolConfig { max_size: CONNECTIONS, timeouts, ..PoolConfig::default() };
        let pool = Pool::builder(manager).config(pool_config).runtime(Runtime::Tokio1).build();
        let pool = pool.expect("a pool with timeouts has been given the runtime they need");
        Self { pool, used: Notify::new(), config: config.clone(), checking: Mutex::new(()) }
    }

    pub async fn get(&self) -> Result<Object, ApiError> {
        self.used.notify_one();
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => ApiError::busy(),
            other => ApiError::unavailable(&other),
        })
    }

    /// Gives back connections that nobody has used for a while. Never returns; sleeps while nobody asks for any.
    pub async fn give_back(&self) {
        loop {
            self.used.notified().await;
            tokio::time::sleep(SPARE).await;
            let mut kept = 0;
            self.pool.retain(|_, metrics| {
                let is_spare = kept > 0 || metrics.recycle_count > MANY_USES;
                let keeps = !is_spare || metrics.last_used() < SPARE;
                kept += usize::from(keeps);
                keeps
            });
            if kept > 1 {
                self.used.notify_one();
            } else if kept == 0 {
                // After work, and not after each look whether it answers.
                memory::rest();
            }
        }
    }

    /// Whether the datastore answers a query within `limit`; the reason when it does not. Where all connections of the
    /// pool are in use, a connection of its own asks: requests that wait say nothing about the datastore.
    pub async fn check(&self, limit: Duration) -> Result<(), String> {
        let asked = async {
            match tokio::time::timeout(POOL_PATIENCE, self.pool.get()).await {
                Ok(client) => {
                    let client = client.map_err(|error| error.to_string())?;
                    ask(&client).await
                }
                Err(_) => {
                    // One at a time, however many ask.
                    let _alone = self.checking.lock().await;
                    let (client, connection) = self.config.connect(NoTls).await.map_err(|error| error.to_string())?;
                    let connection = tokio::spawn(connection);
                    let answer = ask(&client).await;
                    drop(client);
                    connection.abort();
                    answer
                }
            }
        };
        let in_time = tokio::time::timeout(limit, asked).await;
        in_time.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
    }
}

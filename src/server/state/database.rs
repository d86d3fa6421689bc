//! Connection pool for the datastore.

use deadpool_postgres::{
    Manager, ManagerConfig, Object, Pool, PoolConfig, PoolError, RecyclingMethod, Runtime, TimeoutType, Timeouts,
};
use leoflow_base::sys::process::memory;
use leoflow_engine::store::StoreError;
use std::time::Duration;
use tokio::sync::{Mutex, Notify};
use tokio_postgres::NoTls;
use tracing::error;

/// Connections in the pool. A few are enough, since the datastore is local and requests are short.
const CONNECTIONS: usize = 8;
/// Timeout for waiting for a pooled connection, and for opening or reusing one.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long a health check waits for a pooled connection.
const POOL_TIMEOUT: Duration = Duration::from_millis(100);
/// Idle time after which connections beyond the first are closed: each is a Postgres process.
const IDLE_LIMIT: Duration = Duration::from_secs(5);
/// Idle time after which the last one is closed; the next request opens another in some milliseconds.
const LAST_IDLE_LIMIT: Duration = Duration::from_secs(12);
/// A connection that was used more often than this is closed after `IDLE_LIMIT` even if it is the only one: its Postgres
/// process has grown in memory.
const MAX_USES: usize = 20;
/// The query of a health check.
const PING: &str = "SELECT 1";

/// Why the datastore was not read or changed. The texts are for clients of the API; the source is for the log.
#[derive(Debug, thiserror::Error)]
pub enum DatastoreError {
    /// All pooled connections are in use.
    #[error("Too many requests at once; try again")]
    Busy,
    #[error("The datastore is not available")]
    Unavailable(#[source] PoolError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl From<tokio_postgres::Error> for DatastoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Store(error.into())
    }
}

/// Why the datastore does not answer.
#[derive(Debug, thiserror::Error)]
pub enum CheckError {
    #[error(transparent)]
    Pool(#[from] PoolError),
    #[error(transparent)]
    Postgres(#[from] tokio_postgres::Error),
    #[error("no answer within {} s", .0.as_secs())]
    TimedOut(Duration),
}

pub struct Database {
    pool: Pool,
    /// Notified when a connection is requested.
    used: Notify,
    config: tokio_postgres::Config,
    /// Held while a health check uses a connection outside of the pool.
    extra_connection: Mutex<()>,
}

impl Database {
    pub fn new(config: &tokio_postgres::Config) -> Self {
        // `Fast` only checks whether the connection is closed, which happens at once when Postgres exits.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, recycling);
        let timeouts = Timeouts { wait: Some(TIMEOUT), create: Some(TIMEOUT), recycle: Some(TIMEOUT) };
        let pool_config = PoolConfig { max_size: CONNECTIONS, timeouts, ..PoolConfig::default() };
        let pool = Pool::builder(manager).config(pool_config).runtime(Runtime::Tokio1).build();
        let pool = pool.expect("a pool with timeouts has been given the runtime they need");
        Self { pool, used: Notify::new(), config: config.clone(), extra_connection: Mutex::new(()) }
    }

    pub async fn get(&self) -> Result<Object, DatastoreError> {
        self.used.notify_one();
        self.pool.get().await.map_err(|error| match error {
            PoolError::Timeout(TimeoutType::Wait) => DatastoreError::Busy,
            other => {
                error!("datastore not available: {other}");
                DatastoreError::Unavailable(other)
            }
        })
    }

    /// Closes idle connections. Never returns; sleeps while there is none.
    pub async fn close_idle(&self) {
        loop {
            self.used.notified().await;
            tokio::time::sleep(IDLE_LIMIT).await;
            let mut is_any_left = false;
            self.pool.retain(|_, metrics| {
                let is_spare = is_any_left || metrics.recycle_count > MAX_USES;
                let is_kept = metrics.last_used() < if is_spare { IDLE_LIMIT } else { LAST_IDLE_LIMIT };
                is_any_left |= is_kept;
                is_kept
            });
            // Those in use count too: `retain` sees them only when they are back.
            match self.pool.status().size {
                0 => memory::release_memory(),
                _ => self.used.notify_one(),
            }
        }
    }

    /// Checks that the datastore answers a query within `limit`. When no pooled
    /// connection is available within `POOL_TIMEOUT`, the check opens one of its own: the datastore itself may be well.
    pub async fn check(&self, limit: Duration) -> Result<(), CheckError> {
        let ping_pooled = async {
            match tokio::time::timeout(POOL_TIMEOUT, self.pool.get()).await {
                Ok(client) => client?.simple_query(PING).await?,
                Err(_) => {
                    let _guard = self.extra_connection.lock().await;
                    let (client, connection) = self.config.connect(NoTls).await?;
                    let connection = tokio::spawn(connection);
                    let answer = client.simple_query(PING).await;
                    drop(client);
                    connection.abort();
                    answer?
                }
            };
            Ok(())
        };
        tokio::time::timeout(limit, ping_pooled).await.unwrap_or(Err(CheckError::TimedOut(limit)))
    }
}

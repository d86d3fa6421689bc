//! Connections to the datastore, kept and handed out.

use super::api_error::ApiError;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolConfig, RecyclingMethod, Runtime, Timeouts};
use std::time::Duration;
use tokio_postgres::NoTls;

/// Few: the datastore is local and every request is short.
const CONNECTIONS: usize = 8;
const PATIENCE: Duration = Duration::from_secs(5);

pub struct Database(Pool);

impl Database {
    pub fn new(config: &tokio_postgres::Config) -> Self {
        // `Fast` asks only whether the connection is closed, which it is at once when Postgres goes.
        let recycling = ManagerConfig { recycling_method: RecyclingMethod::Fast };
        let manager = Manager::from_config(config.clone(), NoTls, recycling);
        let timeouts = Timeouts { wait: Some(PATIENCE), create: Some(PATIENCE), recycle: Some(PATIENCE) };
        let config = PoolConfig { max_size: CONNECTIONS, timeouts, ..PoolConfig::default() };
        let pool = Pool::builder(manager).config(config).runtime(Runtime::Tokio1).build();
        Self(pool.expect("a pool with timeouts has been given the runtime they need"))
    }

    pub async fn get(&self) -> Result<Object, ApiError> {
        self.0.get().await.map_err(|error| ApiError::unavailable(&error))
    }

    /// Whether the datastore answers a query within `limit`; the reason when it does not.
    pub async fn check(&self, limit: Duration) -> Result<(), String> {
        let asked = async {
            let client = self.0.get().await.map_err(|error| error.to_string())?;
            client.simple_query("SELECT 1").await.map_err(|error| error.to_string())?;
            Ok(())
        };
        let in_time = tokio::time::timeout(limit, asked).await;
        in_time.unwrap_or_else(|_| Err(format!("no answer within {} s", limit.as_secs())))
    }
}

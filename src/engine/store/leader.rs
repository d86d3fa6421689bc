//! The advisory lock that elects one leader among the schedulers of a database.

use super::StoreError;
use super::rows::fetch_one;
use leoflow_postgres::GenericClient;

/// Advisory lock key, the same for all schedulers of a database.
const LEADER: i64 = 0x6c65_6f66_6c6f_7701;

/// Tries to take the leader lock, without waiting; true if this connection now holds the lock. Postgres releases the
/// lock when the connection ends.
pub async fn try_lead(client: &impl GenericClient) -> Result<bool, StoreError> {
    fetch_one(client, "SELECT pg_try_advisory_lock($1)", &[&LEADER]).await
}

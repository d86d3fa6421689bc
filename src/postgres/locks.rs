//! Waits for locks of other sessions: their limit, and the session that holds a lock.

use crate::error::{LockHolder, PgError};
use leoflow_base::sys;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// How long a statement of an operation waits for a lock; a forgotten psql may hold one for days.
pub fn limit() -> Duration {
    sys::limit("LEOFLOW_LOCK_LIMIT", Duration::from_secs(30))
}

/// Startup options of a connection of an operation.
pub(crate) fn options(search_path: &str) -> String {
    format!("-c search_path={search_path} -c lock_timeout={}", limit().as_millis())
}

/// Adds to the error of a statement that waited too long for a lock which session holds the lock. `client` is in no
/// transaction.
pub async fn explain(client: &Client, error: PgError) -> PgError {
    match holder(client, error.sql_state()).await {
        Some(holder) => PgError::Locked(holder),
        None => error,
    }
}

/// The session that most likely holds the lock that a statement has waited for: one that waits for no lock itself, first
/// those that exclude readers, then the oldest transaction. `None` for an error other than a lock timeout, and if only
/// sessions without a lock are left.
pub(crate) async fn holder(client: &Client, state: Option<&SqlState>) -> Option<Box<LockHolder>> {
    if state != Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return None;
    }
    // PostgreSQL's own relations have ids below 16384.
    let query = "
        SELECT a.pid, coalesce(nullif(a.application_name, ''), a.backend_type, 'a session')::text, a.xact_start,
               coalesce(a.query, '')::text
        FROM pg_stat_activity a
        JOIN (SELECT pid, bool_or(mode = 'AccessExclusiveLock') AS excludes_readers FROM pg_locks
              WHERE locktype = 'relation' AND relation >= 16384 AND pid <> pg_backend_pid()
                AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
              GROUP BY pid) l ON l.pid = a.pid
        WHERE cardinality(pg_blocking_pids(a.pid)) = 0
        ORDER BY l.excludes_readers DESC, a.xact_start LIMIT 1";
    let row = client.query_opt(query, &[]).await.ok()??;
    Some(Box::new(LockHolder::new(row.get(0), row.get(1), row.get(2), row.get(3))))
}

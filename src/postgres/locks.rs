//! Waits for locks of other sessions: their limit, and the session that holds a lock.

use crate::PgError;
use jiff::Timestamp;
use jiff::tz::TimeZone;
use leoflow_base::sys;
use std::fmt;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error};

/// How long a statement of an operation waits for a lock; a forgotten psql may hold one for days.
pub fn limit() -> Duration {
    sys::limit("LEOFLOW_LOCK_LIMIT", Duration::from_secs(30))
}

/// Startup options of a connection of an operation.
pub(crate) fn options(search_path: &str) -> String {
    format!("-c search_path={search_path} -c lock_timeout={}", limit().as_millis())
}

/// A session that holds a lock.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LockHolder {
    /// Pid of its server process.
    pub pid: i32,
    application: String,
    /// Start of its transaction; unknown if the role may not see it.
    since: Option<Timestamp>,
    /// The start of its last statement, on one line.
    statement: String,
}

/// Longest part of a statement that is shown, in characters.
const STATEMENT_LENGTH: usize = 60;

impl LockHolder {
    fn new(pid: i32, application: String, since: Option<Timestamp>, statement: &str) -> Self {
        let words: Vec<&str> = statement.split_whitespace().collect();
        let statement = words.join(" ").chars().filter(|c| !c.is_control()).take(STATEMENT_LENGTH).collect();
        Self { pid, application, since, statement }
    }
}

impl fmt::Display for LockHolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}, pid {}", self.application, self.pid)?;
        if let Some(since) = self.since {
            let since = since.to_zoned(TimeZone::system()).strftime("%Y-%m-%d %H:%M:%S");
            write!(f, ", in a transaction since {since}")?;
        }
        write!(f, "; its last statement: {}", self.statement)
    }
}

/// Adds to the error of a statement that waited too long for a lock which session holds the lock. `client` is in no
/// transaction.
pub async fn explain(client: &Client, error: PgError) -> PgError {
    if error.sql_state() != Some(&SqlState::LOCK_NOT_AVAILABLE) {
        return error;
    }
    match holder(client).await {
        Ok(Some(holder)) => PgError::Locked(Box::new(holder)),
        _ => error,
    }
}

/// The session that most likely holds the lock that a statement has waited for: one that waits for no lock itself, first
/// those that exclude readers, then the oldest transaction. `None` if only sessions without a lock are left.
pub(crate) async fn holder(client: &Client) -> Result<Option<LockHolder>, Error> {
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
    let row = client.query_opt(query, &[]).await?;
    Ok(row.map(|row| LockHolder::new(row.get(0), row.get(1), row.get(2), row.get(3))))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_session_and_the_start_of_its_statement() {
        let since = "2026-03-02T14:03:05Z".parse().unwrap();
        let statement = format!("ALTER TABLE orders\n  ADD {} int;", "long".repeat(20));
        let text = LockHolder::new(4711, "psql".to_owned(), Some(since), &statement).to_string();
        assert!(text.starts_with("psql, pid 4711, in a transaction since 2026-03-0"), "{text}");
        assert!(
            text.ends_with(":05; its last statement: ALTER TABLE orders ADD longlonglonglonglonglonglonglonglongl")
        );
    }
}

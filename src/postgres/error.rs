//! The datastore's errors.

use crate::fatal_message::{Cause, cause_of};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use std::fmt;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::error::SqlState;

/// Errors of the datastore, as far as callers distinguish them.
#[derive(Debug, thiserror::Error)]
pub enum PgError {
    #[error("the datastore does not answer at {0}")]
    Unreachable(PathBuf),
    /// A server behind the relay, or its login, cannot be used; the message is the relay's or names the login.
    #[error("{0}")]
    ExternalServer(String),
    #[error("this requires a server that Leoflow manages")]
    NotManaged,
    #[error("the datastore is starting up or recovering")]
    Recovering,
    #[error("the datastore rejects the stored password, because its data directory belongs to another instance")]
    WrongPassword,
    #[error("the database does not exist")]
    NoDatabase,
    #[error("the connection to the datastore was lost")]
    ConnectionLost,
    #[error("the datastore did not answer within {0:?}")]
    Timeout(Duration),
    #[error("waited too long for a lock that another session holds: {0}")]
    Locked(Box<LockHolder>),
    #[error("{}", describe(.0))]
    Query(#[from] tokio_postgres::Error),
}

/// Lets `?` convert the error of a query to an error with a variant `Postgres(PgError)`.
#[macro_export]
macro_rules! from_query_error {
    ($error:ty) => {
        impl From<tokio_postgres::Error> for $error {
            fn from(error: tokio_postgres::Error) -> Self {
                Self::Postgres(error.into())
            }
        }
    };
}

impl PgError {
    /// SQLSTATE of a failed query; `None` if the connection failed.
    pub fn sql_state(&self) -> Option<&SqlState> {
        let Self::Query(error) = self else { return None };
        error.as_db_error().map(tokio_postgres::error::DbError::code)
    }

    /// True when a retry may succeed: the server lacks resources, is stopping, or its machine has trouble. Classes 08,
    /// 53, 57 and 58 of <https://www.postgresql.org/docs/18/errcodes-appendix.html>.
    pub fn is_transient(&self) -> bool {
        let is_transient = |code: &str| ["08", "53", "57", "58"].iter().any(|class| code.starts_with(class));
        !self.is_damage() && self.sql_state().is_some_and(|state| is_transient(state.code()))
    }

    /// True when the data files are damaged, by error class or by a message about a page.
    pub fn is_damage(&self) -> bool {
        let damaged = [&SqlState::DATA_CORRUPTED, &SqlState::INDEX_CORRUPTED];
        self.sql_state().is_some_and(|state| damaged.contains(&state)) || self.cause() == Cause::Damaged
    }

    /// The cause of a failed query that the server's machine has trouble with. Other errors have texts that quote the
    /// user's data.
    pub fn cause(&self) -> Cause {
        let Self::Query(error) = self else { return Cause::Other };
        // Insufficient resources, system errors and internal errors.
        let classes = ["53", "58", "XX"];
        match error.as_db_error().filter(|db| classes.iter().any(|class| db.code().code().starts_with(class))) {
            Some(db) => cause_of(&format!("{} ({})", db.message(), db.detail().unwrap_or_default())),
            None => Cause::Other,
        }
    }
}

/// The server's message where there is one; the library's `Display` hides it.
fn describe(error: &tokio_postgres::Error) -> String {
    match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|detail| format!(" ({detail})")).unwrap_or_default();
            format!("{}: {}{detail}", db.severity(), db.message())
        }
        None => match std::error::Error::source(error) {
            Some(source) => format!("{error}: {source}"),
            None => error.to_string(),
        },
    }
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
    pub(crate) fn new(pid: i32, application: String, since: Option<Timestamp>, statement: &str) -> Self {
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

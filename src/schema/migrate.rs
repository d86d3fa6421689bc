//! Applying what is pending: one migrator at a time, each migration and its ledger row in one
//! transaction.

use super::classify::{self, State, classify};
use super::embedded::{Known, newest};
use super::{SchemaError, ledger};
use crate::postgres::PgError;
use std::error::Error as _;
use std::time::Duration;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient};

/// Key of the advisory lock: "leoflow" in ASCII. Everything that changes the schema takes it.
pub const LOCK_KEY: i64 = 0x006c_656f_666c_6f77;
/// How long one migrator waits for another.
const LOCK_PATIENCE: Duration = Duration::from_secs(120);
/// How long a migration waits for a table that somebody else has locked.
const TABLE_LOCK_PATIENCE: &str = "30s";

/// What was done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// File names, oldest first.
    pub files: Vec<String>,
    pub version: i64,
}

/// Brings the database to what `known` says. `lock` is a connection of its own that holds the
/// advisory lock meanwhile; `work` does the work. `version` is written into the ledger.
/// `report` hears of each migration once it is committed.
pub async fn migrate(
    lock: &Client,
    work: &mut Client,
    known: &[Known],
    version: &str,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    take_lock(lock).await?;
    let migrated = migrate_locked(work, known, version, report).await;
    release_lock(lock).await;
    migrated
}

async fn migrate_locked(
    work: &mut Client,
    known: &[Known],
    version: &str,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    let found = ledger::inspect(work).await?;
    let state = classify(known, &found);
    let pending: Vec<i64> = match refusal(&state) {
        Some(error) => return Err(error),
        None => match state {
            State::Pending { versions, .. } => versions,
            State::Fresh => known.iter().map(|known| known.version).collect(),
            _ => Vec::new(),
        },
    };
    // refinery creates its table and asks for rows even when there is nothing to do.
    if pending.is_empty() {
        return Ok(Applied { files: Vec::new(), version: classify::database_version(&found) });
    }
    apply(work, known, &pending, version, TABLE_LOCK_PATIENCE, report).await
}

/// Applies these of `known`, oldest first, each in one transaction with its row in the ledger.
pub(super) async fn apply(
    work: &mut Client,
    known: &[Known],
    versions: &[i64],
    version: &str,
    patience: &str,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    work.execute("SELECT set_config('leoflow.version', $1, false)", &[&version]).await?;
    work.batch_execute(&format!("SET lock_timeout = '{patience}'")).await?;
    let found = ledger::inspect(work).await?;
    let is_applied = |known: &&Known| found.ledger.iter().flatten().any(|row| row.version == known.version);
    let mut there: Vec<refinery::Migration> =
        known.iter().filter(is_applied).map(|known| known.migration.clone()).collect();
    let mut files = Vec::new();
    for known in known.iter().filter(|known| versions.contains(&known.version)) {
        // No other: what waits below it is not its business.
        there.push(known.migration.clone());
        refinery::Runner::new(&there)
            .set_grouped(false)
            .run_async(work)
            .await
            .map_err(|error| SchemaError::Failed { migration: known.file.clone(), reason: reason(&error) })?;
        crate::sys::checkpoint(&format!("migrated.{}", known.version));
        report(&known.file);
        files.push(known.file.clone());
    }
    // What comes later may be newer.
    let version = classify::database_version(&ledger::inspect(work).await?);
    Ok(Applied { files, version })
}

/// The server's own words, which refinery keeps as the source of its error.
fn reason(error: &refinery::Error) -> String {
    let mut source = error.source();
    while let Some(cause) = source {
        if let Some(postgres) = cause.downcast_ref::<tokio_postgres::Error>()
            && let Some(db) = postgres.as_db_error()
        {
            // It names a view of the user's that uses a column; other details hold values of rows.
            let names_objects = *db.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST;
            let detail = db.detail().filter(|_| names_objects).map(|detail| format!(" ({detail})")).unwrap_or_default();
            return format!("{}: {}{detail}", db.severity(), db.message());
        }
        source = cause.source();
    }
    error.to_string()
}

/// Fails unless the database is exactly at what `known` says: what a server asks at its start.
pub async fn require_current(client: &impl GenericClient, known: &[Known]) -> Result<i64, SchemaError> {
    let found = ledger::inspect(client).await?;
    let state = classify(known, &found);
    match refusal(&state) {
        Some(error) => Err(error),
        None => match state {
            State::Current { version } => Ok(version),
            _ => Err(SchemaError::NotMigrated { database: classify::database_version(&found), binary: newest(known) }),
        },
    }
}

/// The states that nothing may be written in.
pub fn refusal(state: &State) -> Option<SchemaError> {
    match state.clone() {
        State::Fresh | State::Current { .. } | State::Pending { .. } => None,
        State::Newer { database, binary } => Some(SchemaError::Newer { database, binary }),
        State::Edited { files } => Some(SchemaError::Edited(files)),
        State::Gap { missing } => Some(SchemaError::Gap(missing)),
        State::Damaged { reason } => Some(SchemaError::Damaged(reason)),
    }
}

pub(super) async fn take_lock(client: &Client) -> Result<(), SchemaError> {
    client.batch_execute(&format!("SET lock_timeout = '{}s'", LOCK_PATIENCE.as_secs())).await?;
    match client.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await {
        Ok(_) => Ok(()),
        Err(error) if error.code() == Some(&tokio_postgres::error::SqlState::LOCK_NOT_AVAILABLE) => {
            Err(SchemaError::Busy)
        }
        Err(error) => Err(PgError::from(error).into()),
    }
}

/// The end of the connection releases it too.
pub(super) async fn release_lock(client: &Client) {
    let _ = client.execute("SELECT pg_advisory_unlock($1)", &[&LOCK_KEY]).await;
}

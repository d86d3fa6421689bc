//! Data migrations that run in batches while the server works. Each batch and its new watermark are one transaction, so
//! that after an interruption the next batch neither repeats nor skips rows.

use super::SchemaError;
use super::embedded::{Batches, EmbeddedMigration};
use super::totals_guard::TotalsGuard;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, IsolationLevel, Row};

/// Target duration of a batch, which bounds how long other transactions wait for its rows.
const TARGET_DURATION: Duration = Duration::from_millis(50);
/// Smallest batch size, in rows.
const SMALLEST: i64 = 10;
/// Largest batch size, in rows.
const LARGEST: i64 = 5_000;
/// Hard limits of a batch.
const LIMITS: &str = "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '1s'";
/// Consecutive transient errors after which the migration fails.
const MAX_FAULTS: i32 = 100;
/// Transient errors, which the rows did not cause.
const TRANSIENT: [SqlState; 4] = [
    SqlState::T_R_SERIALIZATION_FAILURE,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::LOCK_NOT_AVAILABLE,
    SqlState::QUERY_CANCELED,
];

leoflow_base::words! {
    #[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
    #[serde(rename_all = "snake_case")]
    pub enum Status: name {
        Pending = "pending",
        Running = "running",
        /// Every row was processed; not yet verified.
        Done = "done",
        Failed = "failed",
        /// A count found no row left.
        Verified = "verified",
    }
}

/// The progress of a data migration.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    pub version: i64,
    /// The name with the version: `V0013__name`.
    pub migration: String,
    pub status: Status,
    pub is_paused: bool,
    /// Number of the pass over all rows; another one begins when verification finds rows left.
    pub round: i32,
    pub batches: i64,
    /// Number of changed rows.
    pub rows: i64,
    pub batch_size: i64,
    /// The position up to which rows were processed.
    pub watermark: Option<Value>,
    pub error: Option<String>,
    #[serde(serialize_with = "as_text")]
    pub started_at: Option<Timestamp>,
    #[serde(serialize_with = "as_text")]
    pub updated_at: Option<Timestamp>,
    #[serde(serialize_with = "as_text")]
    pub verified_at: Option<Timestamp>,
}

fn as_text<S: serde::Serializer>(time: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    time.map(|time| time.to_string()).serialize(serializer)
}

impl Progress {
    /// True when there is work to do and the migration is not paused.
    pub fn is_due(&self) -> bool {
        !self.is_paused && matches!(self.status, Status::Pending | Status::Running | Status::Done)
    }
}

const COLUMNS: &str = "status, is_paused, round, batches, rows, batch_size, watermark, error, started_at, updated_at,
                       verified_at";

fn progress_from_row(known: &EmbeddedMigration, row: &Row) -> Progress {
    Progress {
        version: known.version,
        migration: label(known),
        // A check constraint allows no other text.
        status: Status::parse(row.get("status")).unwrap_or(Status::Pending),
        is_paused: row.get("is_paused"),
        round: row.get("round"),
        batches: row.get("batches"),
        rows: row.get("rows"),
        batch_size: row.get("batch_size"),
        watermark: row.get("watermark"),
        error: row.get("error"),
        started_at: row.get("started_at"),
        updated_at: row.get("updated_at"),
        verified_at: row.get("verified_at"),
    }
}

/// The name with the version: `V0013__name`.
fn label(known: &EmbeddedMigration) -> String {
    format!("V{:04}__{}", known.version, known.name)
}

/// The version as the table stores it.
fn key(known: &EmbeddedMigration) -> i32 {
    // This loses nothing, because the version was parsed from an i32.
    i32::try_from(known.version).unwrap_or(i32::MAX)
}

fn batches(known: &EmbeddedMigration) -> Result<&Batches, SchemaError> {
    known.batches.as_ref().ok_or_else(|| SchemaError::NoDataMigration(label(known)))
}

/// Lists the applied data migrations, oldest first. Read-only.
pub async fn list(client: &impl GenericClient, known: &[EmbeddedMigration]) -> Result<Vec<Progress>, SchemaError> {
    let mut results = Vec::new();
    if client.query_one("SELECT to_regclass('public.data_migration') IS NULL", &[]).await?.get(0) {
        return Ok(results);
    }
    for known in known.iter().filter(|known| known.batches.is_some()) {
        results.extend(progress(client, known).await?);
    }
    Ok(results)
}

/// Reads the progress; `None` when the migration is not applied.
pub async fn progress(client: &impl GenericClient, known: &EmbeddedMigration) -> Result<Option<Progress>, SchemaError> {
    let query = format!("SELECT {COLUMNS} FROM data_migration WHERE version = $1");
    Ok(client.query_opt(&query, &[&key(known)]).await?.map(|row| progress_from_row(known, &row)))
}

/// Counts the rows still to be changed. Reads the whole table.
pub async fn remaining_rows(client: &impl GenericClient, known: &EmbeddedMigration) -> Result<i64, SchemaError> {
    Ok(client.query_one(&batches(known)?.left, &[]).await?.get(0))
}

/// The outcome of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// There may be more rows. `took` is how long other transactions may have waited for its rows.
    Moved { rows: i64, took: Duration },
    /// Another process is running the migration, or a transient error occurred; retry later.
    Blocked,
    /// The round is over.
    Done,
    /// Nothing to do: the migration is paused, failed, done, or no longer applied.
    Nothing,
}

/// Runs the next batch. Concurrent callers take turns. A batch that changes the answer of one of the guard's invariants
/// is rolled back, and the migration fails.
pub async fn advance(
    client: &mut Client,
    known: &EmbeddedMigration,
    guard: &mut TotalsGuard,
) -> Result<Batch, SchemaError> {
    match run_batch(client, known, guard).await {
        Ok(batch) => Ok(batch),
        Err(error @ SchemaError::Totals(_)) => {
            record_fault(client, known, &error.to_string(), false).await?;
            Ok(Batch::Nothing)
        }
        Err(SchemaError::Postgres(error)) => {
            // Class 57P ends the connection, so the fault cannot be recorded through it.
            let Some(fault) = error.sql_state().filter(|fault| !fault.code().starts_with("57P")) else {
                return Err(error.into());
            };
            // Class 53: out of disk, memory or connections.
            let is_transient = TRANSIENT.contains(fault) || fault.code().starts_with("53");
            let may_retry = record_fault(client, known, &error.to_string(), is_transient).await?;
            Ok(if may_retry { Batch::Blocked } else { Batch::Nothing })
        }
        Err(other) => Err(other),
    }
}

/// Runs one batch in a transaction with its progress.
async fn run_batch(
    client: &mut Client,
    known: &EmbeddedMigration,
    guard: &mut TotalsGuard,
) -> Result<Batch, SchemaError> {
    let batches = batches(known)?;
    let is_compared = guard.is_due();
    let isolation = if is_compared { IsolationLevel::RepeatableRead } else { IsolationLevel::ReadCommitted };
    let transaction = client.build_transaction().isolation_level(isolation).start().await?;
    transaction.batch_execute(LIMITS).await?;
    let query = format!("SELECT {COLUMNS} FROM data_migration WHERE version = $1 FOR UPDATE SKIP LOCKED");
    let Some(row) = transaction.query_opt(&query, &[&key(known)]).await? else {
        let exists = progress(&transaction, known).await?.is_some();
        return Ok(if exists { Batch::Blocked } else { Batch::Nothing });
    };
    let current = progress_from_row(known, &row);
    if current.is_paused || !matches!(current.status, Status::Pending | Status::Running) {
        return Ok(Batch::Nothing);
    }
    let began_with_comparison = Instant::now();
    let before = if is_compared { Some(guard.before(&transaction).await?) } else { None };
    let began = Instant::now();
    let row = transaction
        .query_one(&batches.batch, &[&current.watermark, &current.batch_size.clamp(SMALLEST, LARGEST)])
        .await?;
    let (watermark, rows): (Option<Value>, i64) = (row.get(0), row.get(1));
    let took = began.elapsed();
    if let Some(before) = before {
        guard.after(&transaction, before).await?;
    }
    let status = if watermark.is_some() { Status::Running } else { Status::Done };
    let update = "UPDATE data_migration
                  SET status = $2, watermark = $3, batches = batches + 1, rows = rows + $4, batch_size = $5,
                      error = NULL, faults = 0, started_at = coalesce(started_at, now()), updated_at = now()
                  WHERE version = $1";
    let size = next_size(current.batch_size, took);
    transaction.execute(update, &[&key(known), &status.name(), &watermark, &rows, &size]).await?;
    leoflow_base::sys::checkpoint("data-migration.batch");
    transaction.commit().await?;
    leoflow_base::sys::checkpoint("data-migration.committed");
    // The caller pauses as long as the batch loaded the datastore, which includes the comparison of the invariants.
    let took = began_with_comparison.elapsed();
    Ok(if status == Status::Done { Batch::Done } else { Batch::Moved { rows, took } })
}

/// Adjusts the batch size towards the target duration, by at most a factor of two.
fn next_size(size: i64, took: Duration) -> i64 {
    let ratio = (TARGET_DURATION.as_secs_f64() / took.as_secs_f64().max(0.001)).clamp(0.5, 2.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most twice LARGEST")]
    let next = (size.clamp(SMALLEST, LARGEST) as f64 * ratio) as i64;
    next.clamp(SMALLEST, LARGEST)
}

/// Records an error and halves the batch size. Returns true when the batch may be retried.
async fn record_fault(
    client: &Client,
    known: &EmbeddedMigration,
    error: &str,
    is_transient: bool,
) -> Result<bool, SchemaError> {
    let update = "UPDATE data_migration
                  SET error = $2, updated_at = now(), batch_size = greatest(batch_size / 2, $3), faults = faults + 1,
                      status = CASE WHEN $4 AND faults < $5 THEN status ELSE 'failed' END
                  WHERE version = $1 AND status IN ('pending', 'running') RETURNING status";
    let row = client.query_opt(update, &[&key(known), &error, &SMALLEST, &is_transient, &MAX_FAULTS]).await?;
    Ok(row.is_some_and(|row| row.get::<_, String>(0) != Status::Failed.name()))
}

/// Counts the rows left. Without any, a finished migration becomes verified; otherwise another round begins.
pub async fn verify(client: &impl GenericClient, known: &EmbeddedMigration) -> Result<i64, SchemaError> {
    let remaining = remaining_rows(client, known).await?;
    let update = if remaining == 0 {
        "UPDATE data_migration SET status = 'verified', verified_at = now(), updated_at = now(), error = NULL
         WHERE version = $1 AND status = 'done'"
    } else {
        "UPDATE data_migration
         SET status = 'pending', watermark = NULL, round = round + 1, verified_at = NULL, updated_at = now()
         WHERE version = $1 AND status IN ('done', 'verified')"
    };
    client.execute(update, &[&key(known)]).await?;
    Ok(remaining)
}

/// Pauses the migration after the running batch, until it is resumed.
pub async fn pause(client: &impl GenericClient, known: &EmbeddedMigration) -> Result<(), SchemaError> {
    let update = "UPDATE data_migration SET is_paused = true, updated_at = now() WHERE version = $1";
    client.execute(update, &[&key(known)]).await?;
    Ok(())
}

/// Resumes a paused or failed migration.
pub async fn resume(client: &impl GenericClient, known: &EmbeddedMigration) -> Result<(), SchemaError> {
    let update = "UPDATE data_migration
                  SET is_paused = false, error = NULL, faults = 0, updated_at = now(),
                      status = CASE status WHEN 'failed' THEN 'pending' ELSE status END
                  WHERE version = $1";
    client.execute(update, &[&key(known)]).await?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn batch_size_follows_the_target_duration() {
        let next = |size, millis| next_size(size, Duration::from_millis(millis));
        assert_eq!((next(500, 50), next(500, 10), next(500, 75), next(500, 900)), (500, 1000, 333, 250));
        assert_eq!((next(12, 900), next(4_000, 0), next(-5, 50)), (SMALLEST, LARGEST, SMALLEST));
    }
}

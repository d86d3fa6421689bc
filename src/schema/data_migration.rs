//! Data migrations that run in batches beside the server. Each batch is one transaction with the watermark that it
//! leads to: cut off anywhere, the next one goes on from there, and nothing is done twice or left out.

use super::SchemaError;
use super::batches::Batches;
use super::embedded::Known;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::time::{Duration, Instant};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, GenericClient, Row};

/// So long a batch may take: whoever wants one of its rows waits no longer.
const WANTED: Duration = Duration::from_millis(50);
const SMALLEST: i64 = 10;
const LARGEST: i64 = 5_000;
/// It may never be in the way of others for longer.
const LIMITS: &str = "SET LOCAL statement_timeout = '10s'; SET LOCAL lock_timeout = '1s'";
/// What is only passing may be in the way of so many batches in a row.
const MOST_FAULTS: i32 = 100;
/// Something else was in the way, not the rows.
const PASSING: [SqlState; 4] = [
    SqlState::T_R_SERIALIZATION_FAILURE,
    SqlState::T_R_DEADLOCK_DETECTED,
    SqlState::LOCK_NOT_AVAILABLE,
    SqlState::QUERY_CANCELED,
];

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Pending,
    Running,
    /// Every row was gone over; whether one is left is not yet verified.
    Done,
    Failed,
    /// None is left.
    Verified,
}

impl Status {
    const ALL: [(Self, &'static str); 5] = [
        (Self::Pending, "pending"),
        (Self::Running, "running"),
        (Self::Done, "done"),
        (Self::Failed, "failed"),
        (Self::Verified, "verified"),
    ];

    pub fn name(self) -> &'static str {
        Self::ALL.iter().find(|(status, _)| *status == self).map_or("pending", |(_, name)| name)
    }

    /// What the database says, whose check lets nothing else in.
    fn read(text: &str) -> Self {
        Self::ALL.iter().find(|(_, name)| *name == text).map_or(Self::Pending, |(status, _)| *status)
    }
}

/// How far one has come.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Progress {
    pub version: i64,
    /// `V0013__name`
    pub migration: String,
    pub status: Status,
    pub is_paused: bool,
    pub round: i32,
    pub batches: i64,
    /// Those that it changed.
    pub rows: i64,
    pub batch_size: i64,
    pub watermark: Option<Value>,
    pub error: Option<String>,
    #[serde(serialize_with = "as_text")]
    pub started_at: Option<Timestamp>,
    #[serde(serialize_with = "as_text")]
    pub updated_at: Option<Timestamp>,
    #[serde(serialize_with = "as_text")]
    pub verified_at: Option<Timestamp>,
}

fn as_text<S: serde::Serializer>(at: &Option<Timestamp>, serializer: S) -> Result<S::Ok, S::Error> {
    at.map(|at| at.to_string()).serialize(serializer)
}

impl Progress {
    /// Whether there is something to do that nobody has stopped.
    pub fn is_due(&self) -> bool {
        !self.is_paused && matches!(self.status, Status::Pending | Status::Running | Status::Done)
    }
}

const COLUMNS: &str = "status, is_paused, round, batches, rows, batch_size, watermark, error, started_at, updated_at,
                       verified_at";

fn read(known: &Known, row: &Row) -> Progress {
    Progress {
        version: known.version,
        migration: label(known),
        status: Status::read(row.get("status")),
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

fn label(known: &Known) -> String {
    format!("V{:04}__{}", known.version, known.name)
}

fn key(known: &Known) -> i32 {
    // It was parsed from such a number.
    i32::try_from(known.version).unwrap_or(i32::MAX)
}

fn batches(known: &Known) -> Result<&Batches, SchemaError> {
    known.batches.as_ref().ok_or_else(|| SchemaError::NoDataMigration(label(known)))
}

/// All that are applied, oldest first. Changes nothing.
pub async fn list(client: &impl GenericClient, known: &[Known]) -> Result<Vec<Progress>, SchemaError> {
    let mut all = Vec::new();
    if client.query_one("SELECT to_regclass('public.data_migration') IS NULL", &[]).await?.get(0) {
        return Ok(all);
    }
    for known in known.iter().filter(|known| known.batches.is_some()) {
        all.extend(progress(client, known).await?);
    }
    Ok(all)
}

/// How far it has come; `None` when it is not applied.
pub async fn progress(client: &impl GenericClient, known: &Known) -> Result<Option<Progress>, SchemaError> {
    let query = format!("SELECT {COLUMNS} FROM data_migration WHERE version = $1");
    Ok(client.query_opt(&query, &[&key(known)]).await?.map(|row| read(known, &row)))
}

/// How many rows are still to be changed. Reads the whole table.
pub async fn left(client: &impl GenericClient, known: &Known) -> Result<i64, SchemaError> {
    Ok(client.query_one(&batches(known)?.left, &[]).await?.get(0))
}

/// What came of a batch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Batch {
    /// There may be more. `took` is how long others had to wait for its rows.
    Moved { rows: i64, took: Duration },
    /// Somebody else is at it, or in the way: it is tried again in a while.
    Hindered,
    /// The round is over.
    Done,
    /// It is paused, has failed, is done, or is not there any more.
    Nothing,
}

/// Does the next batch. Two that do this at the same time take turns.
pub async fn advance(client: &mut Client, known: &Known) -> Result<Batch, SchemaError> {
    match one_batch(client, known).await {
        Ok(batch) => Ok(batch),
        Err(SchemaError::Postgres(error)) => {
            // One that ends the connection is of class 57P: nobody can be told through it.
            let Some(fault) = error.sql_state().filter(|fault| !fault.code().starts_with("57P")) else {
                return Err(error.into());
            };
            // Class 53: the disk, memory or connections are used up.
            let may_pass = PASSING.contains(fault) || fault.code().starts_with("53");
            let goes_on = note_fault(client, known, &error.to_string(), may_pass).await?;
            Ok(if goes_on { Batch::Hindered } else { Batch::Nothing })
        }
        Err(other) => Err(other),
    }
}

async fn one_batch(client: &mut Client, known: &Known) -> Result<Batch, SchemaError> {
    let batches = batches(known)?;
    let transaction = client.transaction().await?;
    transaction.batch_execute(LIMITS).await?;
    let query = format!("SELECT {COLUMNS} FROM data_migration WHERE version = $1 FOR UPDATE SKIP LOCKED");
    let Some(row) = transaction.query_opt(&query, &[&key(known)]).await? else {
        let is_there = progress(&transaction, known).await?.is_some();
        return Ok(if is_there { Batch::Hindered } else { Batch::Nothing });
    };
    let now = read(known, &row);
    if now.is_paused || !matches!(now.status, Status::Pending | Status::Running) {
        return Ok(Batch::Nothing);
    }
    let began = Instant::now();
    let row =
        transaction.query_one(&batches.batch, &[&now.watermark, &now.batch_size.clamp(SMALLEST, LARGEST)]).await?;
    let (watermark, rows): (Option<Value>, i64) = (row.get(0), row.get(1));
    let took = began.elapsed();
    let status = if watermark.is_some() { Status::Running } else { Status::Done };
    let update = "UPDATE data_migration
                  SET status = $2, watermark = $3, batches = batches + 1, rows = rows + $4, batch_size = $5,
                      error = NULL, faults = 0, started_at = coalesce(started_at, now()), updated_at = now()
                  WHERE version = $1";
    let size = next_size(now.batch_size, took);
    transaction.execute(update, &[&key(known), &status.name(), &watermark, &rows, &size]).await?;
    crate::sys::checkpoint("data-migration.batch");
    transaction.commit().await?;
    crate::sys::checkpoint("data-migration.committed");
    Ok(if status == Status::Done { Batch::Done } else { Batch::Moved { rows, took } })
}

/// Towards what takes as long as is wanted, at most twice or half of what it was.
fn next_size(size: i64, took: Duration) -> i64 {
    let ratio = (WANTED.as_secs_f64() / took.as_secs_f64().max(0.001)).clamp(0.5, 2.0);
    #[expect(clippy::cast_possible_truncation, clippy::cast_precision_loss, reason = "at most twice LARGEST")]
    let next = (size.clamp(SMALLEST, LARGEST) as f64 * ratio) as i64;
    next.clamp(SMALLEST, LARGEST)
}

/// Whether it goes on, with a smaller batch.
async fn note_fault(client: &Client, known: &Known, error: &str, may_pass: bool) -> Result<bool, SchemaError> {
    let update = "UPDATE data_migration
                  SET error = $2, updated_at = now(), batch_size = greatest(batch_size / 2, $3), faults = faults + 1,
                      status = CASE WHEN $4 AND faults < $5 THEN status ELSE 'failed' END
                  WHERE version = $1 AND status IN ('pending', 'running') RETURNING status";
    let row = client.query_opt(update, &[&key(known), &error, &SMALLEST, &may_pass, &MOST_FAULTS]).await?;
    Ok(row.is_some_and(|row| row.get::<_, String>(0) != Status::Failed.name()))
}

/// Counts what is left. With none it is verified, once it is done; with some another round begins.
pub async fn verify(client: &impl GenericClient, known: &Known) -> Result<i64, SchemaError> {
    let left = left(client, known).await?;
    let update = if left == 0 {
        "UPDATE data_migration SET status = 'verified', verified_at = now(), updated_at = now(), error = NULL
         WHERE version = $1 AND status = 'done'"
    } else {
        "UPDATE data_migration
         SET status = 'pending', watermark = NULL, round = round + 1, verified_at = NULL, updated_at = now()
         WHERE version = $1 AND status IN ('done', 'verified')"
    };
    client.execute(update, &[&key(known)]).await?;
    Ok(left)
}

/// It stops after the batch that is under way, until it is resumed.
pub async fn pause(client: &impl GenericClient, known: &Known) -> Result<(), SchemaError> {
    let update = "UPDATE data_migration SET is_paused = true, updated_at = now() WHERE version = $1";
    client.execute(update, &[&key(known)]).await?;
    Ok(())
}

/// It goes on, also where it has failed.
pub async fn resume(client: &impl GenericClient, known: &Known) -> Result<(), SchemaError> {
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
    fn batches_grow_and_shrink_towards_what_is_wanted() {
        let next = |size, millis| next_size(size, Duration::from_millis(millis));
        assert_eq!((next(500, 50), next(500, 10), next(500, 75), next(500, 900)), (500, 1000, 333, 250));
        assert_eq!((next(12, 900), next(4_000, 0), next(-5, 50)), (SMALLEST, LARGEST, SMALLEST));
    }
}

//! Applies pending migrations: one migrator at a time, each migration and its ledger row in one transaction.

use super::embedded::EmbeddedMigration;
use super::schema_state::{State, classify, database_version};
use super::start_check::refusal;
use super::{SchemaError, ledger};
use crate::locks;
use leoflow_base::sys::process::free_memory;
use std::error::Error as _;
use std::time::Duration;
use tokio_postgres::Client;
use tokio_postgres::error::{DbError, SqlState};

/// Key of the advisory lock ("leoflow" in ASCII) that every schema change takes.
pub const LOCK_KEY: i64 = 0x006c_656f_666c_6f77;
/// How long a migrator waits for another one.
const LOCK_WAIT: Duration = Duration::from_secs(120);

/// The result of a migration.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Applied {
    /// File names, oldest first.
    pub files: Vec<String>,
    pub version: i64,
}

/// Applies all pending migrations of `known`. `lock` is a separate connection that holds the advisory lock;
/// `migration_client` runs the migrations. `version` is written into the ledger. `report` is called after each
/// committed migration.
pub async fn migrate(
    lock: &Client,
    migration_client: &mut Client,
    known: &[EmbeddedMigration],
    version: &str,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    locked(lock, migrate_locked(migration_client, known, version, report)).await
}

async fn migrate_locked(
    migration_client: &mut Client,
    known: &[EmbeddedMigration],
    version: &str,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    let records = ledger::inspect(migration_client).await?;
    let state = classify(known, &records);
    let pending: Vec<i64> = match refusal(&state) {
        Some(error) => return Err(error),
        None => match state {
            State::Pending { versions, .. } => versions,
            State::Fresh => known.iter().map(|known| known.version).collect(),
            _ => Vec::new(),
        },
    };
    // Skips refinery, which creates and reads its table even without migrations.
    if pending.is_empty() {
        return Ok(Applied { files: Vec::new(), version: database_version(&records) });
    }
    apply(migration_client, known, &pending, version, locks::limit(), report).await
}

/// Applies the given versions of `known`, oldest first, each in one transaction with its ledger row.
pub(super) async fn apply(
    migration_client: &mut Client,
    known: &[EmbeddedMigration],
    versions: &[i64],
    version: &str,
    lock_limit: Duration,
    report: &mut dyn FnMut(&str),
) -> Result<Applied, SchemaError> {
    migration_client.execute("SELECT set_config('leoflow.version', $1, false)", &[&version]).await?;
    prepare(migration_client, lock_limit).await?;
    let records = ledger::inspect(migration_client).await?;
    let is_applied =
        |known: &&EmbeddedMigration| records.ledger.iter().flatten().any(|row| row.version == known.version);
    let mut included: Vec<refinery::Migration> =
        known.iter().filter(is_applied).map(|known| known.migration.clone()).collect();
    let mut files = Vec::new();
    for known in known.iter().filter(|known| versions.contains(&known.version)) {
        // Adds only this migration, because older deferred ones may still be waiting.
        included.push(known.migration.clone());
        let outcome = refinery::Runner::new(&included).set_grouped(false).run_async(migration_client).await;
        let failed = |error: refinery::Error| (reason(&error), database_error(&error).map(|db| db.code().clone()));
        if let Some((reason, state)) = outcome.err().map(failed) {
            return Err(failure(migration_client, format!("migration {}", known.file), reason, state.as_ref()).await);
        }
        leoflow_base::sys::checkpoint(&format!("migrated.{}", known.version));
        report(&known.file);
        files.push(known.file.clone());
    }
    // A deferred migration may be older than the newest applied one.
    let version = database_version(&ledger::inspect(migration_client).await?);
    Ok(Applied { files, version })
}

/// Sets up a connection that changes the schema. An index of a large table is built in memory where there is enough,
/// because requests wait for it during an upgrade. Parallel workers stay off: they share their memory in /dev/shm, of
/// which containers have 64 MB.
pub(super) async fn prepare(migration_client: &Client, lock_limit: Duration) -> Result<(), tokio_postgres::Error> {
    let megabytes = work_memory(free_memory::bytes());
    let settings = format!("SET lock_timeout = {}; SET maintenance_work_mem = '{megabytes}MB'", lock_limit.as_millis());
    migration_client.batch_execute(&settings).await
}

/// The memory for building an index, in MB: an eighth of what is free, at least PostgreSQL's default.
fn work_memory(free_bytes: Option<u64>) -> u64 {
    (free_bytes.unwrap_or(0) / 8 / (1024 * 1024)).clamp(64, 256)
}

/// The error of a migration or rollback that failed and whose transaction has ended. If it waited too long for a lock,
/// the error names the session that holds the lock.
pub(super) async fn failure(client: &Client, action: String, reason: String, state: Option<&SqlState>) -> SchemaError {
    match locks::holder(client, state).await {
        Some(holder) => SchemaError::Locked { action, holder },
        None => SchemaError::Failed { action, reason },
    }
}

/// The server's error, which refinery keeps as a source of its own.
fn database_error(error: &refinery::Error) -> Option<&DbError> {
    std::iter::successors(error.source(), |&cause| cause.source())
        .find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>()?.as_db_error())
}

/// The message of the server's error.
fn reason(error: &refinery::Error) -> String {
    let Some(db) = database_error(error) else { return error.to_string() };
    // This detail names the user's objects that use a column; other details may contain row values.
    let names_objects = *db.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST;
    let detail = db.detail().filter(|_| names_objects).map(|detail| format!(" ({detail})")).unwrap_or_default();
    format!("{}: {}{detail}", db.severity(), db.message())
}

/// Does `work` while `lock` holds the advisory lock of schema changes; `Busy` if another migrator holds it for too long.
pub(super) async fn locked<T>(
    lock: &Client,
    work: impl Future<Output = Result<T, SchemaError>>,
) -> Result<T, SchemaError> {
    lock.batch_execute(&format!("SET lock_timeout = '{}s'", LOCK_WAIT.as_secs())).await?;
    lock.execute("SELECT pg_advisory_lock($1)", &[&LOCK_KEY]).await.map_err(|error| match error.code() {
        Some(&SqlState::LOCK_NOT_AVAILABLE) => SchemaError::Busy,
        _ => error.into(),
    })?;
    let done = work.await;
    // Closing the connection releases the lock too.
    let _ = lock.execute("SELECT pg_advisory_unlock($1)", &[&LOCK_KEY]).await;
    done
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_for_indexes_is_bounded_by_the_free_memory() {
        let free = |megabytes: u64| work_memory(Some(megabytes * 1024 * 1024));
        assert_eq!((free(100), free(1024), free(64 * 1024)), (64, 128, 256));
        assert_eq!(work_memory(None), 64);
    }
}

//! Loads an untrusted dump and verifies the result: it must have the rows that the manifest lists, in tables as our
//! migrations create them, and the backup's key must decrypt it.

use super::load_error::LoadError;
use super::scratch::Scratch;
use super::{pg_restore, schema_check};
use crate::backup::create::dump::{count, schema_text};
use crate::backup::create::survey::{self, Survey};
use crate::backup::format::manifest::Manifest;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::{blocking, checkpoint, limit};
use leoflow_engine::store::secret::encryption_key;
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::schema::{self, EmbeddedMigration};
use leoflow_postgres::totals::{self, Answer, Limits};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_postgres::Client;

/// Time limit of one invariant; longer than in a backup, because this machine may be slower than the one that made it.
const TIME_LIMIT: Duration = Duration::from_secs(120);
/// Interval between progress reports.
const TICK: Duration = Duration::from_millis(100);
/// Progress reports between two checks of the database's size, which look at each of its files.
const TICKS_PER_SIZE_CHECK: u64 = 5;
/// Bytes by which the loaded database may exceed twice its declared size.
const SIZE_TOLERANCE: u64 = 256 * 1024 * 1024;

/// Time limit of a small load, because a dump may contain a statement that never ends.
const LOAD_LIMIT: Duration = Duration::from_secs(15 * 60);
/// Bytes that even a slow disk loads in a second. A load gets `LOAD_LIMIT` and the time for its size at this rate.
const MIN_LOAD_RATE: u64 = 1024 * 1024;
/// Maximum of that extra time, because a hostile manifest may declare any size.
const MAX_EXTRA_TIME: Duration = Duration::from_secs(6 * 60 * 60);

/// Time limit for a database of this size.
fn time_limit(database_bytes: u64) -> Duration {
    let extra = Duration::from_secs(database_bytes / MIN_LOAD_RATE).min(MAX_EXTRA_TIME);
    limit("LEOFLOW_LOAD_LIMIT", LOAD_LIMIT) + extra
}

/// Loads `dump`, a file written by `pg_dump -Fc -Z0 | zstd`, into the scratch database, migrates it to this binary's
/// schema, and verifies it. All sessions use the scratch role. Ends them when the size limit or time limit is exceeded.
pub async fn load(
    scratch: &Scratch,
    dump: &Path,
    manifest: &Manifest,
    cipher: &Cipher,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<(), LoadError> {
    let fed = Arc::new(AtomicU64::new(0));
    let declared = manifest.database.bytes;
    let size_limit = declared.saturating_mul(2).saturating_add(SIZE_TOLERANCE);
    let too_large = async {
        let mut tick = tokio::time::interval(TICK);
        for count in 1_u64.. {
            tick.tick().await;
            let (done, total) = (fed.load(Ordering::Relaxed), manifest.database.dump_bytes);
            if done < total {
                reporter.report(Progress::Bytes { what: "Loading the database".to_owned(), done, total });
            }
            // An error is ignored here: the load reports it.
            if count % TICKS_PER_SIZE_CHECK == 0 && scratch.size().await.is_ok_and(|size| size > size_limit) {
                return;
            }
        }
    };
    tokio::select! {
        outcome = load_and_compare(scratch, dump, manifest, cipher, version, reporter, &fed) => outcome,
        () = too_large => {
            // pg_restore ends with its connection.
            scratch.interrupt().await?;
            Err(LoadError::TooLarge { declared })
        }
        () = tokio::time::sleep(time_limit(declared)) => {
            scratch.interrupt().await?;
            Err(LoadError::TooSlow { limit: time_limit(declared) })
        }
    }
}

/// Does the work of `load`, without the limits. `fed` is the number of bytes passed to `pg_restore` so far.
async fn load_and_compare(
    scratch: &Scratch,
    dump: &Path,
    manifest: &Manifest,
    cipher: &Cipher,
    version: &str,
    reporter: &dyn Reporter,
    fed: &Arc<AtomicU64>,
) -> Result<(), LoadError> {
    let has_deferred = schema::known().iter().any(|known| known.phase.is_deferred());
    // With deferred migrations the reference depends on those that the loaded database has applied.
    let expected = async {
        match has_deferred {
            true => Ok(None),
            false => reference_schema(scratch, version, &[]).await.map(Some),
        }
    };
    let (restored, expected) = tokio::join!(pg_restore::run(scratch, dump, manifest, fed), expected);
    let expected = expected?;
    restored?;
    checkpoint("load.loaded");
    reporter.report(Progress::Started("Verifying the loaded data".to_owned()));
    let standby = scratch.standby_login();
    let untrusted = scratch.access.connect_untrusted(&standby).await?;
    let inventory = survey::survey(&untrusted, survey::Tables::Known).await?;
    let foreign = inventory.changes.iter().chain(inventory.others.iter().map(|(name, _)| name)).next();
    if let Some(name) = foreign {
        return Err(LoadError::Foreign(name.clone()));
    }
    compare_counts(&untrusted, &inventory, manifest).await?;
    // The database has no object that could run code, so sessions may use the ordinary search path from here on.
    let client = scratch.access.connect(&standby).await?;
    compare_invariants(&client, manifest, reporter).await?;
    if migrate_loaded(&client, scratch, manifest, version).await? == Migrated::Yes {
        compare_invariants(&client, manifest, reporter).await?;
    }
    encryption_key::check(&client, cipher).await.map_err(LoadError::Key)?;
    let user_tables: Vec<String> = inventory.user_relations.iter().map(|relation| relation.name.clone()).collect();
    let access = scratch.access.clone();
    let text = run_blocking(move || schema_text(&access, &standby, &user_tables)).await??;
    let expected = match expected {
        Some(expected) => expected,
        None => reference_schema(scratch, version, &waiting_versions(&client).await?).await?,
    };
    match schema_check::difference(&expected, &text) {
        Some(difference) => Err(LoadError::Different(difference)),
        None => Ok(()),
    }
}

/// Versions of the deferred migrations that are not applied yet.
async fn waiting_versions(client: &Client) -> Result<Vec<i64>, LoadError> {
    let ledger = schema::inspect(client).await?;
    Ok(schema::waiting(schema::known(), &ledger).iter().map(|known| known.version).collect())
}

/// Checks the schema version, replaces the rollback scripts in the database with this binary's, and applies the missing
/// migrations.
async fn migrate_loaded(
    client: &Client,
    scratch: &Scratch,
    manifest: &Manifest,
    version: &str,
) -> Result<Migrated, LoadError> {
    let state = schema::inspect(client).await?;
    if let Some(error) = schema::refusal(&schema::classify(schema::known(), &state)) {
        return Err(LoadError::SchemaRefused(error));
    }
    let actual = schema::database_version(&state);
    if actual != manifest.schema_version {
        return Err(LoadError::Version { declared: manifest.schema_version, found: actual });
    }
    schema::own_rollbacks(client).await?;
    let mut migration_client = scratch.access.connect(&scratch.standby_login()).await?;
    let applied = schema::migrate(client, &mut migration_client, schema::known(), version, &mut |_| {}).await?;
    Ok(if applied.files.is_empty() { Migrated::No } else { Migrated::Yes })
}

/// Whether migrations were applied.
#[derive(PartialEq, Eq)]
enum Migrated {
    Yes,
    No,
}

async fn run_blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    blocking::run(work).await.map_err(|_| LoadError::ThreadEnded)
}

/// Dumps the schema that our migrations create, except the versions in `excluded`.
async fn reference_schema(scratch: &Scratch, version: &str, excluded: &[i64]) -> Result<String, LoadError> {
    let login = scratch.reference_login();
    let (lock_client, mut migration_client) =
        (scratch.access.connect(&login).await?, scratch.access.connect(&login).await?);
    let known: Vec<EmbeddedMigration> =
        schema::known().iter().filter(|known| !excluded.contains(&known.version)).cloned().collect();
    let migrated = schema::migrate(&lock_client, &mut migration_client, &known, version, &mut |_| {}).await;
    migrated.map_err(LoadError::Reference)?;
    let access = scratch.access.clone();
    Ok(run_blocking(move || schema_text(&access, &login, &[])).await??)
}

/// Compares the row count of each table with the manifest.
async fn compare_counts(client: &Client, inventory: &Survey, manifest: &Manifest) -> Result<(), LoadError> {
    let counts = count(client, inventory.tables()).await?;
    let row_count_text = |rows: Option<&i64>| rows.map_or("no such table".to_owned(), i64::to_string);
    for table in manifest.tables.keys().chain(counts.keys()) {
        let (expected, actual) = (manifest.tables.get(table), counts.get(table));
        if expected != actual {
            return Err(LoadError::Rows {
                table: table.clone(),
                expected: row_count_text(expected),
                found: row_count_text(actual),
            });
        }
    }
    Ok(())
}

/// Evaluates the manifest's invariants and compares the answers. A missing answer is only a warning, because it is no
/// sign of lost data. A query that this release does not have is not run, because it comes from the backup.
async fn compare_invariants(client: &Client, manifest: &Manifest, reporter: &dyn Reporter) -> Result<(), LoadError> {
    let warn = |text: String| reporter.report(Progress::Warning(format!("{text}; it was not compared")));
    let asked = totals::answered(INVARIANTS, &manifest.invariants);
    for Answer { name, .. } in manifest.invariants.iter().filter(|answer| !asked.iter().any(|one| answer.is_of(one))) {
        warn(format!("the invariant {name:?} is not one of this release"));
    }
    let actual = totals::ask_in_snapshot(client, None, &asked, Limits::each(TIME_LIMIT)).await?;
    actual.unanswered.iter().for_each(|unanswered| warn(unanswered.to_string()));
    match totals::differences(&manifest.invariants, &actual.answers).into_iter().next() {
        Some(difference) => Err(LoadError::Invariant(difference)),
        None => Ok(()),
    }
}

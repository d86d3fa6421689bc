//! Loads an untrusted dump and verifies the result: it must have the rows that the manifest lists, in tables as our
//! migrations create them, and the backup's key must decrypt it.

use super::compare::{CompareError, compare_counts, compare_invariants};
use super::scratch::Scratch;
use super::{freeze, schema_check};
use crate::backup::create::dump::{DumpError, error_output, schema_text, start};
use crate::backup::create::survey;
use crate::backup::format::archive::zstd_decoder;
use crate::backup::format::manifest::Manifest;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::disk;
use leoflow_base::sys::process::command;
use leoflow_base::sys::{blocking, checkpoint, limit};
use leoflow_engine::store::StoreError;
use leoflow_engine::store::secret::encryption_key;
use leoflow_postgres::PgError;
use leoflow_postgres::cluster::fatal_message::{self, Cause};
use leoflow_postgres::schema::{self, EmbeddedMigration, SchemaError};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("cannot create a database for comparison: {0}")]
    Reference(SchemaError),
    #[error(transparent)]
    Program(#[from] DumpError),
    #[error("cannot read the dump: {0}")]
    Read(io::Error),
    #[error("{0}")]
    SchemaRefused(SchemaError),
    #[error("the dump is {found} than the {declared} bytes in the manifest")]
    DumpSize { declared: u64, found: &'static str },
    #[error("the database grows beyond the size in the manifest, {declared} bytes")]
    TooLarge { declared: u64 },
    #[error(
        "loading the database did not end within {} s: its dump contains a statement that does not end, or this \
         machine is too slow", limit.as_secs()
    )]
    TooSlow { limit: Duration },
    #[error(transparent)]
    Compare(CompareError),
    #[error("it contains objects that are not Leoflow's: {0}")]
    Foreign(String),
    #[error("its tables differ from Leoflow's: {0}")]
    Different(String),
    #[error("its tables have schema version {found}, the manifest says {declared}")]
    Version { declared: i64, found: i64 },
    #[error("the key in its config.yaml cannot decrypt its database: {0}")]
    Key(StoreError),
    #[error("the disk is full: there is no space for the backup's database next to the present one")]
    Full,
    #[error("PostgreSQL has no shared memory left, though the disk may have space: {0}")]
    NoSharedMemory(String),
    #[error("PostgreSQL stopped while the database was loaded: {0}")]
    ServerStopped(String),
    #[error("the copying thread ended unexpectedly")]
    ThreadEnded,
}

impl From<CompareError> for LoadError {
    fn from(error: CompareError) -> Self {
        match error {
            CompareError::Postgres(error) => Self::Postgres(error),
            other => Self::Compare(other),
        }
    }
}

/// Session settings for speed. `synchronous_commit=off` is safe, because the database is dropped, or flushed before it
/// is renamed into use.
const OPTIONS: &str = "-c synchronous_commit=off -c maintenance_work_mem=128MB";
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
    let (restored, expected) = tokio::join!(run_pg_restore(scratch, dump, manifest, fed), expected);
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
async fn waiting_versions(client: &tokio_postgres::Client) -> Result<Vec<i64>, LoadError> {
    let ledger = schema::inspect(client).await?;
    Ok(schema::waiting(schema::known(), &ledger).iter().map(|known| known.version).collect())
}

/// Checks the schema version, replaces the rollback scripts in the database with this binary's, and applies the missing
/// migrations.
async fn migrate_loaded(
    client: &tokio_postgres::Client,
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

/// Loads the dump with `pg_restore`, in one transaction.
async fn run_pg_restore(
    scratch: &Scratch,
    dump: &Path,
    manifest: &Manifest,
    fed: &Arc<AtomicU64>,
) -> Result<(), LoadError> {
    let login = scratch.standby_login();
    let mut command = scratch.access.program("pg_restore", &login);
    command
        .args(["--single-transaction", "--exit-on-error", "--no-owner", "--no-privileges", "--no-password"])
        .args(["--no-publications", "--no-subscriptions", "--no-security-labels", "--no-tablespaces"])
        .arg("--dbname")
        .arg(&login.database)
        .env("PGOPTIONS", OPTIONS)
        .stdin(Stdio::piped());
    let file = File::open(dump).map_err(LoadError::Read)?;
    let child = start("pg_restore", &mut command)?;
    let (declared, counter) = (manifest.database.dump_bytes, fed.clone());
    let fed = blocking::run(move || feed(child, file, declared, &counter)).await;
    match fed.map_err(|_| LoadError::ThreadEnded)? {
        Err(LoadError::Program(DumpError::Failed { stderr, .. })) => {
            Err(classify_failure(stderr, disk::free_bytes(dump).unwrap_or(u64::MAX)))
        }
        other => other,
    }
}

/// Free disk space in bytes below which any failure counts as caused by a full disk.
const FULL_DISK_THRESHOLD: u64 = 32 * 1024 * 1024;
/// Parts of messages of a server that exited or was stopped, or whose disk failed. The dump is not the cause.
const SERVER_STOPPED_MESSAGES: &[&str] = &[
    "server closed the connection unexpectedly",
    "terminating connection",
    "could not connect to server",
    "connection to server",
    "the database system is",
    "Input/output error",
];

/// Classifies the error output of `pg_restore`, given the free disk space in bytes.
fn classify_failure(stderr: String, free: u64) -> LoadError {
    match fatal_message::cause_of(&stderr) {
        Cause::DiskFull => LoadError::Full,
        Cause::SharedMemoryFull => LoadError::NoSharedMemory(stderr),
        _ if free < FULL_DISK_THRESHOLD => LoadError::Full,
        _ if SERVER_STOPPED_MESSAGES.iter().any(|part| stderr.contains(part)) => LoadError::ServerStopped(stderr),
        _ => DumpError::Failed { program: "pg_restore", stderr }.into(),
    }
}

/// Decompresses the dump, at most the declared number of bytes, into `pg_restore` and waits for the program.
fn feed(mut child: Child, file: File, declared: u64, fed: &AtomicU64) -> Result<(), LoadError> {
    let errors = child.stderr.take().map(|pipe| blocking::thread(move || error_output(pipe)));
    let output = child.stdout.take().map(|pipe| blocking::thread(move || error_output(pipe)));
    let copied = match child.stdin.take() {
        Some(mut stdin) => copy(file, &mut stdin, declared, fed),
        None => Err(FeedError::Pipe),
    };
    if matches!(copied, Err(FeedError::Failed(_))) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(LoadError::Read)?;
    let join = |thread: Option<std::thread::JoinHandle<String>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
    let stderr = join(errors);
    drop(join(output));
    match copied {
        Err(FeedError::Failed(error)) => Err(error),
        _ if !status.success() => {
            Err(DumpError::Failed { program: "pg_restore", stderr: command::failure(&stderr, status) }.into())
        }
        Err(FeedError::Pipe) => {
            Err(DumpError::Failed { program: "pg_restore", stderr: "it stopped reading".to_owned() }.into())
        }
        Ok(()) => Ok(()),
    }
}

/// The side of `copy` that failed.
enum FeedError {
    /// pg_restore stopped reading; its stderr contains the reason.
    Pipe,
    Failed(LoadError),
}

/// Decompresses exactly the declared number of bytes into `stdin`.
fn copy(file: File, stdin: &mut impl Write, declared: u64, fed: &AtomicU64) -> Result<(), FeedError> {
    let failed = |error| FeedError::Failed(LoadError::Read(error));
    let mut decoder = zstd_decoder(BufReader::new(file)).map_err(failed)?;
    let head = freeze::with_freeze(&mut decoder).map_err(failed)?;
    let mut buffer = vec![0; 256 * 1024];
    let (mut total, mut next) = (head.input_length as u64, head.output.as_slice());
    while !next.is_empty() {
        if total > declared {
            return Err(FeedError::Failed(LoadError::DumpSize { declared, found: "larger" }));
        }
        stdin.write_all(next).map_err(|_| FeedError::Pipe)?;
        fed.store(total, Ordering::Relaxed);
        let count = decoder.read(&mut buffer).map_err(failed)?;
        total += count as u64;
        next = &buffer[..count];
    }
    if total < declared {
        return Err(FeedError::Failed(LoadError::DumpSize { declared, found: "smaller" }));
    }
    stdin.flush().map_err(|_| FeedError::Pipe)
}

impl LoadError {
    /// True when the cause is the loaded data, not this machine.
    pub fn is_data_error(&self) -> bool {
        match self {
            Self::Postgres(error) | Self::Schema(SchemaError::Postgres(error)) => is_data_error(error),
            Self::Program(error) => matches!(error, DumpError::Failed { .. }),
            Self::Reference(_)
            | Self::Read(_)
            | Self::Full
            | Self::NoSharedMemory(_)
            | Self::ServerStopped(_)
            | Self::TooSlow { .. }
            | Self::ThreadEnded
            | Self::Schema(SchemaError::Busy) => false,
            _ => true,
        }
    }
}

/// False for the SQLSTATE classes of a lost connection (08), and of a server that lacks resources (53), is stopping
/// (57) or has a failing disk (58): <https://www.postgresql.org/docs/18/errcodes-appendix.html>.
fn is_data_error(error: &PgError) -> bool {
    let PgError::Query(error) = error else { return false };
    error.code().is_some_and(|code| !["53", "57", "58", "08"].contains(&&code.code()[..2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn machine_failures_are_not_data_errors() {
        let classify = |stderr: &str, free| classify_failure(stderr.to_owned(), free);
        let stderr = "pg_restore: error: COPY failed for table \"task_try\": ERROR:  could not extend file \
                     \"base/16384/16402\": No space left on device";
        assert!(matches!(classify(stderr, u64::MAX), LoadError::Full));
        let stderr = "pg_restore: error: COPY failed: ERROR:  could not resize shared memory segment \"/PostgreSQL.41\" \
                      to 196736 bytes: No space left on device";
        let error = classify(stderr, u64::MAX);
        assert!(matches!(error, LoadError::NoSharedMemory(_)) && !error.is_data_error(), "{error}");
        // The disk of the write-ahead log is full: PostgreSQL itself exits.
        let stderr = "pg_restore: error: server closed the connection unexpectedly";
        assert!(matches!(classify(stderr, 1024), LoadError::Full));
        assert!(matches!(classify(stderr, u64::MAX), LoadError::ServerStopped(_)));
        for error in [classify(stderr, u64::MAX), classify(stderr, 1024)] {
            assert!(!error.is_data_error(), "{error}");
        }
        let stderr = "pg_restore: error: could not execute query: ERROR:  permission denied for schema pg_catalog";
        assert!(classify(stderr, u64::MAX).is_data_error());
    }
}

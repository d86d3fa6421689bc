//! Loading a dump that is not trusted, and finding out what came of it: the rows that the manifest
//! names, in tables as our own migrations make them, opened by the key that came along.

use super::archive::zstd_decoder;
use super::dump::{DumpError, count, last_words, schema_text, start};
use super::fitness;
use super::manifest::Manifest;
use super::scratch::Scratch;
use super::survey;
use crate::auth::cipher::Cipher;
use crate::engine::store::StoreError;
use crate::engine::store::encryption_key;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::PgError;
use crate::postgres::words::{self, Cause};
use crate::schema::{self, Known, SchemaError};
use crate::sys::{blocking, checkpoint, command, disk};
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
    #[error("a database to compare with cannot be made: {0}")]
    Fresh(SchemaError),
    #[error(transparent)]
    Program(#[from] DumpError),
    #[error("cannot read the dump: {0}")]
    Read(io::Error),
    #[error("{0}")]
    Unfit(SchemaError),
    #[error("the dump is {found} than the {declared} bytes that the manifest says")]
    DumpSize { declared: u64, found: &'static str },
    #[error("the database grows over what the manifest says it takes, {declared} bytes")]
    TooLarge { declared: u64 },
    #[error("{table:?} has {found} rows, and the manifest says {expected}")]
    Rows { table: String, expected: String, found: String },
    #[error("it holds what is not Leoflow's: {0}")]
    Foreign(String),
    #[error("its tables are not as Leoflow makes them: {0}")]
    Different(String),
    #[error("its tables are of schema version {found}, and the manifest says {declared}")]
    Version { declared: i64, found: i64 },
    #[error("the config.yaml in it cannot open what is in its database: {0}")]
    Key(StoreError),
    #[error("the disk is full: the database in the backup has no room beside the one that is here")]
    Full,
    #[error("PostgreSQL did not go on while the database was loaded: {0}")]
    Gone(String),
    #[error("the copying thread ended early")]
    Lost,
}

/// Settings for speed where nothing can be lost: a database that is only renamed into use after it was
/// flushed, or dropped.
const OPTIONS: &str = "-c synchronous_commit=off -c maintenance_work_mem=128MB";
const TICK: Duration = Duration::from_millis(100);
/// What a loaded database may take: twice what it took where it came from, and some.
const SPARE: u64 = 256 * 1024 * 1024;

/// Loads `dump`, a file that `pg_dump -Fc -Z0 | zstd` has made, into the scratch database, and brings
/// it to this binary's schema. All of it is done as the scratch's own role, and ends when the database
/// takes more than it should.
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
    let limit = declared.saturating_mul(2).saturating_add(SPARE);
    let too_large = async {
        let mut tick = tokio::time::interval(TICK);
        loop {
            tick.tick().await;
            let (done, total) = (fed.load(Ordering::Relaxed), manifest.database.dump_bytes);
            if done < total {
                reporter.report(Progress::Bytes { what: "Loading the database".to_owned(), done, total });
            }
            // A moment without an answer is no reason: the work itself will say it better.
            if scratch.size().await.is_ok_and(|size| size > limit) {
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
    }
}

async fn load_and_compare(
    scratch: &Scratch,
    dump: &Path,
    manifest: &Manifest,
    cipher: &Cipher,
    version: &str,
    reporter: &dyn Reporter,
    fed: &Arc<AtomicU64>,
) -> Result<(), LoadError> {
    let has_later = schema::known().iter().any(|known| known.phase.comes_later());
    // What of that is applied there is known only once it is loaded.
    let expected = async {
        match has_later {
            true => Ok(None),
            false => made_fresh(scratch, version, &[]).await.map(Some),
        }
    };
    let (restored, expected) = tokio::join!(run_pg_restore(scratch, dump, manifest, fed), expected);
    let expected = expected?;
    restored?;
    checkpoint("load.loaded");
    reporter.report(Progress::Started("Comparing what was loaded".to_owned()));
    let side = scratch.side();
    let wary = scratch.access.connect_warily(&side).await?;
    let found = survey::survey(&wary, survey::Tables::Known).await?;
    let foreign = found.changes.iter().chain(found.others.iter().map(|(name, _)| name)).next();
    if let Some(name) = foreign {
        return Err(LoadError::Foreign(name.clone()));
    }
    compare_counts(&wary, &found, manifest).await?;
    // There is nothing in it that could act: from here on names may be looked up.
    let client = scratch.access.connect(&side).await?;
    compare_schemas(&client, scratch, manifest, version).await?;
    encryption_key::check(&client, cipher).await.map_err(LoadError::Key)?;
    let without: Vec<String> = found.theirs.iter().map(|relation| relation.name.clone()).collect();
    let access = scratch.access.clone();
    let text = in_thread(move || schema_text(&access, &side, &without)).await??;
    let expected = match expected {
        Some(expected) => expected,
        None => {
            let found = schema::inspect(&client).await?;
            let waiting: Vec<i64> =
                schema::waiting(schema::known(), &found).iter().map(|known| known.version).collect();
            made_fresh(scratch, version, &waiting).await?
        }
    };
    match fitness::difference(&expected, &text) {
        Some(what) => Err(LoadError::Different(what)),
        None => Ok(()),
    }
}

/// The version is what the manifest says, the record of migrations gets our own rollbacks, and the rest
/// are applied.
async fn compare_schemas(
    client: &tokio_postgres::Client,
    scratch: &Scratch,
    manifest: &Manifest,
    version: &str,
) -> Result<(), LoadError> {
    let state = schema::inspect(client).await?;
    if let Some(error) = schema::refusal(&schema::classify(schema::known(), &state)) {
        return Err(LoadError::Unfit(error));
    }
    let found = schema::classify::database_version(&state);
    if found != manifest.schema_version {
        return Err(LoadError::Version { declared: manifest.schema_version, found });
    }
    schema::own_rollbacks(client).await?;
    let mut work = scratch.access.connect(&scratch.side()).await?;
    schema::migrate(client, &mut work, schema::known(), version, &mut |_| {}).await?;
    Ok(())
}

async fn in_thread<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, LoadError> {
    blocking::run(work).await.map_err(|_| LoadError::Lost)
}

async fn compare_counts(
    client: &tokio_postgres::Client,
    found: &survey::Survey,
    manifest: &Manifest,
) -> Result<(), LoadError> {
    let counts = count(client, found.tables()).await?;
    let shown = |rows: Option<&i64>| rows.map_or("no such table".to_owned(), i64::to_string);
    for table in manifest.tables.keys().chain(counts.keys()) {
        let (expected, found) = (manifest.tables.get(table), counts.get(table));
        if expected != found {
            return Err(LoadError::Rows { table: table.clone(), expected: shown(expected), found: shown(found) });
        }
    }
    Ok(())
}

/// The statements that make a database that nobody but our own migrations has touched, less those.
async fn made_fresh(scratch: &Scratch, version: &str, without: &[i64]) -> Result<String, LoadError> {
    let login = scratch.fresh();
    let (lock, mut work) = (scratch.access.connect(&login).await?, scratch.access.connect(&login).await?);
    let known: Vec<Known> = schema::known().iter().filter(|known| !without.contains(&known.version)).cloned().collect();
    let migrated = schema::migrate(&lock, &mut work, &known, version, &mut |_| {}).await;
    migrated.map_err(LoadError::Fresh)?;
    let access = scratch.access.clone();
    Ok(in_thread(move || schema_text(&access, &login, &[])).await??)
}

async fn run_pg_restore(
    scratch: &Scratch,
    dump: &Path,
    manifest: &Manifest,
    fed: &Arc<AtomicU64>,
) -> Result<(), LoadError> {
    let login = scratch.side();
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
    match fed.map_err(|_| LoadError::Lost)? {
        Err(LoadError::Program(DumpError::Failed { said, .. })) => {
            Err(why_it_failed(said, disk::free_bytes(dump).unwrap_or(u64::MAX)))
        }
        other => other,
    }
}

/// Less than this is free only while a disk is full, and then it is no fault of the dump.
const FULL: u64 = 32 * 1024 * 1024;
/// PostgreSQL ended, was stopped, or its disk failed, which a statement of the dump is not the reason for.
const GONE: &[&str] = &[
    "server closed the connection unexpectedly",
    "terminating connection",
    "could not connect to server",
    "connection to server",
    "the database system is",
    "Input/output error",
];

/// Of what `pg_restore` said last, and the bytes that are free.
fn why_it_failed(said: String, free: u64) -> LoadError {
    match words::cause_of(&said) {
        Cause::DiskFull => LoadError::Full,
        _ if free < FULL => LoadError::Full,
        _ if GONE.iter().any(|part| said.contains(part)) => LoadError::Gone(said),
        _ => DumpError::Failed { program: "pg_restore", said }.into(),
    }
}

/// Decompresses into the child, no more than was declared, and waits for its end.
fn feed(mut child: Child, file: File, declared: u64, fed: &AtomicU64) -> Result<(), LoadError> {
    let errors = child.stderr.take().map(|pipe| blocking::thread(move || last_words(pipe)));
    let output = child.stdout.take().map(|pipe| blocking::thread(move || last_words(pipe)));
    let copied = match child.stdin.take() {
        Some(mut stdin) => copy(file, &mut stdin, declared, fed),
        None => Err(Fed::Pipe),
    };
    if matches!(copied, Err(Fed::Failed(_))) {
        let _ = child.kill();
    }
    let status = child.wait().map_err(LoadError::Read)?;
    let join = |thread: Option<std::thread::JoinHandle<String>>| thread.and_then(|t| t.join().ok()).unwrap_or_default();
    let said = join(errors);
    drop(join(output));
    match copied {
        Err(Fed::Failed(error)) => Err(error),
        _ if !status.success() => {
            Err(DumpError::Failed { program: "pg_restore", said: command::failure(&said, status) }.into())
        }
        Err(Fed::Pipe) => {
            Err(DumpError::Failed { program: "pg_restore", said: "it stopped reading".to_owned() }.into())
        }
        Ok(()) => Ok(()),
    }
}

enum Fed {
    /// pg_restore has stopped reading; its own words say why.
    Pipe,
    Failed(LoadError),
}

fn copy(file: File, stdin: &mut impl Write, declared: u64, fed: &AtomicU64) -> Result<(), Fed> {
    let failed = |error| Fed::Failed(LoadError::Read(error));
    let mut decoder = zstd_decoder(BufReader::new(file)).map_err(failed)?;
    let mut buffer = vec![0; 256 * 1024];
    let mut total: u64 = 0;
    loop {
        let count = decoder.read(&mut buffer).map_err(failed)?;
        if count == 0 {
            break;
        }
        total += count as u64;
        if total > declared {
            return Err(Fed::Failed(LoadError::DumpSize { declared, found: "larger" }));
        }
        stdin.write_all(&buffer[..count]).map_err(|_| Fed::Pipe)?;
        fed.store(total, Ordering::Relaxed);
    }
    if total < declared {
        return Err(Fed::Failed(LoadError::DumpSize { declared, found: "smaller" }));
    }
    stdin.flush().map_err(|_| Fed::Pipe)
}

impl LoadError {
    /// Whether what was loaded is the reason, and not this machine.
    pub fn is_of_the_data(&self) -> bool {
        match self {
            Self::Postgres(error) | Self::Schema(SchemaError::Postgres(error)) => is_of_the_data(error),
            Self::Program(error) => matches!(error, DumpError::Failed { .. }),
            Self::Fresh(_)
            | Self::Read(_)
            | Self::Full
            | Self::Gone(_)
            | Self::Lost
            | Self::Schema(SchemaError::Busy) => false,
            _ => true,
        }
    }
}

/// A server that has no room, that is told to stop or whose disk fails says so by the class of its error:
/// <https://www.postgresql.org/docs/18/errcodes-appendix.html>.
fn is_of_the_data(error: &PgError) -> bool {
    let PgError::Query(error) = error else { return false };
    error.code().is_some_and(|code| !["53", "57", "58", "08"].contains(&&code.code()[..2]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_without_room_or_without_postgres_is_no_fault_of_the_dump() {
        let of = |said: &str, free| why_it_failed(said.to_owned(), free);
        let words = "pg_restore: error: COPY failed for table \"task_try\": ERROR:  could not extend file \
                     \"base/16384/16402\": No space left on device";
        assert!(matches!(of(words, u64::MAX), LoadError::Full));
        // The write-ahead log's disk: PostgreSQL itself ends.
        let words = "pg_restore: error: server closed the connection unexpectedly";
        assert!(matches!(of(words, 1024), LoadError::Full));
        assert!(matches!(of(words, u64::MAX), LoadError::Gone(_)));
        for told in [of(words, u64::MAX), of(words, 1024)] {
            assert!(!told.is_of_the_data(), "{told}");
        }
        let words = "pg_restore: error: could not execute query: ERROR:  permission denied for schema pg_catalog";
        assert!(of(words, u64::MAX).is_of_the_data());
    }
}

//! Creates a backup: copies everything into the spool (a temporary file), writes the backup to a temporary file next to
//! its destination, then renames it. A kill at any point leaves an existing backup intact.

pub mod automatic;
pub(crate) mod collect;
pub mod dump;
mod output_file;
pub(crate) mod own_backups;
pub mod selection;
pub(crate) mod spool;
pub(crate) mod survey;

use super::encryption::{EncryptTo, EncryptionError};
use super::format::manifest::{
    CONFIG, DUMP, DatabaseFacts, MANIFEST_VERSION, Manifest, RECEIPT, SIZE_LIMIT, Sha256Hex, Skipped,
};
use collect::{CollectError, Collected};
use dump::{DumpError, Dumped, NewerSchema, Snapshot};
use leoflow_base::config::{self, Config};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::{files, folders};
use leoflow_base::sys::{checkpoint, clock};
use leoflow_postgres::Access;
use leoflow_postgres::totals::Answer;
use output_file::{Content, OutputFile};
use own_backups::OwnBackups;
use spool::Spool;
use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum CreateError {
    #[error(transparent)]
    Dump(#[from] DumpError),
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    #[error(transparent)]
    Collect(#[from] CollectError),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("the backup could not be read back: {0}")]
    Unreadable(String),
    #[error("a backup must be named NAME.tar.zst or NAME.tar.gz, not {0}")]
    Name(PathBuf),
    #[error("the name of an encrypted backup must end in .age: {0} does not")]
    PlainName(PathBuf),
    #[error("no recipient is configured to encrypt {0} to")]
    NoRecipient(PathBuf),
}

/// The instance that is backed up.
#[derive(Clone, Copy)]
pub struct Source<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub config: &'a Config,
    /// Version of the running program.
    pub version: &'a str,
    pub reporter: &'a dyn Reporter,
}

/// The backup file to write.
pub struct Output<'a> {
    pub path: &'a Path,
    pub encrypt_to: &'a EncryptTo,
    /// Free disk space to leave, in bytes; the backup fails if it would need that space. 0 is no limit.
    pub keep_free: u64,
    pub newer_schema: NewerSchema,
}

/// A finished backup.
#[derive(Debug)]
pub struct CreatedBackup {
    pub path: PathBuf,
    pub size_bytes: u64,
    pub sha256: Sha256Hex,
    pub encrypted: bool,
    pub manifest: Manifest,
}

/// Interval between progress reports.
const TICK: Duration = Duration::from_millis(100);

/// Creates the backup from one snapshot of the database; changes nothing but the output file.
pub async fn create(source: &Source<'_>, output: &Output<'_>) -> Result<CreatedBackup, CreateError> {
    let file = OutputFile::check(output)?;
    file.remove_killed_attempts();
    // The spool moves: `copy_database` returns it in `dumped`, and `copy_files` in `collected`.
    let spool = file.open_spool()?;
    let snapshot = Snapshot::take(source.access, &source.access.application(), output.newer_schema).await?;
    checkpoint("backup.begun");
    let (counted, dumped) = copy_database(source, &snapshot, spool).await?;
    checkpoint("backup.dumped");
    let dump_bytes = dumped.bytes;
    let now = u64::try_from(clock::unix_seconds()).unwrap_or(0);
    let collected = copy_files(source, &snapshot, dumped, now)?;
    checkpoint("backup.collected");
    let manifest = build_manifest(source, &snapshot, &collected, counted, dump_bytes);
    drop(snapshot);
    file.require_space(&manifest)?;
    let content = Content { text: manifest_text(&manifest, &file)?, manifest: &manifest, collected: &collected, now };
    let (size_bytes, sha256) = file.write(&content, source.reporter)?;
    checkpoint("backup.in-place");
    let rows = leoflow_base::counted::counted(manifest.rows(), "row");
    source.reporter.report(Progress::Finished(format!("Backup of {rows} written")));
    let encrypted = !output.encrypt_to.is_off();
    Ok(CreatedBackup { path: output.path.to_owned(), size_bytes, sha256, encrypted, manifest })
}

/// Row counts and invariants in the dump's snapshot.
struct Counted {
    /// Rows of each table.
    tables: BTreeMap<String, i64>,
    invariants: Vec<Answer>,
}

/// Dumps the database into the spool and counts its rows meanwhile. Returns the counts, and the dump with the spool.
async fn copy_database(
    source: &Source<'_>,
    snapshot: &Snapshot,
    spool: Spool,
) -> Result<(Counted, Dumped), CreateError> {
    let &Source { access, reporter, .. } = source;
    let copied = Arc::new(AtomicU64::new(0));
    let counter = copied.clone();
    let login = access.application();
    let dumping = snapshot.dump(access, &login, spool, move |bytes| counter.store(bytes, Ordering::Relaxed))?;
    let counting = async {
        let (tables, invariants) = tokio::join!(snapshot.count(), snapshot.totals(access, reporter));
        Ok(Counted { tables: tables?, invariants })
    };
    count_during_dump(counting, snapshot.heap_bytes, &copied, dumping, reporter).await
}

/// Serializes the manifest. Fails if a restore would reject it.
fn manifest_text(manifest: &Manifest, output: &OutputFile<'_>) -> Result<Vec<u8>, CreateError> {
    let text = serde_json::to_vec(manifest).map_err(|error| output.write_error(error.into()))?;
    Manifest::parse(&text).map_err(|error| CreateError::Unreadable(error.to_string()))?;
    match text.len() as u64 > SIZE_LIMIT {
        true => Err(CollectError::TooMany.into()),
        false => Ok(text),
    }
}

/// Copies the configuration, task logs and workspace into the spool. Returns all entries of the archive in order, with
/// the spool. `now` is in seconds since 1970.
fn copy_files(source: &Source<'_>, snapshot: &Snapshot, dumped: Dumped, now: u64) -> Result<Collected, CreateError> {
    let &Source { home, config, .. } = source;
    source.reporter.report(Progress::Started("Copying the workspace and the task logs".to_owned()));
    let mut collected = Collected::new(dumped.spool);
    add_records(home, &mut collected, now)?;
    collected.add_piece(DUMP, dumped.piece, now);
    for (name, reason) in &snapshot.survey.others {
        let path = format!("database/{name}");
        collected.skipped.push(Skipped { path, reason: reason.clone() });
    }
    collected.add_task_logs(&home.task_logs(), config.backup.task_logs_bytes)?;
    if let Some(workspace) = &config.workspace {
        // The workspace itself may be a link; links below it are not followed.
        match workspace.canonicalize() {
            Ok(root) => collected.add_workspace(&root, &home_folders(home), &OwnBackups::of(home))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                let reason = folders::name_dangling_link(workspace, io::Error::other("it does not exist")).to_string();
                collected.skipped.push(Skipped { path: "workspace".to_owned(), reason });
            }
            Err(source) => return Err(CreateError::Read { path: workspace.to_owned(), source }),
        }
    }
    Ok(collected)
}

fn build_manifest(
    source: &Source<'_>,
    snapshot: &Snapshot,
    collected: &Collected,
    counted: Counted,
    dump_bytes: u64,
) -> Manifest {
    Manifest {
        manifest_version: MANIFEST_VERSION,
        leoflow_version: source.version.to_owned(),
        schema_version: snapshot.schema_version,
        postgres_version: snapshot.postgres_version.clone(),
        created_at: clock::now_rfc3339(),
        instance: config::instance_name(Some(source.config)).to_owned(),
        database: DatabaseFacts { bytes: snapshot.bytes, dump_bytes },
        tables: counted.tables,
        invariants: counted.invariants,
        running: snapshot.running.clone(),
        skipped: collected.skipped.clone(),
        left_out: collected.left_out.clone(),
        entries: collected.items.iter().map(|item| item.entry.clone()).collect(),
    }
}

/// Waits for the dump and for `counting`, and reports the dump's progress. `copied` is the number of bytes dumped so
/// far, `expected` an estimate of the total.
async fn count_during_dump(
    counting: impl Future<Output = Result<Counted, DumpError>>,
    expected: u64,
    copied: &AtomicU64,
    mut dumping: tokio::task::JoinHandle<Result<Dumped, DumpError>>,
    reporter: &dyn Reporter,
) -> Result<(Counted, Dumped), CreateError> {
    tokio::pin!(counting);
    let mut counts = None;
    let mut tick = tokio::time::interval(TICK);
    let dumped = loop {
        tokio::select! {
            dumped = &mut dumping => break dumped.map_err(|_| DumpError::ThreadEnded)??,
            counted = &mut counting, if counts.is_none() => counts = Some(counted?),
            _ = tick.tick() => reporter.report(Progress::Bytes {
                what: "Copying the database".to_owned(),
                done: copied.load(Ordering::Relaxed),
                total: expected.max(copied.load(Ordering::Relaxed)),
            }),
        }
    };
    let counts = match counts {
        Some(counts) => counts,
        None => counting.await?,
    };
    Ok((counts, dumped))
}

/// Adds `config.yaml` and `setup.json`. Restores do not use `setup.json`; it informs people who read the backup.
fn add_records(home: &Home, collected: &mut Collected, now: u64) -> Result<(), CreateError> {
    let path = home.config();
    match config::self_contained(&path) {
        Ok(Some(text)) => collected.add_bytes(CONFIG, text.as_bytes(), now)?,
        Ok(None) => return Err(CreateError::Read { path, source: io::ErrorKind::NotFound.into() }),
        Err(error) => return Err(CreateError::Read { path, source: io::Error::other(error) }),
    }
    let path = home.receipt();
    match files::read_text(&path, 1024 * 1024) {
        Ok(Some(text)) => Ok(collected.add_bytes(RECEIPT, text.as_bytes(), now)?),
        Ok(None) => Ok(()),
        Err(source) => Err(CreateError::Read { path, source }),
    }
}

/// The path of the home, as given and canonical. A workspace that contains the home is copied without it.
fn home_folders(home: &Home) -> Vec<PathBuf> {
    let root = home.root().to_owned();
    let real = root.canonicalize().unwrap_or_else(|_| root.clone());
    vec![root, real]
}

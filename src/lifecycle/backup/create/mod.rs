//! Creates a backup: copies everything into the spool, writes the file next to its destination, then renames it. A kill
//! at any point leaves an existing backup intact.

pub mod automatic;
pub(crate) mod collect;
pub(crate) mod created_backup;
pub mod dump;
pub mod excluded;
pub(crate) mod files_size;
pub(crate) mod own_backups;
pub(crate) mod selection;
pub(crate) mod spool;
pub(crate) mod survey;

use super::encryption::{EncryptTo, EncryptionError};
use super::format::archive::{ArchiveWriter, Compression, Hashed, is_encrypted_name};
use super::format::manifest::{
    CONFIG, DUMP, DatabaseFacts, MANIFEST_VERSION, Manifest, RECEIPT, SIZE_LIMIT, Sha256Hex, Skipped,
};
use collect::{CollectError, Collected};
use created_backup::CreatedBackup;
use dump::{DumpError, Dumped, Snapshot};
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::{disk, files};
use leoflow_base::sys::process::is_pid_alive;
use leoflow_base::sys::{checkpoint, clock};
use leoflow_postgres::Access;
use own_backups::OwnBackups;
use spool::{AtRest, Spool};
use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::OpenOptionsExt;
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

/// Parameters of a backup.
pub struct Request<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub version: &'a str,
    pub instance: &'a str,
    pub workspace: Option<&'a Path>,
    pub output: &'a Path,
    /// Limit of task logs, newest first, in bytes.
    pub task_logs_bytes: u64,
    /// Free disk space to leave, in bytes; the backup fails otherwise. 0 is no limit.
    pub keep_free: u64,
    /// Also back up a database of a newer release.
    pub may_be_newer: bool,
    pub encrypt_to: &'a EncryptTo,
}

/// Interval between progress reports.
const TICK: Duration = Duration::from_millis(100);

/// Creates the backup from one snapshot of the database; changes nothing but the output file.
pub async fn create(request: &Request<'_>, reporter: &dyn Reporter) -> Result<CreatedBackup, CreateError> {
    let output = request.output;
    let compression = Compression::of(output).ok_or_else(|| CreateError::Name(output.to_owned()))?;
    match (is_encrypted_name(output), request.encrypt_to.is_off()) {
        (false, false) => return Err(CreateError::PlainName(output.to_owned())),
        (true, true) => return Err(CreateError::NoRecipient(output.to_owned())),
        _ => {}
    }
    let write_error = |source| CreateError::Write { path: output.to_owned(), source };
    let folder = output.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    refuse_directory(output)?;
    remove_killed_attempts(folder, output);
    let at_rest = if request.encrypt_to.is_off() { AtRest::Plain } else { AtRest::Sealed };
    let spool = Spool::new(folder, request.keep_free, at_rest).map_err(write_error)?;
    let login = request.access.application();
    let snapshot = Snapshot::take(request.access, &login, request.may_be_newer).await?;
    checkpoint("backup.begun");

    let copied = Arc::new(AtomicU64::new(0));
    let counter = copied.clone();
    let dumping = snapshot.dump(request.access, &login, spool, move |bytes| counter.store(bytes, Ordering::Relaxed))?;
    let (tables, dumped) = count_during_dump(&snapshot, &copied, dumping, reporter).await?;
    checkpoint("backup.dumped");
    reporter.report(Progress::Started("Copying the workspace and the task logs".to_owned()));
    let now = u64::try_from(clock::unix_seconds()).unwrap_or(0);
    let dump_bytes = dumped.bytes;
    let collected = collect(request, &snapshot, dumped, now)?;
    checkpoint("backup.collected");
    let manifest = build_manifest(request, &snapshot, &collected, tables, dump_bytes);
    drop(snapshot);
    let required = request.keep_free + manifest.total_size();
    if request.keep_free > 0 && disk::free_bytes(folder).map_err(write_error)? < required {
        return Err(write_error(io::Error::new(io::ErrorKind::StorageFull, "the disk would run out of space")));
    }
    let text = serde_json::to_vec(&manifest).map_err(|error| write_error(error.into()))?;
    // A manifest that no reader would accept is not written.
    Manifest::parse(&text).map_err(|error| CreateError::Unreadable(error.to_string()))?;
    if text.len() as u64 > SIZE_LIMIT {
        return Err(CollectError::TooMany.into());
    }
    let (size_bytes, sha256) =
        write_archive(request, &manifest, &text, &collected, compression, now, reporter).map_err(write_error)?;
    checkpoint("backup.in-place");
    reporter.report(Progress::Finished(format!("Backup of {} rows written", manifest.rows())));
    Ok(CreatedBackup {
        path: output.to_owned(),
        size_bytes,
        sha256,
        encrypted: !request.encrypt_to.is_off(),
        created_at: manifest.created_at.clone(),
        leoflow_version: manifest.leoflow_version.clone(),
        schema_version: manifest.schema_version,
        tables: manifest.tables,
        skipped: manifest.skipped,
        left_out: manifest.left_out.len(),
    })
}

/// Copies everything into the spool, in the order of the archive. `now` is in seconds since 1970.
fn collect(request: &Request<'_>, snapshot: &Snapshot, dumped: Dumped, now: u64) -> Result<Collected, CreateError> {
    let mut collected = Collected::new(dumped.spool);
    add_records(request.home, &mut collected, now)?;
    collected.add_piece(DUMP, dumped.piece, now);
    for (name, reason) in &snapshot.survey.others {
        let path = format!("database/{name}");
        collected.skipped.push(Skipped { path, reason: reason.clone() });
    }
    collected.add_task_logs(&request.home.task_logs(), request.task_logs_bytes)?;
    if let Some(workspace) = request.workspace {
        // The workspace itself may be a link; links below it are not followed.
        match workspace.canonicalize() {
            Ok(root) => collected.add_workspace(&root, &home_folders(request.home), &OwnBackups::of(request.home))?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                collected
                    .skipped
                    .push(Skipped { path: "workspace".to_owned(), reason: "it does not exist".to_owned() });
            }
            Err(source) => return Err(CreateError::Read { path: workspace.to_owned(), source }),
        }
    }
    Ok(collected)
}

fn build_manifest(
    request: &Request<'_>,
    snapshot: &Snapshot,
    collected: &Collected,
    tables: BTreeMap<String, i64>,
    dump_bytes: u64,
) -> Manifest {
    Manifest {
        manifest_version: MANIFEST_VERSION,
        leoflow_version: request.version.to_owned(),
        schema_version: snapshot.schema_version,
        postgres_version: snapshot.postgres_version.clone(),
        created_at: clock::now_rfc3339(),
        instance: request.instance.to_owned(),
        database: DatabaseFacts { bytes: snapshot.bytes, dump_bytes },
        tables,
        skipped: collected.skipped.clone(),
        left_out: collected.left_out.clone(),
        entries: collected.items.iter().map(|item| item.entry.clone()).collect(),
    }
}

/// Counts the rows in the same snapshot while the dump runs, and reports its progress. `copied` is the number of bytes
/// dumped so far.
async fn count_during_dump(
    snapshot: &Snapshot,
    copied: &AtomicU64,
    mut dumping: tokio::task::JoinHandle<Result<Dumped, DumpError>>,
    reporter: &dyn Reporter,
) -> Result<(BTreeMap<String, i64>, Dumped), CreateError> {
    let counting = snapshot.count();
    tokio::pin!(counting);
    let mut counts = None;
    let mut tick = tokio::time::interval(TICK);
    let dumped = loop {
        tokio::select! {
            dumped = &mut dumping => break dumped.map_err(|_| DumpError::Lost)??,
            counted = &mut counting, if counts.is_none() => counts = Some(counted?),
            _ = tick.tick() => reporter.report(Progress::Bytes {
                what: "Copying the database".to_owned(),
                done: copied.load(Ordering::Relaxed),
                total: snapshot.heap_bytes.max(copied.load(Ordering::Relaxed)),
            }),
        }
    };
    let counts = match counts {
        Some(counts) => counts,
        None => counting.await?,
    };
    Ok((counts, dumped))
}

/// Adds `config.yaml`, and `setup.json` as information for readers.
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

/// Paths of the home, as given and with links resolved; it may be inside the workspace.
fn home_folders(home: &Home) -> Vec<PathBuf> {
    let root = home.root().to_owned();
    let real = root.canonicalize().unwrap_or_else(|_| root.clone());
    vec![root, real]
}

/// Refuses an output path that is a directory before any work is done.
fn refuse_directory(output: &Path) -> Result<(), CreateError> {
    match output.is_dir() {
        true => {
            let source = io::Error::new(io::ErrorKind::IsADirectory, "it is a directory");
            Err(CreateError::Write { path: output.to_owned(), source })
        }
        false => Ok(()),
    }
}

/// Writes the backup next to its destination and renames it. Returns its size in bytes and its hash.
fn write_archive(
    request: &Request<'_>,
    manifest: &Manifest,
    text: &[u8],
    collected: &Collected,
    compression: Compression,
    now: u64,
    reporter: &dyn Reporter,
) -> io::Result<(u64, Sha256Hex)> {
    let output = request.output;
    let temporary = files::temporary_neighbour(output);
    files::remove_any(&temporary)?;
    let written = (|| {
        let file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&temporary)?;
        fs::set_permissions(&temporary, std::os::unix::fs::PermissionsExt::from_mode(0o600))?;
        let hashed = Hashed::new(BufWriter::with_capacity(256 * 1024, file));
        let mut archive = ArchiveWriter::begin(request.encrypt_to.writer(hashed)?, compression, text, now)?;
        let (total, mut done) = (manifest.total_size(), 0);
        for item in &collected.items {
            match item.piece {
                Some(piece) => archive.add(&item.entry, item.modified, collected.spool.read(piece))?,
                None => archive.add(&item.entry, now, io::empty())?,
            }
            done += item.entry.size();
            if item.entry.is_file() {
                reporter.report(Progress::Bytes { what: "Writing the backup".to_owned(), done, total });
            }
        }
        let mut hashed = archive.finish()?.finish()?;
        hashed.flush()?;
        hashed.inner.get_ref().sync_all()?;
        checkpoint("backup.written");
        files::rename_durably(&temporary, output)?;
        Ok((hashed.bytes, hashed.sha256()))
    })();
    if written.is_err() {
        // Incomplete and ours; the error is already known.
        let _ = files::remove_any(&temporary);
    }
    written
}

/// Removes temporary files of killed backups from `folder`, the folder of `output`. Those of live processes stay.
fn remove_killed_attempts(folder: &Path, output: &Path) {
    let output_name = output.file_name().unwrap_or_default().to_string_lossy().into_owned();
    for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        let Some((target, pid)) = name.strip_prefix('.').and_then(|rest| rest.rsplit_once(".tmp-")) else { continue };
        let is_ours = ["leoflow-backup-", "automatic-"].iter().any(|prefix| target.starts_with(prefix));
        let is_attempt = target == output_name || (is_ours && Compression::of(Path::new(target)).is_some());
        if is_attempt && pid.parse().is_ok_and(|pid| !is_pid_alive(pid)) {
            // A file that stays only takes space; the next backup tries again.
            let _ = fs::remove_file(entry.path());
        }
    }
}

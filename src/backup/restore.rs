//! From a file to a state that could come into force: unpacked beside what is there, loaded into a
//! database of its own, compared and proven. Until the exchange nothing that was there has changed,
//! and dropping the work leaves nothing of it.

use super::archive_read::{ArchiveError, ArchiveReader, Sink, opening};
use super::content::{self, Content};
use super::encryption::Input;
use super::exchange::{self, Swap, database_oid};
use super::exchange_error::ExchangeError;
use super::exchange_tree::write_names;
use super::load;
use super::manifest::{CONFIG, DUMP, Entry, Manifest};
use super::restore_error::RestoreError;
use super::restore_plan::{ConfigRefusal, with_datastore};
use super::scratch::{RestoreId, Scratch};
use super::set_aside;
use super::side::{self, Elsewhere, Kept, Side, When};
use super::stage::{Places, Stage};
use super::stays::Stays;
use super::strays;
use super::watched::Watched;
use super::workshop::Workshop;
use crate::auth::cipher::Cipher;
use crate::config::{self, DEPRECATED};
use crate::home::Home;
use crate::home::journal::Operation;
use crate::home::progress::Reporter;
use crate::postgres::{APPLICATION_DATABASE, Access, Login, PgError, place};
use crate::sys::{checkpoint, files, random};
use std::fs::File;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

fn open(input: &Path) -> Result<File, RestoreError> {
    let failed = |source| RestoreError::Open { path: input.to_owned(), source };
    let file = File::open(input).map_err(failed)?;
    match file.metadata().map_err(failed)?.is_file() {
        true => Ok(file),
        false => Err(failed(io::Error::new(io::ErrorKind::InvalidInput, "it is not a file"))),
    }
}

fn refused(input: &Path) -> impl Fn(ArchiveError) -> RestoreError + '_ {
    |source| RestoreError::Archive { path: input.to_owned(), source }
}

/// The manifest alone.
pub fn peek(input: &Input) -> Result<Manifest, RestoreError> {
    let mut reader = archive_in(input, open(&input.path)?)?;
    reader.manifest().map_err(refused(&input.path))
}

/// The manifest and `config.yaml`, for a plan.
pub fn peek_config(input: &Input) -> Result<(Manifest, String), RestoreError> {
    let mut reader = archive_in(input, open(&input.path)?)?;
    let (manifest, config) = reader.manifest_and_file(CONFIG).map_err(refused(&input.path))?;
    Ok((manifest, String::from_utf8_lossy(&config.unwrap_or_default()).into_owned()))
}

fn archive_in<'a>(input: &Input, file: impl Read + 'a) -> Result<ArchiveReader<'a>, RestoreError> {
    let refused = refused(&input.path);
    let opened = input.keys.open(file).map_err(|error| refused(opening(error)))?;
    let content = opened.map_err(|why| RestoreError::NotOpened { path: input.path.clone(), why })?;
    ArchiveReader::new(content).map_err(refused)
}

/// Reads all of the file and compares it with its manifest; what is found goes to `sink`.
pub fn read(input: &Input, sink: &mut dyn Sink, reporter: &dyn Reporter) -> Result<Manifest, RestoreError> {
    let file = open(&input.path)?;
    let total = file.metadata().map_or(0, |meta| meta.len());
    let source = Watched::new(file, total, reporter);
    archive_in(input, source)?.read(sink).map_err(refused(&input.path))
}

/// Keeps the config and the dump, and only compares the rest.
pub struct DatabaseOnly(Stage);

impl DatabaseOnly {
    pub fn new(side: &Side) -> Self {
        Self(Stage::new(places(side, &side.workspace_here(), &side.logs_here())))
    }
}

impl Sink for DatabaseOnly {
    fn entry(&mut self, entry: &Entry, modified: u64, content: &mut dyn Read) -> io::Result<()> {
        match entry.path.as_str() {
            CONFIG | DUMP => self.0.entry(entry, modified, content),
            _ => Ok(()),
        }
    }
}

fn places(side: &Side, workspace_side: &Path, logs_side: &Path) -> Places {
    let own = side.folder().to_owned();
    Places { own, task_logs: logs_side.join("in"), workspace: workspace_side.join("in") }
}

/// A backup unpacked into a side folder, every entry compared.
pub struct Staged {
    pub side: Side,
    pub manifest: Manifest,
    /// As it is in the backup.
    pub config: String,
    pub workspace: PathBuf,
    workspace_side: PathBuf,
    input: PathBuf,
    task_logs: PathBuf,
    logs_side: PathBuf,
    /// Whether it goes with this value: until there is more of it than files.
    is_ours: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.is_ours {
            // What cannot be removed now is removed as a stray.
            let _ = self.side.remove();
        }
    }
}

impl Staged {
    /// Unpacks. On an error nothing of it is left.
    pub fn unpack(home: &Home, input: &Input, workspace: &Path, reporter: &dyn Reporter) -> Result<Self, RestoreError> {
        let side = Side::of(home, RestoreId::new());
        let write = |source| RestoreError::Write { path: side.folder().to_owned(), source };
        let task_logs = real(&home.task_logs());
        let elsewhere = Elsewhere {
            workspace: Some(workspace.to_owned()),
            made_workspace: !workspace.exists(),
            task_logs: Some(task_logs.clone()),
        };
        side.create(&elsewhere).map_err(write)?;
        let beside = side
            .place_beside(side.workspace_here(), workspace)
            .and_then(|workspace_side| Ok((workspace_side, side.place_beside(side.logs_here(), &task_logs)?)));
        let (workspace_side, logs_side) = beside.map_err(|source| {
            // Nothing is in it yet.
            let _ = side.remove();
            RestoreError::Write { path: workspace.to_owned(), source }
        })?;
        let mut stage = Stage::new(places(&side, &workspace_side, &logs_side));
        let unpacked = read(input, &mut stage, reporter).and_then(|manifest| {
            stage.finish().map_err(write)?;
            let config = files::read_text(&side.folder().join(CONFIG), 1024 * 1024).map_err(write)?;
            Ok((manifest, config.unwrap_or_default()))
        });
        checkpoint("restore.unpacked");
        match unpacked {
            Ok((manifest, config)) => {
                let workspace = workspace.to_owned();
                let input = input.path.clone();
                Ok(Self {
                    side,
                    input,
                    manifest,
                    config,
                    workspace,
                    workspace_side,
                    task_logs,
                    logs_side,
                    is_ours: true,
                })
            }
            Err(error) => {
                // What cannot be removed now is removed as a stray.
                let _ = side.remove();
                Err(error)
            }
        }
    }
}

/// A staged backup whose database is loaded and proven, and belongs to the application.
pub struct Ready {
    staged: Staged,
}

/// Loads the staged dump. On an error nothing of it is left, neither in the cluster nor in the home.
pub async fn prove(
    home: &Home,
    access: &Access,
    staged: Staged,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<Ready, RestoreError> {
    let mut staged = staged;
    let cipher = cipher_of(&staged.config)?;
    // From here on there is something in the cluster too, and the folder says so until it is gone.
    staged.is_ours = false;
    let outcome = load_in_workshop(home, access, (&staged.side, &staged.manifest), &cipher, version, reporter).await;
    checkpoint("restore.proven");
    match outcome {
        Ok(()) => Ok(Ready { staged }),
        Err(error) => {
            staged.is_ours = strays::remove_from(home, access).await.is_ok();
            Err(error)
        }
    }
}

/// Loads a staged dump where a stranger's may be loaded, and proves it. It belongs to the application then: beside the
/// database in force, or written down for one on somebody else's server.
async fn load_in_workshop(
    home: &Home,
    access: &Access,
    (side, manifest): (&Side, &Manifest),
    cipher: &Cipher,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<(), RestoreError> {
    let workshop = Workshop::open(home, access).await?;
    let scratch = Scratch::create(&workshop.access, side.id.clone()).await?;
    load::load(&scratch, &side.dump(), manifest, cipher, version, reporter).await?;
    scratch.adopt().await?;
    if !access.is_ours() {
        let login = Login { database: side.id.side_database(), ..workshop.access.application() };
        Content::write(&workshop.access, &login, &side.content(When::After)).await?;
    }
    Ok(())
}

/// The cipher by which a backup's secrets open.
pub fn cipher_of(config: &str) -> Result<Cipher, ConfigRefusal> {
    let loaded = config::parse(config, DEPRECATED).map_err(ConfigRefusal::Invalid)?;
    let key = loaded.config.encryption_key.ok_or(ConfigRefusal::Missing("encryption_key"))?;
    Cipher::new(&key).map_err(|_| ConfigRefusal::Missing("usable encryption_key"))
}

/// What changes with the exchange beside workspace, logs and database.
pub struct Records {
    pub config: String,
    pub receipt: Vec<u8>,
    /// In words, for whoever undoes it.
    pub in_force: String,
    pub set_aside: String,
}

impl Ready {
    /// Brings it into force. Nobody else may use the home or be connected to its databases.
    pub async fn bring_into_force(self, home: &Home, access: &Access, records: &Records) -> Result<(), RestoreError> {
        let staged = &self.staged;
        let side = &staged.side;
        let write = |path: &Path, source| RestoreError::Write { path: path.to_owned(), source };
        files::remove_any(&side.dump()).map_err(|source| write(&side.dump(), source))?;
        let has_workspace = staged.workspace_side.join("in").is_dir();
        let workspace = has_workspace.then(|| real(&staged.workspace));
        write_after(side, records)?;
        copy_before(home, side)?;
        let (database, mark) = before_exchange(access, side).await?;
        let stays = Stays::of(&staged.manifest, &staged.input, workspace.as_deref(), &staged.task_logs);
        stays.and_then(|stays| stays.write(&side.stays())).map_err(|source| write(&side.stays(), source))?;
        write_names(&staged.workspace_side.join("in"), &side.names())?;
        write_names(&staged.logs_side.join("in"), &side.log_names())?;
        let aside = set_aside::pending(home).map_err(|source| write(&home.set_aside_note(), source))?;
        let kept = Kept {
            unreadable: aside.map(|aside| aside.folder),
            ..Kept::now(
                records.in_force.clone(),
                records.set_aside.clone(),
                staged.manifest.tables.clone(),
                workspace.clone(),
            )
        };
        let swap = Swap {
            id: side.id.as_str().to_owned(),
            workspace,
            workspace_side: staged.workspace_side.clone(),
            task_logs: staged.task_logs.clone(),
            task_logs_side: staged.logs_side.clone(),
            database,
            mark,
            kept,
            backward: false,
        };
        Ok(exchange::exchange(home, access, Operation::Restore, swap).await?)
    }
}

/// Exchanges what is in force for what is kept, and keeps that instead. `rows` are those of what comes
/// into force.
pub async fn undo(
    home: &Home,
    access: &Access,
    rows: std::collections::BTreeMap<String, i64>,
) -> Result<Kept, RestoreError> {
    let (side, kept) = side::kept(home).ok_or(RestoreError::NothingKept)?;
    let task_logs = real(&home.task_logs());
    let logs_side = side.found_beside(side.logs_here(), &task_logs);
    let workspace_side = match &kept.workspace {
        Some(workspace) => side.found_beside(side.workspace_here(), workspace),
        None => side.workspace_here(),
    };
    take_over_older_logs(&side)?;
    let (incoming, logs) = (workspace_side.join("in"), logs_side.join("in"));
    for (folder, is_needed) in [(&incoming, kept.workspace.is_some()), (&logs, true)] {
        if is_needed && !folder.is_dir() {
            return Err(RestoreError::KeptGone(folder.clone()));
        }
    }
    copy_before(home, &side)?;
    keep_datastore(home, &side)?;
    let (database, mark) = before_exchange(access, &side).await?;
    write_names(&incoming, &side.names())?;
    write_names(&logs, &side.log_names())?;
    let now = Kept::now(kept.set_aside.clone(), kept.in_force.clone(), rows, kept.workspace.clone());
    let swap = Swap {
        id: side.id.as_str().to_owned(),
        workspace: kept.workspace,
        workspace_side,
        task_logs,
        task_logs_side: logs_side,
        database,
        mark,
        kept: now.clone(),
        backward: false,
    };
    exchange::exchange(home, access, Operation::RestoreUndo, swap).await?;
    Ok(now)
}

/// A release before this one kept the task logs under another name.
fn take_over_older_logs(side: &Side) -> Result<(), RestoreError> {
    let (older, here) = (side.folder().join("task-logs.after"), side.logs_here());
    let moved = match files::is_there(&older) {
        Ok(true) => files::create_private_dir(&here).and_then(|()| files::rename_durably(&older, &here.join("in"))),
        other => other.map(drop),
    };
    moved.map_err(|source| RestoreError::Write { path: older, source })
}

/// By what the exchange will tell which database is in force. On somebody else's server what is in it is written down.
async fn before_exchange(access: &Access, side: &Side) -> Result<(u32, String), RestoreError> {
    let mark = hex::encode(random::bytes::<8>());
    if !access.is_ours() {
        content::check_replaceable(access, &access.application()).await?;
        Content::write(access, &access.application(), &side.content(When::Before)).await?;
        return Ok((0, mark));
    }
    let client = access.superuser("postgres").await?;
    Ok((database_oid(&client, APPLICATION_DATABASE).await?.ok_or(PgError::NoDatabase)?, mark))
}

fn write_after(side: &Side, records: &Records) -> Result<(), RestoreError> {
    for (path, text) in
        [(side.config(When::After), records.config.as_bytes()), (side.receipt(When::After), &records.receipt)]
    {
        files::write_atomic(&path, text, 0o600).map_err(|source| RestoreError::Write { path, source })?;
    }
    let unpacked = side.folder().join(CONFIG);
    files::remove_any(&unpacked).map_err(|source| RestoreError::Write { path: unpacked, source })
}

/// Copies of what is about to be replaced.
fn copy_before(home: &Home, side: &Side) -> Result<(), RestoreError> {
    for (from, to) in [(home.config(), side.config(When::Before)), (home.receipt(), side.receipt(When::Before))] {
        let copied = files::read_text(&from, 1024 * 1024)
            .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(|text| files::write_atomic(&to, text.as_bytes(), 0o600));
        copied.map_err(|source| RestoreError::Write { path: to, source })?;
    }
    Ok(())
}

/// What comes back knows nothing of a move since, nor of another password.
fn keep_datastore(home: &Home, side: &Side) -> Result<(), RestoreError> {
    let path = side.config(When::After);
    let write = |source| RestoreError::Write { path: path.clone(), source };
    let Some(text) = files::read_text(&path, 1024 * 1024).map_err(write)? else { return Ok(()) };
    let present = place::configured(home).map_err(ExchangeError::from)?;
    let fitted = with_datastore(&text, &present)?;
    files::write_atomic(&path, fitted.as_bytes(), 0o600).map_err(write)
}

/// The folder that a link as its last part leads to.
fn real(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// Whether restores and verifications that were killed have left something.
pub fn has_strays(home: &Home) -> bool {
    side::all(home).iter().any(Side::is_stray)
}

/// Removes it, from the cluster first, because the folders are what it is known by. The caller has the
/// home or the operation to itself, and no exchange is under way.
pub async fn remove_strays(home: &Home, access: Option<&Access>) -> Result<(), RestoreError> {
    if let Some(access) = access {
        strays::remove_from(home, access).await?;
    }
    for side in side::all(home).into_iter().filter(Side::is_stray) {
        side.remove().map_err(|source| RestoreError::Write { path: side.folder().to_owned(), source })?;
    }
    Ok(())
}

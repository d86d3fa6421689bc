//! Restores a backup: unpacks it next to the current data, loads it into a database of its own, verifies it, and
//! exchanges it with the current state. Nothing changes before the exchange; dropping a prepared backup removes its
//! files.

mod carry_over;
pub(crate) mod changed_settings;
pub mod exchange;
pub(crate) mod exchange_error;
pub(crate) mod exchange_tree;
pub(crate) mod newer_files;
pub mod obstacles;
pub(crate) mod preserved;
pub mod quarantine;
mod read;
pub mod restore_dir;
pub(crate) mod restore_error;
pub mod restore_plan;

use super::content::{self, Content};
use super::encryption::Input;
use super::format::archive_read::Sink;
use super::format::manifest::{CONFIG, DUMP, Entry, Manifest};
use super::verify::scratch::{RestoreId, Scratch};
use super::verify::stage::{Stage, Targets};
use super::verify::staging::StagingServer;
use super::verify::{leftovers, load};
use exchange::{ExchangePlan, database_oid};
use exchange_error::ExchangeError;
use exchange_tree::write_names;
use leoflow_base::auth::cipher::Cipher;
use leoflow_base::config::{self, DEPRECATED};
use leoflow_base::home::Home;
use leoflow_base::home::journal::Operation;
use leoflow_base::home::progress::Reporter;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, random};
use leoflow_postgres::{APPLICATION_DATABASE, Access, Login, PgError, location};
use preserved::PreservedPaths;
pub use read::{peek, peek_config, read};
use restore_dir::{ExternalPaths, RestoreDir, RetainedState, When};
use restore_error::RestoreError;
use restore_plan::{ConfigRefusal, with_datastore, without_recipients};
use std::io::{self, Read};
use std::path::{Path, PathBuf};

/// Unpacks the config and the dump; other entries are only compared with the manifest.
pub struct DatabaseOnly(Stage);

impl DatabaseOnly {
    pub fn new(restore_dir: &RestoreDir) -> Self {
        Self(Stage::new(targets(restore_dir, &restore_dir.workspace_here(), &restore_dir.logs_here())))
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

fn targets(restore_dir: &RestoreDir, workspace_staging: &Path, logs_staging: &Path) -> Targets {
    let own = restore_dir.folder().to_owned();
    Targets { own, task_logs: logs_staging.join("in"), workspace: workspace_staging.join("in") }
}

/// A backup unpacked into a restore directory, with the hash of every entry verified.
pub struct Staged {
    pub restore_dir: RestoreDir,
    pub manifest: Manifest,
    pub config: String,
    pub workspace: PathBuf,
    workspace_staging: PathBuf,
    input: PathBuf,
    task_logs: PathBuf,
    logs_staging: PathBuf,
    /// True while the database server contains no part of the restore.
    remove_on_drop: bool,
}

impl Drop for Staged {
    fn drop(&mut self) {
        if self.remove_on_drop {
            // Errors are ignored: `remove_restore_leftovers` tries again.
            let _ = self.restore_dir.remove();
        }
    }
}

impl Staged {
    /// Unpacks a backup. Leaves nothing behind on an error.
    pub fn unpack(home: &Home, input: &Input, workspace: &Path, reporter: &dyn Reporter) -> Result<Self, RestoreError> {
        let restore_dir = RestoreDir::of(home, RestoreId::new());
        let write = |source| RestoreError::Write { path: restore_dir.folder().to_owned(), source };
        let task_logs = resolve_links(&home.task_logs());
        let external_paths = ExternalPaths {
            workspace: Some(workspace.to_owned()),
            made_workspace: !workspace.exists(),
            task_logs: Some(task_logs.clone()),
        };
        restore_dir.create(&external_paths).map_err(write)?;
        let staging_of = |here: PathBuf, tree: &Path| {
            restore_dir.choose_staging(here, tree).map_err(|source| {
                // The directory is still empty.
                let _ = restore_dir.remove();
                RestoreError::Write { path: tree.to_owned(), source }
            })
        };
        let workspace_staging = staging_of(restore_dir.workspace_here(), workspace)?;
        let logs_staging = staging_of(restore_dir.logs_here(), &task_logs)?;
        let mut stage = Stage::new(targets(&restore_dir, &workspace_staging, &logs_staging));
        let unpacked = read(input, &mut stage, reporter).and_then(|manifest| {
            stage.finish().map_err(write)?;
            let config = files::read_text(&restore_dir.folder().join(CONFIG), 1024 * 1024).map_err(write)?;
            Ok((manifest, config.unwrap_or_default()))
        });
        checkpoint("restore.unpacked");
        match unpacked {
            Ok((manifest, config)) => {
                let workspace = workspace.to_owned();
                let input = input.path.clone();
                Ok(Self {
                    restore_dir,
                    input,
                    manifest,
                    config,
                    workspace,
                    workspace_staging,
                    task_logs,
                    logs_staging,
                    remove_on_drop: true,
                })
            }
            Err(error) => {
                // Errors are ignored: `remove_restore_leftovers` tries again.
                let _ = restore_dir.remove();
                Err(error)
            }
        }
    }
}

/// A staged backup whose database is loaded, verified, and owned by the application's role.
pub struct Ready {
    staged: Staged,
}

/// Loads and verifies the staged dump. Leaves nothing behind on an error.
pub(crate) async fn load_and_verify(
    home: &Home,
    access: &Access,
    staged: Staged,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<Ready, RestoreError> {
    let mut staged = staged;
    let cipher = cipher_of(&staged.config)?;
    // From here on the server may contain databases of this restore. The directory identifies them, so it is removed
    // after them.
    staged.remove_on_drop = false;
    let outcome =
        load_in_staging(home, access, (&staged.restore_dir, &staged.manifest), &cipher, version, reporter).await;
    checkpoint("restore.proven");
    match outcome {
        Ok(()) => Ok(Ready { staged }),
        Err(error) => {
            staged.remove_on_drop = leftovers::remove_from(home, access).await.is_ok();
            Err(error)
        }
    }
}

/// Loads a staged dump into a staging server, verifies it, and makes the application's role its owner. For an external
/// datastore, also exports the loaded database to a file.
async fn load_in_staging(
    home: &Home,
    access: &Access,
    (restore_dir, manifest): (&RestoreDir, &Manifest),
    cipher: &Cipher,
    version: &str,
    reporter: &dyn Reporter,
) -> Result<(), RestoreError> {
    let staging_server = StagingServer::open(home, access).await?;
    let scratch = Scratch::create(&staging_server.access, restore_dir.id.clone()).await?;
    load::load(&scratch, &restore_dir.dump(), manifest, cipher, version, reporter).await?;
    scratch.transfer_to_application().await?;
    if !access.owns_server() {
        let login = Login { database: restore_dir.id.standby_database(), ..staging_server.access.application() };
        Content::write(&staging_server.access, &login, &restore_dir.content(When::After)).await?;
    }
    Ok(())
}

pub(crate) fn cipher_of(config: &str) -> Result<Cipher, ConfigRefusal> {
    let text = without_recipients(&config::with_new_names(config)?);
    let loaded = config::parse(&text, DEPRECATED).map_err(ConfigRefusal::Invalid)?;
    let key = loaded.config.encryption_key.ok_or(ConfigRefusal::Missing("encryption_key"))?;
    Cipher::new(&key).map_err(|_| ConfigRefusal::Missing("usable encryption_key"))
}

/// Files and descriptions of a restore that the caller prepares.
pub struct Records {
    pub config: String,
    pub receipt: Vec<u8>,
    /// Description of the restored state, for users.
    pub restored: String,
    /// Description of the replaced state, for users.
    pub replaced: String,
}

impl Ready {
    /// Makes the backup current. No other process may use the home or be connected to its databases.
    pub(crate) async fn make_current(
        self,
        home: &Home,
        access: &Access,
        records: &Records,
    ) -> Result<(), RestoreError> {
        let staged = &self.staged;
        let restore_dir = &staged.restore_dir;
        let write = |path: &Path, source| RestoreError::Write { path: path.to_owned(), source };
        files::remove_any(&restore_dir.dump()).map_err(|source| write(&restore_dir.dump(), source))?;
        let has_workspace = staged.workspace_staging.join("in").is_dir();
        let workspace = has_workspace.then(|| resolve_links(&staged.workspace));
        write_after(restore_dir, records)?;
        copy_before(home, restore_dir)?;
        let (database, mark) = prepare_database_exchange(access, restore_dir).await?;
        let preserved = PreservedPaths::of(&staged.manifest, &staged.input, workspace.as_deref(), &staged.task_logs);
        preserved
            .and_then(|preserved| preserved.write(&restore_dir.preserved()))
            .map_err(|source| write(&restore_dir.preserved(), source))?;
        write_names(&staged.workspace_staging.join("in"), &restore_dir.names())?;
        write_names(&staged.logs_staging.join("in"), &restore_dir.log_names())?;
        let quarantined = quarantine::pending(home).map_err(|source| write(&home.quarantine_note(), source))?;
        let retained = RetainedState {
            unreadable: quarantined.map(|quarantined| quarantined.folder),
            ..RetainedState::now(
                records.restored.clone(),
                records.replaced.clone(),
                staged.manifest.tables.clone(),
                workspace.clone(),
            )
        };
        let plan = ExchangePlan {
            id: restore_dir.id.as_str().to_owned(),
            workspace,
            workspace_staging: staged.workspace_staging.clone(),
            task_logs: staged.task_logs.clone(),
            task_logs_staging: staged.logs_staging.clone(),
            database,
            mark,
            retained,
            undo: false,
        };
        Ok(exchange::exchange(home, access, Operation::Restore, plan).await?)
    }
}

/// Exchanges the current state for the retained one, and retains the current one. `rows` are the row counts of the
/// state that becomes current.
pub async fn undo(
    home: &Home,
    access: &Access,
    rows: std::collections::BTreeMap<String, i64>,
) -> Result<RetainedState, RestoreError> {
    let retained =
        restore_dir::retained(home).map_err(|source| RestoreError::Write { path: home.restore(), source })?;
    let (restore_dir, previous) = retained.ok_or(RestoreError::NoRetainedState)?;
    let task_logs = resolve_links(&home.task_logs());
    let logs_staging = restore_dir.find_staging(restore_dir.logs_here(), &task_logs);
    let workspace_staging = match &previous.workspace {
        Some(workspace) => restore_dir.find_staging(restore_dir.workspace_here(), workspace),
        None => restore_dir.workspace_here(),
    };
    take_over_older_logs(&restore_dir)?;
    let (incoming, logs) = (workspace_staging.join("in"), logs_staging.join("in"));
    for (folder, is_needed) in [(&incoming, previous.workspace.is_some()), (&logs, true)] {
        if is_needed && !folder.is_dir() {
            return Err(RestoreError::RetainedStateMissing(folder.clone()));
        }
    }
    copy_before(home, &restore_dir)?;
    keep_datastore(home, &restore_dir)?;
    let (database, mark) = prepare_database_exchange(access, &restore_dir).await?;
    write_names(&incoming, &restore_dir.names())?;
    write_names(&logs, &restore_dir.log_names())?;
    let (restored, replaced) = (previous.replaced.clone(), previous.restored.clone());
    let retained = RetainedState::now(restored, replaced, rows, previous.workspace.clone());
    let plan = ExchangePlan {
        id: restore_dir.id.as_str().to_owned(),
        workspace: previous.workspace,
        workspace_staging,
        task_logs,
        task_logs_staging: logs_staging,
        database,
        mark,
        retained: retained.clone(),
        undo: false,
    };
    exchange::exchange(home, access, Operation::RestoreUndo, plan).await?;
    Ok(retained)
}

/// Moves task logs that an earlier release retained under another name to where this release expects them.
fn take_over_older_logs(restore_dir: &RestoreDir) -> Result<(), RestoreError> {
    let (older, staging) = (restore_dir.folder().join("task-logs.after"), restore_dir.logs_here());
    let moved = match files::is_there(&older) {
        Ok(true) => {
            files::create_private_dir(&staging).and_then(|()| files::rename_durably(&older, &staging.join("in")))
        }
        other => other.map(drop),
    };
    moved.map_err(|source| RestoreError::Write { path: older, source })
}

/// Prepares the database part of an exchange. Returns the object id of the current database, and a random mark that
/// identifies the exchange. On an external server, exports the current content and returns 0 as the object id.
async fn prepare_database_exchange(access: &Access, restore_dir: &RestoreDir) -> Result<(u32, String), RestoreError> {
    let mark = hex::encode(random::bytes::<8>());
    if !access.owns_server() {
        content::check_replaceable(access, &access.application()).await?;
        Content::write(access, &access.application(), &restore_dir.content(When::Before)).await?;
        return Ok((0, mark));
    }
    let client = access.superuser("postgres").await?;
    Ok((database_oid(&client, APPLICATION_DATABASE).await?.ok_or(PgError::NoDatabase)?, mark))
}

/// Writes the config and the receipt that become current, and removes the unpacked config.
fn write_after(restore_dir: &RestoreDir, records: &Records) -> Result<(), RestoreError> {
    for (path, text) in [
        (restore_dir.config(When::After), records.config.as_bytes()),
        (restore_dir.receipt(When::After), &records.receipt),
    ] {
        files::write_atomic(&path, text, 0o600).map_err(|source| RestoreError::Write { path, source })?;
    }
    let unpacked = restore_dir.folder().join(CONFIG);
    files::remove_any(&unpacked).map_err(|source| RestoreError::Write { path: unpacked, source })
}

/// Copies the current config and receipt into the restore directory.
fn copy_before(home: &Home, restore_dir: &RestoreDir) -> Result<(), RestoreError> {
    for (from, to) in
        [(home.config(), restore_dir.config(When::Before)), (home.receipt(), restore_dir.receipt(When::Before))]
    {
        let copied = files::read_text(&from, 1024 * 1024)
            .and_then(|text| text.ok_or_else(|| io::ErrorKind::NotFound.into()))
            .and_then(|text| files::write_atomic(&to, text.as_bytes(), 0o600));
        copied.map_err(|source| RestoreError::Write { path: to, source })?;
    }
    Ok(())
}

/// Sets the current datastore in the retained config, which may name an earlier one or an old password.
fn keep_datastore(home: &Home, restore_dir: &RestoreDir) -> Result<(), RestoreError> {
    let path = restore_dir.config(When::After);
    let write = |source| RestoreError::Write { path: path.clone(), source };
    let Some(text) = files::read_text(&path, 1024 * 1024).map_err(write)? else { return Ok(()) };
    let present = location::configured(home).map_err(ExchangeError::from)?;
    let adapted = with_datastore(&text, &present)?;
    files::write_atomic(&path, adapted.as_bytes(), 0o600).map_err(write)
}

/// Resolves symbolic links; returns a path that does not exist unchanged.
fn resolve_links(path: &Path) -> PathBuf {
    path.canonicalize().unwrap_or_else(|_| path.to_owned())
}

/// True when a killed restore or verification has left files in the home. False if its folder cannot be read.
pub fn has_leftovers(home: &Home) -> bool {
    restore_dir::all(home).iter().flatten().any(RestoreDir::is_leftover)
}

/// Removes leftovers of killed restores and verifications: first from the server, because the directories identify the
/// databases. The caller holds the home's lock or the operation lock, and no exchange is in progress.
pub(crate) async fn remove_restore_leftovers(home: &Home, access: Option<&Access>) -> Result<(), RestoreError> {
    if let Some(access) = access {
        leftovers::remove_from(home, access).await?;
    }
    let all = restore_dir::all(home).map_err(|source| RestoreError::Write { path: home.restore(), source })?;
    for restore_dir in all.into_iter().filter(RestoreDir::is_leftover) {
        restore_dir.remove().map_err(|source| RestoreError::Write { path: restore_dir.folder().to_owned(), source })?;
    }
    Ok(())
}

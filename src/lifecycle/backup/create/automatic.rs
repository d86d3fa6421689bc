//! Backups that Lite takes automatically: by schedule, and before it changes the schema of a database with data.

use super::created_backup::CreatedBackup;
use super::dump::{DumpError, NewerSchema, has_rows};
use super::{CreateError, Request, create};
use crate::backup::encryption::EncryptTo;
use crate::backup::retain::catalog::{self, Listed};
use crate::backup::retain::notes;
use crate::backup::retain::retention::{self, Limits};
use jiff::Timestamp;
use leoflow_base::config::{self, Config};
use leoflow_base::home::Home;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::sys::fs::{disk, files};
use leoflow_postgres::Access;
use std::path::{Path, PathBuf};

/// Free disk space that a scheduled backup leaves for the datastore, in bytes.
const KEEP_FREE: u64 = 256 * 1024 * 1024;
/// The same for a backup before an upgrade or another change, in bytes; less, since the change may free space.
const KEEP_FREE_BEFORE: u64 = 16 * 1024 * 1024;

/// Parameters of an automatic backup.
pub struct Automatic<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub config: &'a Config,
    /// Version of the program that takes it.
    pub version: &'a str,
    /// Backups needed to roll back an upgrade; no limit removes them.
    pub pinned: &'a [PathBuf],
    pub reporter: &'a dyn Reporter,
}

/// Takes a backup into `backups/` before a change and removes old ones over the limits; `None` if the database contains
/// no user data.
pub async fn before(reason: &str, with: &Automatic<'_>) -> Result<Option<CreatedBackup>, CreateError> {
    if !has_rows(with.access).await? {
        return Ok(None);
    }
    create_even_if_empty(reason, with).await.map(Some)
}

/// Takes a backup even if the database is empty.
pub async fn create_even_if_empty(reason: &str, with: &Automatic<'_>) -> Result<CreatedBackup, CreateError> {
    // A backup for rollbacks must open on this machine without a key.
    make(&format!("before-{reason}"), with, &EncryptTo::Off, KEEP_FREE_BEFORE).await
}

/// Takes a scheduled backup. Removes the oldest first if there is not enough space.
pub async fn scheduled(with: &Automatic<'_>) -> Result<CreatedBackup, CreateError> {
    let all = catalog::list(with.home);
    let last_size = all.iter().find(|backup| backup.automatic).map_or(0, |backup| backup.size_bytes);
    let free = disk::free_bytes(&with.home.backups()).unwrap_or(u64::MAX);
    let missing_bytes = space_for(last_size).saturating_sub(free);
    if missing_bytes > 0 {
        remove(&all, Path::new(""), with, missing_bytes);
    }
    make("scheduled", with, &EncryptTo::of(&with.config.backup)?, KEEP_FREE).await
}

/// Space for the next backup, its spool and its file, if the backup is as large as the last, in bytes.
fn space_for(last_size: u64) -> u64 {
    KEEP_FREE + last_size * 5 / 2
}

async fn make(
    why: &str,
    with: &Automatic<'_>,
    encrypt_to: &EncryptTo,
    keep_free: u64,
) -> Result<CreatedBackup, CreateError> {
    let Automatic { home, access, config, version, reporter, .. } = *with;
    let output = catalog::automatic_path(home, why, encrypt_to);
    let write = |source| CreateError::Write { path: output.clone(), source };
    files::create_private_dir(&home.backups()).map_err(write)?;
    let request = Request {
        home,
        access,
        version,
        instance: config::instance_name(Some(config)),
        workspace: config.workspace.as_deref(),
        output: &output,
        task_logs_bytes: config.backup.task_logs_bytes,
        keep_free,
        newer_schema: NewerSchema::Accept,
        encrypt_to,
        invariants: &config.backup.invariants,
    };
    let backup = create(&request, reporter).await?;
    if let Err(error) = notes::record_created(home, &backup) {
        reporter.report(Progress::Warning(format!("cannot record the details of the encrypted backup: {error}")));
    }
    remove(&catalog::list(home), &backup.path, with, 0);
    Ok(backup)
}

/// Removes backups over the limits, never `backup` itself. Errors are ignored: a backup that stays only takes space
/// until the next attempt.
fn remove(all: &[Listed], backup: &Path, with: &Automatic<'_>, missing_bytes: u64) {
    let limits = Limits { missing_bytes, ..Limits::of(&with.config.backup, Timestamp::now()) };
    for backup in retention::excess(all, backup, with.pinned, &limits) {
        let _ = files::remove_any(&backup.path);
    }
}

impl CreateError {
    /// Kind of the error if writing the backup failed.
    pub fn write_failure(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Write { source, .. } | Self::Dump(DumpError::Write(source)) => Some(source.kind()),
            Self::Collect(super::collect::CollectError::Spool(source)) => Some(source.kind()),
            _ => None,
        }
    }
}

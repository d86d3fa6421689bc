//! Backups that Lite takes automatically: by schedule, and before migrations, upgrades and rollbacks.

use super::dump::{DumpError, NewerSchema, has_rows};
use super::{CreateError, CreatedBackup, Output, Source, create};
use crate::backup::encryption::EncryptTo;
use crate::backup::retain::catalog::{self, Listed};
use crate::backup::retain::notes;
use crate::backup::retain::retention::{self, Limits};
use jiff::Timestamp;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::fs::{disk, files};
use std::path::{Path, PathBuf};

/// Free disk space that a scheduled backup leaves for the datastore, in bytes.
const KEEP_FREE: u64 = 256 * 1024 * 1024;
/// Free disk space that a backup before an upgrade or another change leaves, in bytes. Smaller, because the change may
/// free space.
const KEEP_FREE_BEFORE: u64 = 16 * 1024 * 1024;

/// Parameters of an automatic backup.
pub struct Automatic<'a> {
    pub source: Source<'a>,
    /// Backups needed to roll back an upgrade; never removed here.
    pub pinned: Vec<PathBuf>,
}

/// Takes a backup into `backups/` before a change and removes old backups over the limits; `None` if the database
/// contains no user data.
pub(crate) async fn before_change(reason: &str, context: &Automatic<'_>) -> Result<Option<CreatedBackup>, CreateError> {
    if !has_rows(context.source.access).await? {
        return Ok(None);
    }
    create_even_if_empty(reason, context).await.map(Some)
}

/// Like [`before_change`], but takes the backup even if the database contains no user data.
pub async fn create_even_if_empty(reason: &str, context: &Automatic<'_>) -> Result<CreatedBackup, CreateError> {
    // Not encrypted: a rollback must be able to read the backup without a key.
    make(&format!("{}{reason}", catalog::BEFORE), context, &EncryptTo::Off, KEEP_FREE_BEFORE).await
}

/// Takes a scheduled backup. If there is not enough disk space, it first removes the oldest automatic backups.
pub async fn scheduled(context: &Automatic<'_>) -> Result<CreatedBackup, CreateError> {
    let Source { home, config, .. } = context.source;
    // Backups that cannot be listed stay.
    let all = catalog::list(home).unwrap_or_default();
    let last_size = all.iter().find(|backup| backup.automatic).map_or(0, |backup| backup.size_bytes);
    let free = disk::free_bytes(&home.backups()).unwrap_or(u64::MAX);
    // The next backup may be as large as the last one, and needs space for its spool, its file and the reserve.
    let missing_bytes = (KEEP_FREE + last_size * 5 / 2).saturating_sub(free);
    if missing_bytes > 0 {
        remove(&all, Path::new(""), context, missing_bytes);
    }
    make("scheduled", context, &EncryptTo::of(&config.backup)?, KEEP_FREE).await
}

async fn make(
    why: &str,
    context: &Automatic<'_>,
    encrypt_to: &EncryptTo,
    keep_free: u64,
) -> Result<CreatedBackup, CreateError> {
    let Source { home, reporter, .. } = context.source;
    let path = catalog::new_path(home, catalog::AUTOMATIC, &format!("-{why}"), encrypt_to);
    files::create_private_dir(&home.backups()).map_err(|source| CreateError::Write { path: path.clone(), source })?;
    let output = Output { path: &path, encrypt_to, keep_free, newer_schema: NewerSchema::Accept };
    let backup = create(&context.source, &output).await?;
    if let Err(error) = notes::record_created(home, &backup) {
        reporter.report(Progress::Warning(format!("cannot record the details of the encrypted backup: {error}")));
    }
    remove(&catalog::list(home).unwrap_or_default(), &backup.path, context, 0);
    Ok(backup)
}

/// Removes automatic backups over the limits, never `backup` itself. Errors are ignored: the next backup tries again.
fn remove(all: &[Listed], backup: &Path, context: &Automatic<'_>, missing_bytes: u64) {
    let limits = Limits { missing_bytes, ..Limits::of(&context.source.config.backup, Timestamp::now()) };
    let _ = retention::remove(&retention::excess(all, backup, &context.pinned, &limits));
}

impl CreateError {
    /// Kind of the I/O error if writing the backup failed.
    pub fn write_failure(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Write { source, .. } | Self::Dump(DumpError::Write(source)) => Some(source.kind()),
            Self::Collect(super::collect::CollectError::Spool(source)) => Some(source.kind()),
            _ => None,
        }
    }
}

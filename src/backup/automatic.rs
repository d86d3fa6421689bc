//! Backups that Lite takes by itself, before it changes the schema of a database that has something in it.

use super::catalog;
use super::create::{CreateError, Made, Request, create};
use super::dump::{DumpError, has_rows};
use crate::config::{self, Config};
use crate::home::Home;
use crate::home::progress::Reporter;
use crate::postgres::Access;
use crate::sys::files;
use std::path::{Path, PathBuf};

/// What an automatic backup leaves free on the disk, in bytes: the datastore needs room to go on.
const KEEP_FREE: u64 = 256 * 1024 * 1024;

/// What taking one needs.
pub struct Automatic<'a> {
    pub home: &'a Home,
    pub access: &'a Access,
    pub config: &'a Config,
    /// Of the program that takes it.
    pub version: &'a str,
    /// Backups that are the way back from an upgrade: no limit takes them.
    pub pinned: &'a [PathBuf],
    pub reporter: &'a dyn Reporter,
}

/// Takes one into `backups/`, and removes those that are over the limits. `None` when there is nothing
/// in the database that anybody has put there.
pub async fn before(what: &str, with: &Automatic<'_>) -> Result<Option<Made>, CreateError> {
    if !has_rows(with.access).await? {
        return Ok(None);
    }
    always(what, with).await.map(Some)
}

/// The same for a database that may be empty.
pub async fn always(what: &str, with: &Automatic<'_>) -> Result<Made, CreateError> {
    let Automatic { home, access, config, version, pinned, reporter } = *with;
    let output = catalog::automatic_path(home, &format!("before-{what}"));
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
        keep_free: KEEP_FREE,
        may_be_newer: true,
    };
    let made = create(&request, reporter).await?;
    remove_over_limits(home, config, &made.path, pinned);
    Ok(made)
}

/// Only room is lost by one that stays; the next time it is tried again.
fn remove_over_limits(home: &Home, config: &Config, made: &Path, pinned: &[PathBuf]) {
    for path in catalog::over_limits(&catalog::list(home), made, pinned, config.backup.keep, config.backup.max_bytes) {
        let _ = files::remove_any(&path);
    }
}

impl CreateError {
    /// Whether the disk is the reason.
    pub fn is_full_disk(&self) -> bool {
        let full = |error: &std::io::Error| {
            matches!(error.kind(), std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded)
        };
        match self {
            Self::Write { source, .. } | Self::Dump(DumpError::Write(source)) => full(source),
            Self::Collect(super::collect::CollectError::Spool(source)) => full(source),
            _ => false,
        }
    }
}

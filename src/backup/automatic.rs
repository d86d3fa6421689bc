//! Backups that Lite takes by itself: before it changes the schema of a database that has something in it, and when one is due.

use super::catalog::{self, Listed};
use super::create::{CreateError, Request, create};
use super::dump::{DumpError, has_rows};
use super::encryption::EncryptTo;
use super::made::Made;
use super::notes;
use super::retention::{self, Limits};
use crate::config::{self, Config};
use crate::home::Home;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::Access;
use crate::sys::{disk, files};
use jiff::Timestamp;
use std::path::{Path, PathBuf};

/// What a scheduled backup leaves free on the disk, in bytes: the datastore needs room to go on.
const KEEP_FREE: u64 = 256 * 1024 * 1024;
/// The same for one that is taken before a change: it may be the change that makes room, or the way out.
const KEEP_FREE_BEFORE: u64 = 16 * 1024 * 1024;

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
    // What is the way back has to open on this machine, by itself.
    make(&format!("before-{what}"), with, &EncryptTo::Nobody, KEEP_FREE_BEFORE).await
}

/// One that is due. Where it would have no room, the oldest go first.
pub async fn scheduled(with: &Automatic<'_>) -> Result<Made, CreateError> {
    let all = catalog::list(with.home);
    let last = all.iter().find(|backup| backup.automatic).map_or(0, |backup| backup.size_bytes);
    let free = disk::free_bytes(&with.home.backups()).unwrap_or(u64::MAX);
    let lacking = room_for(last).saturating_sub(free);
    if lacking > 0 {
        remove(&all, Path::new(""), with, lacking);
    }
    make("scheduled", with, &EncryptTo::of(&with.config.backup)?, KEEP_FREE).await
}

/// What the next one takes while it is made, if it is like the last: the copy that it is made of, and itself.
fn room_for(last: u64) -> u64 {
    KEEP_FREE + last * 5 / 2
}

async fn make(why: &str, with: &Automatic<'_>, encrypt_to: &EncryptTo, keep_free: u64) -> Result<Made, CreateError> {
    let Automatic { home, access, config, version, reporter, .. } = *with;
    let output = catalog::automatic_path(home, why, !encrypt_to.is_nobody());
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
        may_be_newer: true,
        encrypt_to,
    };
    let made = create(&request, reporter).await?;
    if let Err(error) = notes::note_made(home, &made) {
        reporter
            .report(Progress::Warning(format!("what can be said of it without its key is not written down: {error}")));
    }
    remove(&catalog::list(home), &made.path, with, 0);
    Ok(made)
}

/// Removes what is over the limits. Only room is lost by one that stays; the next time it is tried again.
fn remove(all: &[Listed], made: &Path, with: &Automatic<'_>, lacking: u64) {
    let limits = Limits { lacking, ..Limits::of(&with.config.backup, Timestamp::now()) };
    for one in retention::excess(all, made, with.pinned, &limits) {
        let _ = files::remove_any(&one.path);
    }
}

impl CreateError {
    /// The kind of the error if the backup could not be written.
    pub fn write_failure(&self) -> Option<std::io::ErrorKind> {
        match self {
            Self::Write { source, .. } | Self::Dump(DumpError::Write(source)) => Some(source.kind()),
            Self::Collect(super::collect::CollectError::Spool(source)) => Some(source.kind()),
            _ => None,
        }
    }

    /// True where the disk is the reason.
    pub fn is_full_disk(&self) -> bool {
        use std::io::ErrorKind::{QuotaExceeded, StorageFull};
        matches!(self.write_failure(), Some(StorageFull | QuotaExceeded))
    }
}

//! Creates a backup: the one that a user wants, or the scheduled one.

use super::open::datastore::{Datastore, StartedBy};
use super::{DryRun, OperationContext, OperationError};
use crate::backup::CreatedBackup;
use crate::backup::create::dump::NewerSchema;
use crate::backup::create::{self, Output, Source, automatic};
use crate::backup::encryption::EncryptTo;
use crate::backup::format::archive::is_encrypted_name;
use crate::backup::retain::{catalog, notes};
use crate::upgrade;
use jiff::Timestamp;
use leoflow_base::config::Config;
use leoflow_base::home::upkeep::{self, End};
use leoflow_base::sys::fs::files;
use std::io;
use std::path::{Path, PathBuf};

/// Where a backup is written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Destination {
    /// A new file in the home's `backups` folder.
    Home,
    /// A new file in the home's `backups` folder, because a backup is due; automatic backups over the limits are removed.
    Scheduled,
    /// An absolute path.
    File(PathBuf),
}

/// A backup to create.
pub struct BackupPlan {
    config: Config,
    encrypt_to: EncryptTo,
    destination: Destination,
}

/// Plans a backup. Reports what the user may not expect of the destination.
pub fn plan(context: &OperationContext<'_>, destination: Destination) -> Result<BackupPlan, OperationError> {
    let config = context.config()?.ok_or(OperationError::NothingToBackUp)?.config;
    let encrypt_to = EncryptTo::of(&config.backup)?;
    let destination = match destination {
        Destination::File(path) if encrypt_to.is_off() => {
            warn_of_work_tree(context, &path);
            Destination::File(path)
        }
        // `restore` and `verify` recognize encryption by the name.
        Destination::File(path) if !is_encrypted_name(&path) => {
            context.note("The backup is encrypted, so .age is added to its name");
            let mut name = path.into_os_string();
            name.push(".age");
            Destination::File(name.into())
        }
        other => other,
    };
    Ok(BackupPlan { config, encrypt_to, destination })
}

/// Plans an unencrypted backup, which the caller restores at once and removes.
pub fn plan_plain(context: &OperationContext<'_>, path: &Path) -> Result<BackupPlan, OperationError> {
    let config = context.config()?.ok_or(OperationError::NothingToBackUp)?.config;
    Ok(BackupPlan { config, encrypt_to: EncryptTo::Off, destination: Destination::File(path.to_owned()) })
}

fn warn_of_work_tree(context: &OperationContext<'_>, path: &Path) {
    if let Some(work_tree) = path.ancestors().skip(1).find(|folder| folder.join(".git").exists()) {
        context.warn(format!(
            "{} is a git work tree, and a backup contains every password: do not commit it",
            work_tree.display()
        ));
    }
}

/// Creates the backup and records it. `command` names the holder of the operation lock in other processes' messages.
pub async fn apply(
    context: &OperationContext<'_>,
    plan: &BackupPlan,
    command: &str,
) -> Result<CreatedBackup, OperationError> {
    let started_by = if plan.destination == Destination::Scheduled { StartedBy::Schedule } else { StartedBy::User };
    // Finishes or undoes an interrupted upgrade or rollback.
    context.settle_change(DryRun::No).await?;
    // On a stopped instance, finishes or undoes an interrupted restore, purge or move of the datastore. A running
    // instance has done so at its start.
    let (datastore, _operation_lock) = Datastore::open_locked(context, command, started_by).await?;
    // Creates the role and the database if Leoflow was never started.
    drop(datastore.connect().await?);
    // Removes the leftovers of a restore or verification that was killed before it changed anything.
    context.clean_up(Some(&datastore.access)).await?;
    let created = create(context, plan, &datastore).await.map_err(|error| datastore.explain(error))?;
    if let Err(error) = record(context, plan, &created) {
        // The backup exists even when recording it fails.
        context.warn(format!("backup created, but recording it failed: {error}"));
    }
    Ok(created)
}

async fn create(
    context: &OperationContext<'_>,
    plan: &BackupPlan,
    datastore: &Datastore,
) -> Result<CreatedBackup, OperationError> {
    let &OperationContext { home, version, reporter } = context;
    let BackupPlan { config, encrypt_to, destination } = plan;
    let path = match destination {
        Destination::Scheduled => {
            let parameters = upgrade::automatic_backup(home, &datastore.access, config, version, reporter)?;
            return Ok(automatic::scheduled(&parameters).await?);
        }
        Destination::File(path) => path.clone(),
        Destination::Home => {
            files::create_private_dir(&home.backups()).map_err(OperationError::io("create", &home.backups()))?;
            catalog::new_path(home, "leoflow-backup-", "", encrypt_to)
        }
    };
    let source = Source { home, access: &datastore.access, config, version, reporter };
    let output = Output { path: &path, encrypt_to, keep_free: 0, newer_schema: NewerSchema::Refuse };
    Ok(create::create(&source, &output).await?)
}

/// Records the backup in the notes and in the schedule.
fn record(context: &OperationContext<'_>, plan: &BackupPlan, created: &CreatedBackup) -> io::Result<()> {
    if plan.destination != Destination::Scheduled {
        notes::record_created(context.home, created)?;
    }
    // A manual backup in the home's own folder replaces the next scheduled one.
    if !matches!(plan.destination, Destination::File(_)) {
        // The time that `leoflow lite backups` lists.
        let created_at = created.manifest.created_at.parse().unwrap_or_else(|_| Timestamp::now());
        upkeep::note_end(context.home, created_at, upkeep::Kind::Backup, End::Done)?;
    }
    Ok(())
}

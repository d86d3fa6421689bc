//! `leoflow lite backup`.

use crate::args::all::All;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::DryRun;
use crate::recovery::datastore::Datastore;
use crate::terminal::printer::{counted, human_size};
use clap::Args;
use jiff::Timestamp;
use leoflow_base::config::{self, Config};
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::upkeep::{self, End};
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{clock, env_vars};
use leoflow_lifecycle::backup::create::automatic;
use leoflow_lifecycle::backup::create::dump::NewerSchema;
use leoflow_lifecycle::backup::encryption::EncryptTo;
use leoflow_lifecycle::backup::format::archive::is_encrypted_name;
use leoflow_lifecycle::backup::retain::notes;
use leoflow_lifecycle::backup::{self, CreatedBackup, Request};
use leoflow_lifecycle::upgrade;
use serde_json::json;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backup                               into the home's `backups` folder\n  \
                  leoflow lite backup --output /mnt/usb/mine.tar.zst\n  \
                  leoflow lite backup --all                         back up every instance"
)]
pub struct Backup {
    /// The file to write, .tar.zst or .tar.gz [default: leoflow-backup-<UTC>.tar.zst in the
    /// home's `backups` folder, which `leoflow lite backups` lists]
    #[arg(long, short, value_name = "FILE", conflicts_with = "all")]
    pub output: Option<PathBuf>,
    /// Started by the server when a backup is due
    #[arg(long, hide = true, conflicts_with_all = ["output", "all"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub all: All,
}

const COMMAND: &str = "leoflow lite backup";

pub async fn run(context: &Context<'_>, args: &Backup) -> Result<u8, Error> {
    let config = require_config(context)?;
    let encrypt_to = EncryptTo::of(&config.backup)?;
    let output = output_path(context, args, &encrypt_to)?;
    let created = match args.scheduled {
        true => create_scheduled(context, &config).await?,
        false => create(context, &config, &output, &encrypt_to).await?,
    };
    if let Err(error) = record(context, args, &created) {
        // The backup exists even when recording it fails.
        context.printer.warning(format!("backup created, but recording it failed: {error}"));
    }
    if !created.encrypted {
        context.printer.warn_if_readable_by_others(&created.path);
    }
    print_created(context, &created)?;
    Ok(0)
}

/// Creates an unencrypted backup, which the caller restores at once and removes.
pub async fn write_plain(context: &Context<'_>, output: &Path) -> Result<CreatedBackup, Error> {
    create(context, &require_config(context)?, output, &EncryptTo::Off).await
}

/// The configuration; an error if Leoflow is not set up.
fn require_config(context: &Context<'_>) -> Result<Config, Error> {
    context.config()?.map(|loaded| loaded.config).ok_or_else(|| {
        Error::failed("Leoflow is not set up in this home; there is nothing to back up").hint("leoflow setup")
    })
}

/// Finishes or undoes interrupted operations, takes the operation lock and opens the datastore.
async fn settle_and_lock(context: &Context<'_>, scheduled: bool) -> Result<(Datastore, OperationLock), Error> {
    // Finishes or undoes an interrupted upgrade or rollback.
    context.recovery().settle_change(DryRun::No).await?;
    // On a stopped instance, finishes or undoes an interrupted restore, purge or move of the datastore. A running
    // instance has done so at its start.
    let (datastore, operation_lock) =
        Datastore::open_locked(&context.recovery(), COMMAND, started_by(scheduled)).await?;
    // Creates the role and the database if Leoflow was never started.
    drop(datastore.connect().await?);
    // Removes the leftovers of a restore or verification that was killed before it changed anything.
    context.recovery().clean_up(Some(&datastore.access)).await?;
    Ok((datastore, operation_lock))
}

/// Creates the backup `output`.
async fn create(
    context: &Context<'_>,
    config: &Config,
    output: &Path,
    encrypt_to: &EncryptTo,
) -> Result<CreatedBackup, Error> {
    let (datastore, _operation_lock) = settle_and_lock(context, false).await?;
    let request = Request {
        home: &context.home,
        access: &datastore.access,
        version: context.version,
        instance: config::instance_name(Some(config)),
        workspace: config.workspace.as_deref(),
        output,
        task_logs_bytes: config.backup.task_logs_bytes,
        keep_free: 0,
        newer_schema: NewerSchema::Refuse,
        encrypt_to,
    };
    backup::create(&request, context.printer).await.map_err(|error| super::explain(&datastore, error.into()))
}

/// Creates an automatic backup and removes the automatic backups over the limits.
async fn create_scheduled(context: &Context<'_>, config: &Config) -> Result<CreatedBackup, Error> {
    let (datastore, _operation_lock) = settle_and_lock(context, true).await?;
    let parameters =
        upgrade::automatic_backup(&context.home, &datastore.access, config, context.version, context.printer)?;
    automatic::scheduled(&parameters).await.map_err(|error| super::explain(&datastore, error.into()))
}

/// Records the backup in the notes and in the schedule.
fn record(context: &Context<'_>, args: &Backup, created: &CreatedBackup) -> io::Result<()> {
    if !args.scheduled {
        notes::record_created(&context.home, created)?;
    }
    // A manual backup in the home's own folder replaces the next scheduled one.
    if args.output.is_none() {
        // The time that `leoflow lite backups` lists.
        let created_at = created.created_at.parse().unwrap_or_else(|_| Timestamp::now());
        upkeep::note_end(&context.home, created_at, upkeep::Kind::Backup, End::Done)?;
    }
    Ok(())
}

/// Returns the path of the backup: `--output`, relative to the current folder, or by default a new name in the home's
/// `backups` folder.
fn output_path(context: &Context<'_>, args: &Backup, encrypt_to: &EncryptTo) -> Result<PathBuf, Error> {
    let Some(output) = &args.output else {
        let folder = context.home.backups();
        files::create_private_dir(&folder).map_err(|error| Error::io("create", &folder, &error))?;
        let age = if encrypt_to.is_off() { "" } else { ".age" };
        let timestamp = clock::now_rfc3339().replace(['-', ':'], "");
        // A number distinguishes backups created in the same second.
        let names = (1..).map(|number| match number {
            1 => format!("leoflow-backup-{timestamp}.tar.zst{age}"),
            _ => format!("leoflow-backup-{timestamp}-{number}.tar.zst{age}"),
        });
        let free_path = names.map(|name| folder.join(name)).find(|path| !path.exists());
        return free_path.ok_or_else(|| Error::bug("no file name is free for a backup"));
    };
    let output = encrypted_name(context, env_vars::absolute(output)?, encrypt_to);
    if encrypt_to.is_off()
        && let Some(work_tree) = output.ancestors().skip(1).find(|folder| folder.join(".git").exists())
    {
        context.printer.warning(format!(
            "{} is a git work tree, and a backup contains every password: do not commit it",
            work_tree.display()
        ));
    }
    Ok(output)
}

/// Adds `.age` to the name of an encrypted backup, because `restore` and `verify` recognize encryption by the name.
fn encrypted_name(context: &Context<'_>, output: PathBuf, encrypt_to: &EncryptTo) -> PathBuf {
    if encrypt_to.is_off() || is_encrypted_name(&output) {
        return output;
    }
    let mut name = output.into_os_string();
    name.push(".age");
    context.printer.note("The backup is encrypted, so .age is added to its name");
    name.into()
}

fn print_created(context: &Context<'_>, created: &CreatedBackup) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        return printer.json(&json!({
            "path": created.path,
            "size_bytes": created.size_bytes,
            "sha256": created.sha256,
            "encrypted": created.encrypted,
            "schema_version": created.schema_version,
            "tables": created.tables,
            "skipped": created.skipped,
        }));
    }
    for skipped in &created.skipped {
        printer.warning(format!("not backed up: {}: {}", skipped.path.escape_debug(), skipped.reason.escape_debug()));
    }
    let rows = counted(created.tables.values().sum::<i64>(), "row");
    printer.line(format!("{}", created.path.display()));
    printer.line(format!("  {}, {rows}, schema version {}", human_size(created.size_bytes), created.schema_version));
    printer.line(format!("  sha256 {}", created.sha256));
    if created.left_out > 0 {
        printer.note(format!(
            "Excluded by design: {} of version control, environments and caches.",
            counted(created.left_out, "folder")
        ));
    }
    if created.encrypted {
        printer
            .note("The backup is encrypted and can only be restored with the private key, which it does not contain.");
        printer
            .note(format!("Verify it:  leoflow lite backups verify '{}' --identity KEY-FILE", created.path.display()));
    } else {
        printer.note("The backup contains your secrets: keep it where only you can read it.");
        printer.note(format!("Verify it:  leoflow lite backups verify '{}'", created.path.display()));
    }
    Ok(())
}

pub(crate) fn started_by(scheduled: bool) -> leoflow_lifecycle::operation::open::datastore::StartedBy {
    use leoflow_lifecycle::operation::open::datastore::StartedBy;
    if scheduled { StartedBy::Schedule } else { StartedBy::User }
}

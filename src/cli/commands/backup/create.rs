//! `leoflow lite backup`.

use crate::args::all::All;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted, human_size};
use clap::Args;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::backup::CreatedBackup;
use leoflow_lifecycle::operation::backup::{self, Destination};
use serde_json::json;
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
    let operation = context.operation();
    let plan = backup::plan(&operation, args.destination()?)?;
    let created = backup::apply(&operation, &plan, COMMAND).await?;
    print(context.printer, &created)
}

/// Creates an unencrypted backup, which the caller restores at once and removes.
pub async fn write_plain(context: &Context<'_>, output: &Path) -> Result<CreatedBackup, Error> {
    let operation = context.operation();
    let plan = backup::plan_plain(&operation, output)?;
    Ok(backup::apply(&operation, &plan, COMMAND).await?)
}

impl Backup {
    fn destination(&self) -> Result<Destination, Error> {
        Ok(match &self.output {
            _ if self.scheduled => Destination::Scheduled,
            Some(output) => Destination::File(env_vars::absolute(output)?),
            None => Destination::Home,
        })
    }
}

fn print(printer: &Printer, created: &CreatedBackup) -> Result<u8, Error> {
    if !created.encrypted {
        printer.warn_if_readable_by_others(&created.path);
    }
    let CreatedBackup { path, size_bytes, sha256, encrypted, manifest } = created;
    let json = json!({
        "path": path,
        "size_bytes": size_bytes,
        "sha256": sha256,
        "encrypted": encrypted,
        "schema_version": manifest.schema_version,
        "tables": manifest.tables,
        "skipped": manifest.skipped,
    });
    printer.show(&json, |printer| print_text(printer, created))
}

fn print_text(printer: &Printer, created: &CreatedBackup) {
    for skipped in &created.manifest.skipped {
        printer.warning(format!("not backed up: {}: {}", skipped.path.escape_debug(), skipped.reason.escape_debug()));
    }
    let rows = counted(created.manifest.rows(), "row");
    printer.line(format!("{}", created.path.display()));
    printer.line(format!(
        "  {}, {rows}, schema version {}",
        human_size(created.size_bytes),
        created.manifest.schema_version
    ));
    printer.line(format!("  sha256 {}", created.sha256));
    let left_out = created.manifest.left_out.len();
    if left_out > 0 {
        printer.note(format!(
            "Excluded by design: {} of version control, environments and caches.",
            counted(left_out, "folder")
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
}

//! `leoflow lite backups`: list, verify, prune.

use super::verify_backups::{self, VerifyBackups, listed};
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::recovery::DryRun;
use crate::terminal::printer::{Printer, counted, human_size};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::upkeep;
use leoflow_lifecycle::backup::retain::catalog::{Listed, Proof};
use leoflow_lifecycle::backup::retain::prune;
use leoflow_lifecycle::backup::retain::retention::{self, Limits};
use leoflow_lifecycle::upgrade::rollback::history;
use serde_json::json;
use std::path::Path;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backups                              list the backups in the home\n  \
                  leoflow lite backups verify mine.tar.zst          test-restore a backup\n  \
                  leoflow lite backups verify --all --quick         compare hashes only"
)]
pub struct Backups {
    #[command(subcommand)]
    pub command: Option<BackupsCommand>,
}

#[derive(Subcommand, Debug)]
pub enum BackupsCommand {
    /// List the backups in the home and when each was last verified
    #[command(after_help = "Example:\n  leoflow lite backups list --json")]
    List,
    /// Verify a backup: compare every hash, then test-restore it into a temporary database
    #[command(
        after_help = "Examples:\n  leoflow lite backups verify                       verify the newest in the home\n  \
                      leoflow lite backups verify mine.tar.zst --quick"
    )]
    Verify(VerifyBackups),
    /// Remove automatic backups beyond the limits of config.yaml; the newest and the newest verified one stay
    #[command(
        after_help = "Examples:\n  leoflow lite backups prune --dry-run\n  leoflow config set backup.keep 3 && leoflow lite backups prune"
    )]
    Prune {
        /// Print what would be removed and why, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Skip the confirmation prompt
        #[arg(long)]
        yes: bool,
    },
}

pub async fn run(context: &Context<'_>, args: &Backups) -> Result<u8, Error> {
    match &args.command {
        None | Some(BackupsCommand::List) => list(context),
        Some(BackupsCommand::Verify(args)) => match verify_backups::run(context, args).await? {
            Some(exit_code) => Ok(exit_code),
            None => list(context),
        },
        Some(BackupsCommand::Prune { dry_run, yes }) => remove_excess(context, (*dry_run).into(), (*yes).into()),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let backups = listed(&context.home)?;
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"backups": backups, "upkeep": upkeep::read(&context.home)}))?;
        return Ok(0);
    }
    if backups.is_empty() {
        printer.note(format!(
            "No backups in {} yet. Create one with `leoflow lite backup`.",
            context.home.backups().display()
        ));
        return Ok(0);
    }
    let rows: Vec<Vec<String>> = backups.iter().map(|backup| backup_row(printer, backup)).collect();
    printer.table(&["CREATED", "SIZE", "ROWS", "SCHEMA", "LAST VERIFIED", "FILE"], &rows);
    Ok(0)
}

/// Removes the automatic backups over the limits.
fn remove_excess(context: &Context<'_>, dry_run: DryRun, confirmation: Confirmation) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let settings = context.config()?.map(|loaded| loaded.config.backup).unwrap_or_default();
    // The lock keeps other commands from creating or restoring backups in the meantime.
    let is_dry_run = dry_run == DryRun::Yes;
    let _operation_lock = (!is_dry_run).then(|| OperationLock::take(home, "leoflow lite backups prune")).transpose()?;
    let limits = Limits::of(&settings, Timestamp::now());
    let pinned = history::rollback_backups(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let excess = retention::excess(&listed(home)?, Path::new(""), &pinned, &limits);
    let freed: u64 = excess.iter().map(|entry| entry.size_bytes).sum();
    if !printer.json {
        for entry in &excess {
            printer.note(format!(
                "remove  {:>10}  {}  ({})",
                human_size(entry.size_bytes),
                entry.path.display(),
                entry.why
            ));
        }
    }
    if !is_dry_run && !excess.is_empty() {
        if !context.confirm("Remove these backups?", confirmation)? {
            return Err(Error::failed(Context::DECLINED));
        }
        prune::prune(&excess).map_err(|error| Error::io("remove", &error.path, &error.source))?;
    }
    if printer.json {
        printer.json(&json!({"removed": excess, "freed_bytes": freed, "dry_run": is_dry_run}))?;
        return Ok(0);
    }
    printer.line(match (excess.len(), is_dry_run) {
        (0, _) => "No automatic backup exceeds the limits of config.yaml".to_owned(),
        (count, true) => format!("Would remove {}, {}", counted(count, "backup"), human_size(freed)),
        (count, false) => format!("Removed {}, {}", counted(count, "backup"), human_size(freed)),
    });
    Ok(0)
}

fn backup_row(printer: &Printer, backup: &Listed) -> Vec<String> {
    let or_dash = |text: Option<String>| text.unwrap_or_else(|| "-".to_owned());
    vec![
        printer.time(backup.created_at.as_deref()),
        human_size(backup.size_bytes),
        or_dash(backup.rows.map(|rows| rows.to_string())),
        or_dash(backup.schema_version.map(|version| version.to_string())),
        match (&backup.problem, &backup.last_verified) {
            (Some(problem), _) => problem.clone(),
            (None, None) => "never".to_owned(),
            (None, Some(proof)) => verification_text(printer, proof),
        },
        backup.path.display().to_string(),
    ]
}

/// The time and result of a backup's last verification.
fn verification_text(printer: &Printer, proof: &Proof) -> String {
    let time = printer.time(Some(&proof.verified_at));
    match (&proof.problem, proof.quick) {
        (Some(problem), _) => format!("{time}, failed: {problem}"),
        (None, _) if proof.unopened => format!("{time}, not decrypted"),
        (None, true) => format!("{time}, hashes only"),
        (None, false) => time.clone(),
    }
}

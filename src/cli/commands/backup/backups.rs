//! `leoflow lite backups`: list, verify, copy, prune.

use super::verify_backups::{self, VerifyBackups};
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::{Printer, counted, human_size};
use clap::{Args, Subcommand};
use leoflow_base::home::upkeep;
use leoflow_lifecycle::backup::copies::Mode;
use leoflow_lifecycle::backup::copies::records::{self, CopyRecord};
use leoflow_lifecycle::backup::retain::catalog::{self, Listed, Proof};
use leoflow_lifecycle::operation::{DryRun, copies, prune};
use serde_json::json;
use std::collections::BTreeMap;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow lite backups                              list the backups in the home\n  \
                  leoflow lite backups verify mine.tar.zst          test-restore a backup\n  \
                  leoflow lite backups verify --all --quick         compare hashes only\n  \
                  leoflow lite backups copy                         copy them to the places of backup.copies"
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
    /// Copy new backups to the places of backup.copies, read each copy and compare it; the server does so after each backup
    #[command(
        after_help = "Examples:\n  leoflow config set backup.copies /media/usb,s3://bucket/leoflow\n  leoflow lite backups copy --dry-run"
    )]
    Copy {
        /// Print what would be copied and removed, and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Started by the server after a backup
        #[arg(long, hide = true)]
        scheduled: bool,
    },
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
        Some(BackupsCommand::Copy { dry_run, scheduled }) => {
            let mode = match (dry_run, scheduled) {
                (true, _) => Mode::Preview,
                (false, true) => Mode::Scheduled,
                (false, false) => Mode::ByUser,
            };
            copy(context, mode).await
        }
        Some(BackupsCommand::Prune { dry_run, yes }) => remove_excess(context, (*dry_run).into(), (*yes).into()),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let home = &context.home;
    let backups = catalog::list(home).map_err(Error::cannot("read", &home.backups()))?;
    let copies = records::read(home).map_err(Error::cannot("read", &home.backups()))?;
    let json = json!({"backups": backups, "copies": copies, "upkeep": upkeep::read(home)});
    context.printer.show(&json, |printer| {
        let rows: Vec<Vec<String>> = backups.iter().map(|backup| backup_row(printer, backup)).collect();
        match rows.is_empty() {
            true => printer.note(format!(
                "No backups in {} yet. Create one with `leoflow lite backup`.",
                home.backups().display()
            )),
            false => printer.table(&["CREATED", "SIZE", "ROWS", "SCHEMA", "LAST VERIFIED", "FILE"], &rows),
        }
        for (place, of_place) in &by_place(&copies) {
            let newest = of_place.iter().filter_map(|copy| copy.created_at).max().map(|time| time.to_string());
            let count = counted(of_place.len(), "backup");
            printer.line(format!("{count} copied to {place}, the newest of {}", printer.time(newest.as_deref())));
        }
    })
}

fn by_place(copies: &[CopyRecord]) -> BTreeMap<&str, Vec<&CopyRecord>> {
    let mut places: BTreeMap<&str, Vec<&CopyRecord>> = BTreeMap::new();
    for copy in copies.iter().filter(|copy| copy.copied_at.is_some()) {
        places.entry(&copy.to).or_default().push(copy);
    }
    places
}

/// Copies the backups to their places; fails if a place does.
async fn copy(context: &Context<'_>, mode: Mode) -> Result<u8, Error> {
    let places = copies::copy(&context.operation(), mode).await?;
    let is_preview = mode == Mode::Preview;
    let json = json!({"places": places, "dry_run": is_preview});
    context.printer.show(&json, |printer| {
        if places.is_empty() {
            printer.line("No place for copies is set. Set one:  leoflow config set backup.copies /media/usb");
        }
        let (copied, removed) = if is_preview { ("would copy", "would remove") } else { ("copied", "removed") };
        for place in &places {
            let (copied_count, removed_count) = (place.copied.len(), place.removed.len());
            match &place.problem {
                Some(error) => printer.warning(format!("{}: {error}", place.to)),
                None => printer.line(format!(
                    "{}: {copied} {copied_count}, {removed} {removed_count}, {} there",
                    place.to,
                    counted(place.backups, "backup")
                )),
            }
        }
    })?;
    Ok(u8::from(places.iter().any(|place| place.problem.is_some())))
}

/// Removes the automatic backups over the limits.
fn remove_excess(context: &Context<'_>, dry_run: DryRun, confirmation: Confirmation) -> Result<u8, Error> {
    let plan = prune::plan(&context.operation(), dry_run, "leoflow lite backups prune")?;
    context.printer.part(|printer| {
        for backup in &plan.excess {
            let (size, path) = (human_size(backup.size_bytes), backup.path.display());
            printer.note(format!("remove  {size:>10}  {path}  ({})", backup.why));
        }
    });
    let is_dry_run = dry_run == DryRun::Yes;
    if !is_dry_run && !plan.excess.is_empty() {
        context.require_confirmation("Remove these backups?", confirmation)?;
        prune::apply(&plan)?;
    }
    let json = json!({"removed": plan.excess, "freed_bytes": plan.bytes(), "dry_run": is_dry_run});
    context.printer.show(&json, |printer| {
        let freed = human_size(plan.bytes());
        printer.line(match (plan.excess.len(), is_dry_run) {
            (0, _) => "No automatic backup exceeds the limits of config.yaml".to_owned(),
            (count, true) => format!("Would remove {}, {freed}", counted(count, "backup")),
            (count, false) => format!("Removed {}, {freed}", counted(count, "backup")),
        });
    })
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

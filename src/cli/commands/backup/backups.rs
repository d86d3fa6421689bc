//! `leoflow lite backups`: list, verify, prune.

use super::restore::keys;
use super::restore_args::Decryption;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::{self, Datastore};
use crate::terminal::printer::{Printer, counted, human_size};
use clap::{Args, Subcommand};
use jiff::Timestamp;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::upkeep::{self, End};
use leoflow_base::sys::env_vars;
use leoflow_base::sys::fs::files;
use leoflow_lifecycle::backup::retain::catalog::{self, Listed, Method, Proof};
use leoflow_lifecycle::backup::retain::retention::{self, Limits};
use leoflow_lifecycle::backup::{Input, verify};
use leoflow_lifecycle::upgrade::rollback::history;
use serde_json::json;
use std::path::{Path, PathBuf};

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

#[derive(Args, Debug)]
pub struct VerifyBackups {
    /// The backup to verify [default: the newest in the home]
    pub file: Option<PathBuf>,
    /// Verify every backup in the home
    #[arg(long, conflicts_with = "file")]
    pub all: bool,
    /// Compare hashes only, without a test restore
    #[arg(long)]
    pub quick: bool,
    /// Started by the server when a verification is due
    #[arg(long, hide = true, conflicts_with_all = ["file", "all", "quick"])]
    pub scheduled: bool,
    #[command(flatten)]
    pub decryption: Decryption,
}

pub async fn run(context: &Context<'_>, args: &Backups) -> Result<u8, Error> {
    match &args.command {
        None | Some(BackupsCommand::List) => list(context),
        Some(BackupsCommand::Verify(args)) => verify(context, args).await,
        Some(BackupsCommand::Prune { dry_run, yes }) => prune(context, *dry_run, *yes),
    }
}

fn list(context: &Context<'_>) -> Result<u8, Error> {
    let backups = catalog::list(&context.home);
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

fn prune(context: &Context<'_>, dry_run: bool, yes: bool) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let settings = context.config()?.map(|loaded| loaded.config.backup).unwrap_or_default();
    // The lock keeps other commands from creating or restoring backups in the meantime.
    let _operation_lock = (!dry_run).then(|| OperationLock::take(home, "leoflow lite backups prune")).transpose()?;
    let limits = Limits::of(&settings, Timestamp::now());
    let pinned = history::rollback_backups(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let excess = retention::excess(&catalog::list(home), Path::new(""), &pinned, &limits);
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
    if !dry_run && !excess.is_empty() {
        if !context.confirm("Remove these backups?", yes.into())? {
            return Err(Error::failed(Context::DECLINED));
        }
        for entry in &excess {
            files::remove_any(&entry.path).map_err(|error| Error::io("remove", &entry.path, &error))?;
        }
    }
    if printer.json {
        printer.json(&json!({"removed": excess, "freed_bytes": freed, "dry_run": dry_run}))?;
        return Ok(0);
    }
    printer.line(match (excess.len(), dry_run) {
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

async fn verify(context: &Context<'_>, args: &VerifyBackups) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let record_end = |end: End| {
        if let Err(error) = upkeep::note_end(home, Timestamp::now(), upkeep::Kind::Verification, end) {
            printer.warning(format!("failed to record the verification: {error}"));
        }
    };
    if args.scheduled && catalog::list(home).is_empty() {
        // Nothing to verify until the next scheduled time.
        record_end(End::Partial);
        return list(context);
    }
    let files = selected_files(context, args)?;
    let keys = keys(context, &args.decryption)?;
    let command = "leoflow lite backups verify";
    // A quick verification compares hashes, which needs neither a datastore nor a home.
    let mut datastore_and_lock = None;
    if !args.quick {
        datastore::check(&context.home)?;
        let operation_lock = OperationLock::take(home, command)?;
        let datastore = Datastore::open(&context.recovery(), command).await?;
        context.recovery().clean_up(Some(&datastore.access)).await?;
        datastore_and_lock = Some((datastore, operation_lock));
    }
    let method = if args.quick { Method::Hashes } else { Method::TestRestore };
    // A given key must decrypt the backup; without one, an encrypted backup is only checked by hash.
    let is_given = !args.decryption.identity.is_empty() || args.decryption.passphrase_file.is_some();
    let mut results = Vec::new();
    for file in files {
        if args.scheduled
            && let Some(proof) = catalog::known_proof(home, &file).filter(|proof| !proof.ok)
        {
            // The file is unchanged since it failed, so it would fail again.
            results.push((file, proof));
            continue;
        }
        let input = Input { path: file.clone(), keys: keys.clone() };
        let outcome = match &datastore_and_lock {
            None => verify::hashes(&input, printer),
            Some((datastore, _)) => verify::trial(home, &datastore.access, &input, context.version, printer).await,
        };
        // An error of this machine is not a result for the file.
        let (rows, proof) = match outcome {
            Ok(manifest) => (Some(manifest.rows()), Proof::now(method, None)),
            Err(error) if error.is_refusal() => (None, Proof::now(method, Some(error.to_string()))),
            Err(error) if error.is_closed() && (args.all || !is_given) => {
                let compared = catalog::unopened(home, &file).map_err(|error| Error::io("read", &file, &error))?;
                match compared {
                    Some(proof) => (None, proof),
                    // With --all, one failure does not end the check of the others.
                    None if args.all => (None, Proof::unopened(Some(error.to_string()))),
                    None => return Err(error.into()),
                }
            }
            Err(error) => return Err(error.into()),
        };
        if home.exists()
            && let Err(error) = catalog::store_proof(home, &file, &proof)
        {
            printer.warning(format!("failed to record the result: {error}"));
        }
        if !printer.json {
            print_verification(context, &file, rows, &proof);
        }
        results.push((file, proof));
    }
    // Without a key, the scheduled verification cannot do more than compare hashes.
    let all_proofs = |predicate: fn(&Proof) -> bool| results.iter().all(|(_, proof)| predicate(proof));
    if home.exists() && args.file.is_none() {
        if all_proofs(Proof::is_test_restored) {
            record_end(End::Done);
        } else if all_proofs(|proof| proof.ok && (proof.unopened || !proof.quick)) {
            record_end(End::Partial);
        }
    }
    if printer.json {
        let results: Vec<_> =
            results.iter().map(|(path, proof)| json!({"path": path, "last_verified": proof})).collect();
        printer.json(&json!({"backups": results}))?;
        return Ok(if results.iter().all(|result| result["last_verified"]["ok"] == true) { 0 } else { 1 });
    }
    let failed_count = results.iter().filter(|(_, proof)| !proof.ok).count();
    match failed_count {
        0 => Ok(0),
        _ => Err(Error::failed(format!("{failed_count} of {} cannot be restored", counted(results.len(), "backup")))
            .hint("create a new backup: leoflow lite backup")),
    }
}

fn print_verification(context: &Context<'_>, file: &Path, rows: Option<i64>, proof: &Proof) {
    let file = file.display();
    match (&proof.problem, rows) {
        (None, _) if proof.unopened => {
            context.printer.line(format!("{file}: unchanged since it was written"));
            context
                .printer
                .note("The backup is encrypted and was not test-restored. Verify it with --identity KEY-FILE.");
        }
        (None, Some(rows)) if !proof.quick => {
            context.printer.line(format!("{file}: test-restored, {}", counted(rows, "row")));
        }
        (None, _) => context.printer.line(format!("{file}: all hashes match")),
        (Some(problem), _) => context.printer.line(format!("{file}: {problem}")),
    }
}

/// The absolute paths of the backups to verify: the given file, all, or the newest one.
fn selected_files(context: &Context<'_>, args: &VerifyBackups) -> Result<Vec<PathBuf>, Error> {
    if let Some(file) = &args.file {
        let path = env_vars::current_dir().map_err(Error::failed)?.join(file);
        // Also by its name alone, as `backups list` shows it.
        let listed = context.home.backups().join(file);
        return Ok(vec![if !path.exists() && listed.exists() { listed } else { path }]);
    }
    let paths: Vec<PathBuf> = catalog::list(&context.home).into_iter().map(|backup| backup.path).collect();
    if paths.is_empty() {
        return Err(Error::failed(format!("no backups in {}", context.home.backups().display()))
            .hint("specify a file: leoflow lite backups verify FILE"));
    }
    Ok(if args.all { paths } else { paths.into_iter().take(1).collect() })
}

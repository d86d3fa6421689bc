//! `leoflow lite backups verify`.

use super::restore::keys;
use super::restore_args::Decryption;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::Args;
use leoflow_base::home::Home;
use leoflow_base::sys::env_vars;
use leoflow_lifecycle::backup::retain::catalog::Method;
use leoflow_lifecycle::operation::open::datastore::StartedBy;
use leoflow_lifecycle::operation::verify::{self, Selection, Verified};
use serde_json::json;
use std::path::PathBuf;

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

/// Verifies the backups and returns the exit code; `None` if a scheduled verification finds no backup.
pub async fn run(context: &Context<'_>, args: &VerifyBackups) -> Result<Option<u8>, Error> {
    let (operation, printer) = (context.operation(), context.printer);
    let method = if args.quick { Method::Hashes } else { Method::TestRestore };
    let started_by = if args.scheduled { StartedBy::Schedule } else { StartedBy::User };
    let Some(plan) = verify::plan(&operation, args.selection(&context.home)?, method, started_by)? else {
        return Ok(None);
    };
    let decryption =
        verify::Decryption { keys: keys(context, &args.decryption)?, is_given: args.decryption.is_given() };
    let mut on_verified = |verified: &Verified| printer.part(|printer| print_verified(printer, verified));
    let command = "leoflow lite backups verify";
    let all_verified = verify::apply(&operation, plan, &decryption, command, &mut on_verified).await?;
    print_results(printer, &all_verified).map(Some)
}

impl VerifyBackups {
    fn selection(&self, home: &Home) -> Result<Selection, Error> {
        Ok(match &self.file {
            Some(file) => {
                let path = env_vars::absolute(file)?;
                // A bare file name may also name a backup in the home's `backups` folder.
                let listed = home.backups().join(file);
                Selection::File(if !path.exists() && listed.exists() { listed } else { path })
            }
            None if self.all => Selection::All,
            None => Selection::Newest,
        })
    }
}

/// Prints the results as JSON; in text, they are printed already. Returns the exit code.
fn print_results(printer: &Printer, all_verified: &[Verified]) -> Result<u8, Error> {
    let results: Vec<_> =
        all_verified.iter().map(|Verified { path, proof, .. }| json!({"path": path, "last_verified": proof})).collect();
    printer.show(&json!({"backups": results}), |_| {})?;
    match all_verified.iter().filter(|verified| !verified.proof.ok).count() {
        0 => Ok(0),
        // The value names the problems.
        _ if printer.json => Ok(1),
        failed => Err(Error::failed(format!("{failed} of {} cannot be restored", counted(results.len(), "backup")))
            .hint("create a new backup: leoflow lite backup")),
    }
}

fn print_verified(printer: &Printer, Verified { path, rows, proof }: &Verified) {
    let file = path.display();
    match (&proof.problem, rows) {
        (None, _) if proof.unopened => {
            printer.line(format!("{file}: unchanged since it was written"));
            printer.note("The backup is encrypted and was not test-restored. Verify it with --identity KEY-FILE.");
        }
        (None, Some(rows)) if !proof.quick => {
            printer.line(format!("{file}: test-restored, {}", counted(*rows, "row")));
        }
        (None, _) => printer.line(format!("{file}: all hashes match")),
        (Some(problem), _) => printer.line(format!("{file}: {problem}")),
    }
}

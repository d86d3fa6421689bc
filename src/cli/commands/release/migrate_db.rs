//! `leoflow migrate-db`, its status and rollback, and the migrator of the supervisor and of upgrades.

use super::packaged;
use crate::commands::newer_schema_hint;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::child::Inheritance;
use leoflow_base::protocol::log;
use leoflow_lifecycle::operation::OperationContext;
use leoflow_lifecycle::operation::migrations::{BackUp, SchemaStatus};
use leoflow_lifecycle::operation::open::refuse_during_rollback;
use leoflow_postgres::schema::Extent;
use leoflow_postgres::schema::deferred::Waiting;
use serde_json::json;
use tracing::{info, warn};

#[derive(Args, Debug)]
#[command(
    args_conflicts_with_subcommands = true,
    after_help = "Examples:\n  leoflow migrate-db               apply pending migrations\n  leoflow migrate-db status        compare the database with this release\n  \
                  leoflow migrate-db rollback 2    undo version 2, the newest"
)]
pub struct MigrateDb {
    /// Print the migrations that would be applied and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
    /// Started by the supervisor or by an upgrade
    #[arg(long, hide = true)]
    pub supervised: bool,
    /// With --supervised: the database to migrate, for a rehearsal [default: the instance's own]
    #[arg(long, hide = true)]
    pub database: Option<String>,
    /// Started by the server: apply the postdeploy and contract migrations that may run now
    #[arg(long, hide = true)]
    pub later: bool,
    #[command(subcommand)]
    pub command: Option<MigrateCommand>,
}

#[derive(Subcommand, Debug)]
pub enum MigrateCommand {
    /// Show the schema versions of the database and of this release, and pending migrations
    #[command(after_help = "Example:\n  leoflow migrate-db status --json")]
    Status,
    /// Undo the newest migration with its own rollback SQL
    #[command(
        after_help = "Examples:\n  leoflow migrate-db rollback 2         undo version 2, which must be the newest\n  \
                            leoflow migrate-db rollback --to 1    undo every version above 1"
    )]
    Rollback(Rollback),
}

#[derive(Args, Debug)]
#[command(group = clap::ArgGroup::new("extent").required(true).args(["version", "to"]))]
pub struct Rollback {
    /// The version to undo; it must be the newest
    #[arg(value_name = "VERSION")]
    pub version: Option<i64>,
    /// Undo every version above this one, newest first
    #[arg(long, value_name = "VERSION")]
    pub to: Option<i64>,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// Do not create a backup first
    #[arg(long)]
    pub no_backup: bool,
}

pub async fn run(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    match &args.command {
        None if args.later => migrate_later(context).await,
        None if args.supervised => supervised(context, args).await,
        None if args.dry_run => dry_run(context).await,
        None => migrate(context, BackUp::unless(args.no_backup)).await,
        Some(MigrateCommand::Status) => status(context).await,
        Some(MigrateCommand::Rollback(args)) => rollback(context, args).await,
    }
}

async fn migrate(context: &Context<'_>, back_up: BackUp) -> Result<u8, Error> {
    // Before the check of the releases, whose hint leads to an upgrade: the rollback has to be finished first.
    refuse_during_rollback(&context.home)?;
    packaged::refuse_newer(context)?;
    let printer = context.printer;
    let mut report = |file: &str| printer.part(|printer| printer.line(format!("applied: {file}")));
    let (applied, waiting) = context.operation().migrate(back_up, &mut report).await?;
    let value = json!({"applied": applied.files, "database_version": applied.version, "waiting": waiting});
    printer.show(&value, |printer| {
        print_waiting(printer, &waiting);
        let count = counted(applied.files.len(), "migration");
        let verb = if applied.files.is_empty() { "is" } else { "is now" };
        printer.line(format!("{count} applied, schema {verb} at version {:04}", applied.version));
    })
}

/// Prints a line per waiting migration and one per closed gate.
pub fn print_waiting(printer: &Printer, waiting: &[Waiting]) {
    for migration in waiting {
        printer.line(format!("waiting: {} ({})", migration.migration, migration.phase));
        for gate in &migration.gates_shut {
            printer.line(format!("  {gate}"));
        }
        if migration.gates_shut.is_empty() {
            printer.advice("  ready; the server applies it, or run `leoflow migrate-db`");
        }
    }
}

/// Reports progress to the process's log.
struct LogReporter;

impl Reporter for LogReporter {
    fn report(&self, progress: Progress) {
        match progress {
            Progress::Note(text) => info!("{text}"),
            Progress::Warning(text) => warn!("{text}"),
            _ => {}
        }
    }
}

fn logged<'a>(context: &'a Context<'_>) -> OperationContext<'a> {
    OperationContext { reporter: &LogReporter, ..context.operation() }
}

/// Runs in a process that the server starts and that outlives it.
async fn migrate_later(context: &Context<'_>) -> Result<u8, Error> {
    let (applied, waiting) = logged(context).migrate_later(&mut |file| info!("applied: {file}")).await?;
    context.printer.json(&json!({"applied": applied.files, "waiting": waiting}))?;
    Ok(0)
}

/// Sends its error to the supervisor as JSON.
async fn supervised(context: &Context<'_>, args: &MigrateDb) -> Result<u8, Error> {
    log::start("migrate", context.log_level());
    let notifier = Inheritance::take().map_err(Error::failed)?.notifier();
    // An upgrade passes --no-backup, because it has created its own, and parses these lines:
    // docs/reference/process-protocol.md.
    let is_parsed = args.no_backup;
    let mut report = |file: &str| if is_parsed { eprintln!("applied: {file}") } else { info!("applied: {file}") };
    let (operation, back_up) = (logged(context), BackUp::unless(args.no_backup));
    match operation.migrate_at_start(args.database.as_deref(), back_up, &mut report).await {
        Ok(version) => {
            notifier.schema(version);
            Ok(0)
        }
        Err(error) => {
            let error = newer_schema_hint::with_hint_to_newer_release(&context.home, error.into());
            notifier.failure(&error.to_json());
            Err(error)
        }
    }
}

async fn status(context: &Context<'_>) -> Result<u8, Error> {
    let status = context.operation().schema_status().await?;
    let SchemaStatus { database_version: database, own_version: binary, .. } = status;
    context.printer.show(&status, |printer| {
        print_pending(printer, &status);
        let state = status.state;
        printer.line(format!(
            "{state}: the database is at schema version {database:04}, this release knows up to {binary:04}"
        ));
        if let Some(error) = &status.refusal {
            printer.note(error.to_string());
        }
    })
}

async fn dry_run(context: &Context<'_>) -> Result<u8, Error> {
    let mut status = context.operation().schema_status().await?;
    if let Some(error) = status.refusal.take() {
        return Err(error.into());
    }
    context.printer.show(&status, |printer| {
        print_pending(printer, &status);
        if status.pending.is_empty() {
            printer.line(format!("0 migrations to apply, schema is at version {:04}", status.database_version));
        }
    })
}

fn print_pending(printer: &Printer, status: &SchemaStatus) {
    status.pending.iter().for_each(|file| printer.line(format!("pending: {file}")));
    print_waiting(printer, &status.waiting);
}

async fn rollback(context: &Context<'_>, args: &Rollback) -> Result<u8, Error> {
    let extent = match (args.version, args.to) {
        (Some(version), _) => Extent::OnlyNewest(version),
        (None, Some(version)) if version >= 0 => Extent::DownTo(version),
        _ => return Err(Error::usage("a version is a whole number, 0 or greater")),
    };
    let (operation, printer) = (context.operation(), context.printer);
    let plan = operation.plan_schema_rollback(extent).await?;
    for migration in &plan.migrations {
        printer.note(format!("Would undo {migration} and drop all data in its tables and columns"));
    }
    if !context.confirm("Undo these migrations?", args.yes.into())? {
        printer.note(Context::DECLINED);
        return Ok(1);
    }
    let mut report = |label: &str| printer.part(|printer| printer.line(format!("rolled back: {label}.sql")));
    let rolled_back = operation.roll_back_schema(plan, BackUp::unless(args.no_backup), &mut report).await?;
    let value = json!({"rolled_back": rolled_back.undone, "database_version": rolled_back.version});
    printer.show(&value, |printer| {
        let count = counted(rolled_back.undone.len(), "migration");
        printer.line(format!("{count} rolled back, schema is now at version {:04}", rolled_back.version));
    })
}

//! `leoflow data-migrate …`.

use super::migrate_db::print_waiting;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use clap::{Args, Subcommand};
use leoflow_lifecycle::operation::data_migrations::{DataMigrations, Rest, Selected};
use leoflow_postgres::schema::data_migration::{self, Progress, Status};
use leoflow_postgres::schema::known;
use serde_json::json;

#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  leoflow data-migrate list                 show the progress of each data migration\n  \
                  leoflow data-migrate run --dry-run        count the rows still to be changed\n  \
                  leoflow data-migrate pause                pause; `leoflow data-migrate resume` continues"
)]
pub struct DataMigrate {
    #[command(subcommand)]
    pub command: DataMigrateCommand,
}

#[derive(Subcommand, Debug)]
pub enum DataMigrateCommand {
    /// List all data migrations and their progress
    #[command(after_help = "Example:\n  leoflow data-migrate list --json")]
    List,
    /// Run data migrations in this terminal until they are complete, even while the server runs them too
    #[command(
        after_help = "Examples:\n  leoflow data-migrate run               pause between batches, as the server does\n  \
                      leoflow data-migrate run --no-rest     run as fast as the datastore can\n  \
                      leoflow data-migrate run --dry-run     count only"
    )]
    Run {
        #[command(flatten)]
        chosen: MigrationSelector,
        /// Count the rows still to be changed and change nothing
        #[arg(long)]
        dry_run: bool,
        /// Do not pause between batches; other queries on the datastore wait longer
        #[arg(long)]
        no_rest: bool,
    },
    /// Show data migrations in detail, and what waits for each
    #[command(after_help = "Example:\n  leoflow data-migrate status 13")]
    Status(MigrationSelector),
    /// Count the remaining rows; a data migration with none is verified
    #[command(after_help = "Example:\n  leoflow data-migrate verify")]
    Verify(MigrationSelector),
    /// Pause data migrations after the current batch, until they are resumed
    #[command(after_help = "Example:\n  leoflow data-migrate pause 13")]
    Pause(MigrationSelector),
    /// Resume data migrations that are paused or have failed
    #[command(after_help = "Example:\n  leoflow data-migrate resume 13")]
    Resume(MigrationSelector),
}

#[derive(Args, Debug)]
pub struct MigrationSelector {
    /// The migration's version, for example 13 or V0013 [default: all]
    #[arg(value_name = "VERSION", value_parser = version)]
    pub version: Option<i64>,
}

fn version(text: &str) -> Result<i64, &'static str> {
    let digits = text.strip_prefix(['V', 'v']).unwrap_or(text);
    digits.parse().map_err(|_| "a version is a number, for example 13 or V0013")
}

pub async fn run(context: &Context<'_>, args: &DataMigrate) -> Result<u8, Error> {
    let migrations = context.operation().data_migrations().await?;
    let printer = context.printer;
    match &args.command {
        DataMigrateCommand::List => list(printer, &migrations).await,
        DataMigrateCommand::Run { chosen, dry_run: true, .. } => dry_run(printer, &migrations, chosen).await,
        DataMigrateCommand::Run { chosen, no_rest, .. } => {
            run_to_completion(context, migrations, chosen, if *no_rest { Rest::No } else { Rest::Yes }).await
        }
        DataMigrateCommand::Status(chosen) => status(context, &migrations, chosen).await,
        DataMigrateCommand::Verify(chosen) => verify(printer, &migrations, chosen).await,
        DataMigrateCommand::Pause(chosen) => pause(printer, &migrations, chosen).await,
        DataMigrateCommand::Resume(chosen) => resume(printer, &migrations, chosen).await,
    }
}

/// The status for display; a paused migration is shown as paused.
fn status_text(progress: &Progress) -> &'static str {
    if progress.is_paused && progress.status != Status::Verified { "paused" } else { progress.status.name() }
}

async fn list(printer: &Printer, migrations: &DataMigrations) -> Result<u8, Error> {
    let all = data_migration::list(&migrations.client, known()).await?;
    printer.show(&json!({"data_migrations": all}), |printer| {
        let row = |progress: &Progress| {
            let (rows, batches) = (progress.rows.to_string(), progress.batches.to_string());
            [progress.migration.clone(), status_text(progress).to_owned(), rows, batches]
        };
        printer.table(&["MIGRATION", "STATUS", "ROWS", "BATCHES"], all.iter().map(row));
    })
}

async fn status(context: &Context<'_>, migrations: &DataMigrations, selector: &MigrationSelector) -> Result<u8, Error> {
    let selected = migrations.select(selector.version).await?;
    let selected: Vec<Progress> = selected.into_iter().map(|(_, progress)| progress).collect();
    let waiting = context.operation().waiting_migrations(&migrations.client).await?;
    context.printer.show(&json!({"data_migrations": selected, "waiting": waiting}), |printer| {
        selected.iter().for_each(|progress| print_status(printer, progress));
        print_waiting(printer, &waiting);
    })
}

fn print_status(printer: &Printer, progress: &Progress) {
    printer.line(format!("{}: {}", progress.migration, status_text(progress)));
    let position = progress.watermark.as_ref().map(|watermark| format!(", up to {watermark}")).unwrap_or_default();
    let (rows, batches) = (counted(progress.rows, "row"), counted(progress.batches, "batch"));
    printer.line(format!("  {rows} changed in {batches}, round {}{position}", progress.round));
    for (label, time) in
        [("started", progress.started_at), ("last change", progress.updated_at), ("verified", progress.verified_at)]
    {
        if let Some(time) = time {
            printer.line(format!("  {label} {}", printer.format_time(time)));
        }
    }
    if let Some(error) = &progress.error {
        printer.line(format!("  {error}"));
    }
    if progress.status == Status::Failed {
        printer.advice(format!("  fix the cause, then: leoflow data-migrate resume {}", progress.version));
    }
}

async fn dry_run(printer: &Printer, migrations: &DataMigrations, selector: &MigrationSelector) -> Result<u8, Error> {
    let mut results = Vec::new();
    for (known, progress) in migrations.select(selector.version).await? {
        let remaining = data_migration::remaining_rows(&migrations.client, known).await?;
        printer.part(|printer| {
            printer.line(format!("{}: {} to change", progress.migration, counted(remaining, "row")));
        });
        results.push(json!({"migration": progress.migration, "left": remaining}));
    }
    printer.show(&json!({"data_migrations": results}), |_| {})
}

async fn run_to_completion(
    context: &Context<'_>,
    mut migrations: DataMigrations,
    selector: &MigrationSelector,
    rest: Rest,
) -> Result<u8, Error> {
    for selected in migrations.select(selector.version).await? {
        if let Some(current) = migrations.run(&context.operation(), selected, rest).await? {
            let rows = counted(current.rows, "row");
            let text = format!("{}: {}, {rows} changed", current.migration, status_text(&current));
            context.printer.part(|printer| printer.line(text));
        }
    }
    let all = data_migration::list(&migrations.client, known()).await?;
    context.printer.show(&json!({"data_migrations": all}), |_| {})
}

/// Verifies the selected migrations. The exit code is 1 if rows remain.
async fn verify(printer: &Printer, migrations: &DataMigrations, selector: &MigrationSelector) -> Result<u8, Error> {
    let mut has_remaining = false;
    let mut results = Vec::new();
    for (known, _) in migrations.select(selector.version).await? {
        let Some((remaining, current)) = migrations.verify(known).await? else { continue };
        has_remaining |= remaining > 0;
        printer.part(|printer| {
            let remaining_text =
                if remaining == 0 { "no rows left".to_owned() } else { format!("{} left", counted(remaining, "row")) };
            printer.line(format!("{}: {}, {remaining_text}", current.migration, status_text(&current)));
            if current.status == Status::Failed || current.is_paused {
                printer.advice(format!("  leoflow data-migrate resume {}", current.version));
            }
        });
        results.push(json!({"left": remaining, "data_migration": current}));
    }
    printer.show(&json!({"data_migrations": results}), |_| {})?;
    Ok(u8::from(has_remaining))
}

/// The selected migrations without the verified ones, which are reported.
async fn unverified(
    printer: &Printer,
    migrations: &DataMigrations,
    selector: &MigrationSelector,
) -> Result<Vec<Selected>, Error> {
    let mut selected = migrations.select(selector.version).await?;
    selected.retain(|(_, progress)| {
        let is_verified = progress.status == Status::Verified;
        if is_verified {
            printer.note(format!("{} is already verified", progress.migration));
        }
        !is_verified
    });
    Ok(selected)
}

async fn pause(printer: &Printer, migrations: &DataMigrations, selector: &MigrationSelector) -> Result<u8, Error> {
    for (known, progress) in unverified(printer, migrations, selector).await? {
        data_migration::pause(&migrations.client, known).await?;
        printer.note(format!("Paused {}", progress.migration));
    }
    Ok(0)
}

async fn resume(printer: &Printer, migrations: &DataMigrations, selector: &MigrationSelector) -> Result<u8, Error> {
    let when = match migrations.datastore.is_of_running_instance {
        true => "it continues in the server",
        false => "it continues at the next start, or with `leoflow data-migrate run`",
    };
    for (known, progress) in unverified(printer, migrations, selector).await? {
        migrations.resume(known).await?;
        printer.note(format!("Resumed {}; {when}", progress.migration));
    }
    Ok(0)
}

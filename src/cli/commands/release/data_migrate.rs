//! `leoflow data-migrate …`.

use super::later_migrations;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use crate::recovery::refuse_during_rollback;
use crate::terminal::printer::counted;
use clap::{Args, Subcommand};
use leoflow_engine::store::events::{self, Event};
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::PgError;
use leoflow_postgres::schema::data_migration::{self, Batch, Progress, Status};
use leoflow_postgres::schema::{self, EmbeddedMigration, SchemaError, TotalsGuard, known};
use serde_json::json;
use std::ops::ControlFlow;
use tokio_postgres::Client;

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
    refuse_during_rollback(&context.home)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow data-migrate").await?;
    let client = datastore.connect().await?;
    schema::require_current(&client, known()).await?;
    match &args.command {
        DataMigrateCommand::List => list(context, &client).await,
        DataMigrateCommand::Run { chosen, dry_run: true, .. } => dry_run(context, &client, chosen).await,
        DataMigrateCommand::Run { chosen, no_rest, .. } => run_to_completion(context, client, chosen, *no_rest).await,
        DataMigrateCommand::Status(chosen) => status(context, &client, chosen).await,
        DataMigrateCommand::Verify(chosen) => verify(context, &client, chosen).await,
        DataMigrateCommand::Pause(chosen) => pause(context, &client, chosen).await,
        DataMigrateCommand::Resume(chosen) => resume(context, &datastore, &client, chosen).await,
    }
}

/// Returns the selected data migrations with their progress. Fails when the version is not a data migration.
async fn select_migrations(
    client: &Client,
    selector: &MigrationSelector,
) -> Result<Vec<(&'static EmbeddedMigration, Progress)>, Error> {
    let mut selected = Vec::new();
    for known in known().iter().filter(|known| known.batches.is_some()) {
        if selector.version.is_none_or(|version| version == known.version)
            && let Some(progress) = data_migration::progress(client, known).await?
        {
            selected.push((known, progress));
        }
    }
    match selector.version {
        Some(version) if selected.is_empty() => Err(SchemaError::NoDataMigration(format!("V{version:04}")).into()),
        _ => Ok(selected),
    }
}

/// The status for display; a paused migration is shown as paused.
fn status_text(progress: &Progress) -> &'static str {
    if progress.is_paused && progress.status != Status::Verified { "paused" } else { progress.status.name() }
}

fn print_json(context: &Context<'_>, selected: &[Progress]) -> Result<(), Error> {
    context.printer.json(&json!({"data_migrations": selected}))
}

async fn list(context: &Context<'_>, client: &Client) -> Result<u8, Error> {
    let selected = data_migration::list(client, known()).await?;
    if context.printer.json {
        print_json(context, &selected)?;
        return Ok(0);
    }
    let row = |progress: &Progress| {
        vec![
            progress.migration.clone(),
            status_text(progress).to_owned(),
            progress.rows.to_string(),
            progress.batches.to_string(),
        ]
    };
    context.printer.table(&["MIGRATION", "STATUS", "ROWS", "BATCHES"], &selected.iter().map(row).collect::<Vec<_>>());
    Ok(0)
}

async fn status(context: &Context<'_>, client: &Client, selector: &MigrationSelector) -> Result<u8, Error> {
    let selected: Vec<Progress> =
        select_migrations(client, selector).await?.into_iter().map(|(_, progress)| progress).collect();
    let waiting = later_migrations::waiting(context, client).await?;
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"data_migrations": selected, "waiting": waiting}))?;
        return Ok(0);
    }
    for progress in &selected {
        printer.line(format!("{}: {}", progress.migration, status_text(progress)));
        let position = progress.watermark.as_ref().map(|watermark| format!(", up to {watermark}")).unwrap_or_default();
        let (rows, batches) = (counted(progress.rows, "row"), counted(progress.batches, "batch"));
        printer.line(format!("  {rows} changed in {batches}, round {}{position}", progress.round));
        for (label, time) in
            [("started", progress.started_at), ("last change", progress.updated_at), ("verified", progress.verified_at)]
        {
            if let Some(time) = time.map(|time| time.to_string()) {
                printer.line(format!("  {label} {}", printer.time(Some(&time))));
            }
        }
        if let Some(error) = &progress.error {
            printer.line(format!("  {error}"));
        }
        if progress.status == Status::Failed {
            printer.advice(format!("  fix the cause, then: leoflow data-migrate resume {}", progress.version));
        }
    }
    later_migrations::show(context, &waiting);
    Ok(0)
}

async fn dry_run(context: &Context<'_>, client: &Client, selector: &MigrationSelector) -> Result<u8, Error> {
    let mut results = Vec::new();
    for (known, progress) in select_migrations(client, selector).await? {
        let remaining = data_migration::remaining_rows(client, known).await?;
        if !context.printer.json {
            context.printer.line(format!("{}: {} to change", progress.migration, counted(remaining, "row")));
        }
        results.push(json!({"migration": progress.migration, "left": remaining}));
    }
    if context.printer.json {
        context.printer.json(&json!({"data_migrations": results}))?;
    }
    Ok(0)
}

/// Pause while another process runs the migration or locks its rows.
const BLOCKED_PAUSE: std::time::Duration = std::time::Duration::from_secs(1);
/// Maximum number of passes over rows that were locked.
const MAX_ROUNDS: u32 = 10;
/// Interval of progress messages.
const PROGRESS_INTERVAL: std::time::Duration = std::time::Duration::from_secs(5);

/// Runs the selected migrations batch by batch until they are verified. Rests after each batch for as long as the batch
/// took, unless `no_rest`.
async fn run_to_completion(
    context: &Context<'_>,
    mut client: Client,
    selector: &MigrationSelector,
    no_rest: bool,
) -> Result<u8, Error> {
    let printer = context.printer;
    for (known, before) in select_migrations(&client, selector).await? {
        refuse_stopped(&before)?;
        run_one(context, &mut client, known, no_rest).await?;
        if !printer.json
            && let Some(current) = data_migration::progress(&client, known).await?
        {
            printer.line(format!(
                "{}: {}, {} changed",
                current.migration,
                status_text(&current),
                counted(current.rows, "row")
            ));
        }
    }
    if printer.json {
        print_json(context, &data_migration::list(&client, known()).await?)?;
    }
    Ok(0)
}

/// Refuses a migration that is paused or has failed.
fn refuse_stopped(before: &Progress) -> Result<(), Error> {
    if before.is_paused {
        return Err(Error::refused(format!("{} is paused", before.migration))
            .hint(format!("leoflow data-migrate resume {}", before.version)));
    }
    match before.status {
        Status::Failed => Err(failed(before)),
        _ => Ok(()),
    }
}

/// Runs one migration until it is verified.
async fn run_one(
    context: &Context<'_>,
    client: &mut Client,
    known: &EmbeddedMigration,
    no_rest: bool,
) -> Result<(), Error> {
    let mut last_progress = std::time::Instant::now();
    let mut rounds = 0;
    let mut guard = TotalsGuard::new(INVARIANTS);
    loop {
        match data_migration::advance(client, known, &mut guard).await? {
            Batch::Moved { took, .. } => {
                if !no_rest {
                    tokio::time::sleep(took).await;
                }
                if last_progress.elapsed() >= PROGRESS_INTERVAL {
                    last_progress = std::time::Instant::now();
                    print_progress(context, client, known).await?;
                }
            }
            Batch::Done => {}
            Batch::Blocked => tokio::time::sleep(BLOCKED_PAUSE).await,
            Batch::Nothing => {
                if verify_moved(client, known, &mut rounds).await?.is_break() {
                    return Ok(());
                }
            }
        }
    }
}

async fn print_progress(context: &Context<'_>, client: &Client, known: &EmbeddedMigration) -> Result<(), Error> {
    if let Some(current) = data_migration::progress(client, known).await? {
        context.printer.note(format!("{}: {} changed so far", current.migration, counted(current.rows, "row")));
    }
    Ok(())
}

/// Verifies a migration that has no further batches. Breaks once it is verified or no longer recorded. `rounds` counts
/// the passes over rows that were locked.
async fn verify_moved(client: &Client, known: &EmbeddedMigration, rounds: &mut u32) -> Result<ControlFlow<()>, Error> {
    let Some(current) = data_migration::progress(client, known).await? else { return Ok(ControlFlow::Break(())) };
    match current.status {
        Status::Failed => Err(failed(&current)),
        Status::Verified => Ok(ControlFlow::Break(())),
        Status::Pending | Status::Running => {
            Err(Error::failed(format!("{} was paused in the meantime", current.migration))
                .hint(format!("leoflow data-migrate resume {}", current.version)))
        }
        Status::Done => match data_migration::verify(client, known).await? {
            0 => Ok(ControlFlow::Continue(())),
            remaining if *rounds >= MAX_ROUNDS => Err(Error::failed(format!(
                "{} of {} stayed unchanged, because others lock or change them all the time",
                counted(remaining, "row"),
                current.migration
            ))
            .hint("run leoflow data-migrate run again later")),
            _ => {
                *rounds += 1;
                tokio::time::sleep(BLOCKED_PAUSE).await;
                Ok(ControlFlow::Continue(()))
            }
        },
    }
}

/// The error about a failed migration.
fn failed(progress: &Progress) -> Error {
    let reason = progress.error.as_deref().unwrap_or("unknown error");
    Error::failed(format!("{} has failed: {reason}", progress.migration))
        .hint(format!("fix the cause, then: leoflow data-migrate resume {}", progress.version))
}

/// Verifies the selected migrations. The exit code is 1 if rows remain.
async fn verify(context: &Context<'_>, client: &Client, selector: &MigrationSelector) -> Result<u8, Error> {
    let mut has_remaining = false;
    let mut results = Vec::new();
    for (known, _) in select_migrations(client, selector).await? {
        let remaining = data_migration::verify(client, known).await?;
        if remaining > 0 {
            notify_server(client).await?;
        }
        let Some(current) = data_migration::progress(client, known).await? else { continue };
        has_remaining |= remaining > 0;
        if !context.printer.json {
            let remaining_text =
                if remaining == 0 { "no rows left".to_owned() } else { format!("{} left", counted(remaining, "row")) };
            context.printer.line(format!("{}: {}, {remaining_text}", current.migration, status_text(&current)));
            if current.status == Status::Failed || current.is_paused {
                context.printer.advice(format!("  leoflow data-migrate resume {}", current.version));
            }
        }
        results.push(json!({"left": remaining, "data_migration": current}));
    }
    if context.printer.json {
        context.printer.json(&json!({"data_migrations": results}))?;
    }
    Ok(u8::from(has_remaining))
}

/// Wakes the server, which runs data migrations in the background.
async fn notify_server(client: &Client) -> Result<(), Error> {
    let notified = client.execute("SELECT pg_notify($1, $2)", &[&events::ENGINE, &Event::Migrations.payload()]).await;
    notified.map(drop).map_err(|error| PgError::from(error).into())
}

async fn pause(context: &Context<'_>, client: &Client, selector: &MigrationSelector) -> Result<u8, Error> {
    for (known, progress) in select_migrations(client, selector).await? {
        if progress.status == Status::Verified {
            context.printer.note(format!("{} is already verified", progress.migration));
            continue;
        }
        data_migration::pause(client, known).await?;
        context.printer.note(format!("Paused {}", progress.migration));
    }
    Ok(0)
}

async fn resume(
    context: &Context<'_>,
    datastore: &Datastore,
    client: &Client,
    selector: &MigrationSelector,
) -> Result<u8, Error> {
    for (known, progress) in select_migrations(client, selector).await? {
        if progress.status == Status::Verified {
            context.printer.note(format!("{} is already verified", progress.migration));
            continue;
        }
        data_migration::resume(client, known).await?;
        notify_server(client).await?;
        let when = if datastore.is_of_running_instance {
            "it continues in the server"
        } else {
            "it continues at the next start, or with `leoflow data-migrate run`"
        };
        context.printer.note(format!("Resumed {}; {when}", progress.migration));
    }
    Ok(0)
}

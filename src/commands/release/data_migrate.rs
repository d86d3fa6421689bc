//! `leoflow data-migrate …`.

use super::later_migrations;
use crate::cli::data_migrate_args::{Chosen, DataMigrate, DataMigrateCommand};
use crate::commands::context::Context;
use crate::engine::store::events::{self, Event};
use crate::error::Error;
use crate::postgres::PgError;
use crate::recovery::datastore::Datastore;
use crate::recovery::refuse_beside_a_rollback;
use crate::schema::data_migration::{self, Batch, Progress, Status};
use crate::schema::{self, Known, SchemaError, known};
use serde_json::json;
use tokio_postgres::Client;

pub async fn run(context: &Context<'_>, args: &DataMigrate) -> Result<u8, Error> {
    refuse_beside_a_rollback(&context.home)?;
    let datastore = Datastore::open(&context.recovery(), "leoflow data-migrate").await?;
    let client = datastore.connect().await?;
    schema::require_current(&client, known()).await?;
    match &args.command {
        DataMigrateCommand::List => list(context, &client).await,
        DataMigrateCommand::Run { chosen, dry_run: true, .. } => dry_run(context, &client, chosen).await,
        DataMigrateCommand::Run { chosen, no_rest, .. } => to_the_end(context, client, chosen, *no_rest).await,
        DataMigrateCommand::Status(chosen) => status(context, &datastore, &client, chosen).await,
        DataMigrateCommand::Verify(chosen) => verify(context, &client, chosen).await,
        DataMigrateCommand::Pause(chosen) => pause(context, &client, chosen).await,
        DataMigrateCommand::Resume(chosen) => resume(context, &datastore, &client, chosen).await,
    }
}

/// Those that are meant, with how far they have come. A number that is none of them is refused.
async fn chosen(client: &Client, chosen: &Chosen) -> Result<Vec<(&'static Known, Progress)>, Error> {
    let mut all = Vec::new();
    for known in known().iter().filter(|known| known.batches.is_some()) {
        if chosen.version.is_none_or(|version| version == known.version)
            && let Some(progress) = data_migration::progress(client, known).await?
        {
            all.push((known, progress));
        }
    }
    match chosen.version {
        Some(version) if all.is_empty() => Err(SchemaError::NoDataMigration(format!("V{version:04}")).into()),
        _ => Ok(all),
    }
}

fn word(progress: &Progress) -> &'static str {
    if progress.is_paused && progress.status != Status::Verified { "paused" } else { progress.status.name() }
}

fn json_of(context: &Context<'_>, all: &[Progress]) -> Result<(), Error> {
    context.printer.json(&json!({"data_migrations": all}))
}

async fn list(context: &Context<'_>, client: &Client) -> Result<u8, Error> {
    let all = data_migration::list(client, known()).await?;
    if context.printer.json {
        json_of(context, &all)?;
        return Ok(0);
    }
    let row = |one: &Progress| {
        vec![one.migration.clone(), word(one).to_owned(), one.rows.to_string(), one.batches.to_string()]
    };
    context.printer.table(&["MIGRATION", "STATUS", "ROWS", "BATCHES"], &all.iter().map(row).collect::<Vec<_>>());
    Ok(0)
}

async fn status(context: &Context<'_>, datastore: &Datastore, client: &Client, which: &Chosen) -> Result<u8, Error> {
    let all: Vec<Progress> = chosen(client, which).await?.into_iter().map(|(_, progress)| progress).collect();
    let waiting = later_migrations::waiting(context, datastore).await?;
    let printer = context.printer;
    if printer.json {
        printer.json(&json!({"data_migrations": all, "waiting": waiting}))?;
        return Ok(0);
    }
    for one in &all {
        printer.line(format!("{}: {}", one.migration, word(one)));
        let at = one.watermark.as_ref().map(|watermark| format!(", up to {watermark}")).unwrap_or_default();
        printer.line(format!("  {} row(s) changed in {} batch(es), round {}{at}", one.rows, one.batches, one.round));
        for (what, when) in [("begun", one.started_at), ("last change", one.updated_at), ("verified", one.verified_at)]
        {
            if let Some(when) = when.map(|when| when.to_string()) {
                printer.line(format!("  {what} {}", printer.time(Some(&when))));
            }
        }
        if let Some(error) = &one.error {
            printer.line(format!("  {error}"));
        }
        if one.status == Status::Failed {
            printer.line(format!("  mend the cause, then: leoflow data-migrate resume {}", one.version));
        }
    }
    later_migrations::show(context, &waiting);
    Ok(0)
}

async fn dry_run(context: &Context<'_>, client: &Client, which: &Chosen) -> Result<u8, Error> {
    let mut told = Vec::new();
    for (known, progress) in chosen(client, which).await? {
        let left = data_migration::left(client, known).await?;
        if !context.printer.json {
            context.printer.line(format!("{}: {left} row(s) are to be changed", progress.migration));
        }
        told.push(json!({"migration": progress.migration, "left": left}));
    }
    if context.printer.json {
        context.printer.json(&json!({"data_migrations": told}))?;
    }
    Ok(0)
}

/// Somebody else is at it, or holds rows.
const HINDERED: std::time::Duration = std::time::Duration::from_secs(1);
/// Over rows that somebody held.
const MOST_ROUNDS: u32 = 10;
/// So often somebody who watches is told.
const TELL: std::time::Duration = std::time::Duration::from_secs(5);

async fn to_the_end(context: &Context<'_>, mut client: Client, which: &Chosen, no_rest: bool) -> Result<u8, Error> {
    let printer = context.printer;
    for (known, before) in chosen(&client, which).await? {
        if before.is_paused {
            return Err(Error::refused(format!("{} is paused", before.migration))
                .hint(format!("leoflow data-migrate resume {}", before.version)));
        }
        if before.status == Status::Failed {
            return Err(failed(&before));
        }
        let mut told = std::time::Instant::now();
        let mut rounds = 0;
        loop {
            match data_migration::advance(&mut client, known).await? {
                Batch::Moved { took, .. } => {
                    if !no_rest {
                        tokio::time::sleep(took).await;
                    }
                    if told.elapsed() >= TELL {
                        told = std::time::Instant::now();
                        if let Some(now) = data_migration::progress(&client, known).await? {
                            printer.note(format!("{}: {} row(s) changed so far", now.migration, now.rows));
                        }
                    }
                }
                Batch::Done => {}
                Batch::Hindered => tokio::time::sleep(HINDERED).await,
                Batch::Nothing => {
                    let now = data_migration::progress(&client, known).await?;
                    let Some(now) = now else { break };
                    match now.status {
                        Status::Failed => return Err(failed(&now)),
                        Status::Done => match data_migration::verify(&client, known).await? {
                            0 => {}
                            left if rounds >= MOST_ROUNDS => {
                                return Err(Error::failed(format!(
                                    "{left} row(s) of {} are held by others, or change all the time",
                                    now.migration
                                ))
                                .hint("leoflow data-migrate run, when they are done"));
                            }
                            _ => {
                                rounds += 1;
                                tokio::time::sleep(HINDERED).await;
                            }
                        },
                        Status::Verified => break,
                        Status::Pending | Status::Running => {
                            return Err(Error::failed(format!("{} was paused meanwhile", now.migration))
                                .hint(format!("leoflow data-migrate resume {}", now.version)));
                        }
                    }
                }
            }
        }
        if !printer.json
            && let Some(now) = data_migration::progress(&client, known).await?
        {
            printer.line(format!("{}: {}, {} row(s) changed", now.migration, word(&now), now.rows));
        }
    }
    if printer.json {
        json_of(context, &data_migration::list(&client, known()).await?)?;
    }
    Ok(0)
}

fn failed(one: &Progress) -> Error {
    let reason = one.error.as_deref().unwrap_or("it does not say why");
    Error::failed(format!("{} has failed: {reason}", one.migration))
        .hint(format!("mend the cause, then: leoflow data-migrate resume {}", one.version))
}

async fn verify(context: &Context<'_>, client: &Client, which: &Chosen) -> Result<u8, Error> {
    let mut is_open = false;
    let mut told = Vec::new();
    for (known, _) in chosen(client, which).await? {
        let left = data_migration::verify(client, known).await?;
        if left > 0 {
            tell_server(client).await?;
        }
        let Some(now) = data_migration::progress(client, known).await? else { continue };
        is_open |= left > 0;
        if !context.printer.json {
            let what = if left == 0 { "nothing is left".to_owned() } else { format!("{left} row(s) are left") };
            context.printer.line(format!("{}: {}, {what}", now.migration, word(&now)));
            if now.status == Status::Failed || now.is_paused {
                context.printer.line(format!("  leoflow data-migrate resume {}", now.version));
            }
        }
        told.push(json!({"left": left, "data_migration": now}));
    }
    if context.printer.json {
        context.printer.json(&json!({"data_migrations": told}))?;
    }
    Ok(u8::from(is_open))
}

async fn tell_server(client: &Client) -> Result<(), Error> {
    let told = client.execute("SELECT pg_notify($1, $2)", &[&events::ENGINE, &Event::Migrations.payload()]).await;
    told.map(drop).map_err(|error| PgError::from(error).into())
}

async fn pause(context: &Context<'_>, client: &Client, which: &Chosen) -> Result<u8, Error> {
    for (known, progress) in chosen(client, which).await? {
        if progress.status == Status::Verified {
            context.printer.note(format!("{} is over", progress.migration));
            continue;
        }
        data_migration::pause(client, known).await?;
        context.printer.note(format!("{} is paused", progress.migration));
    }
    Ok(0)
}

async fn resume(context: &Context<'_>, datastore: &Datastore, client: &Client, which: &Chosen) -> Result<u8, Error> {
    for (known, progress) in chosen(client, which).await? {
        if progress.status == Status::Verified {
            context.printer.note(format!("{} is over", progress.migration));
            continue;
        }
        data_migration::resume(client, known).await?;
        tell_server(client).await?;
        let when =
            if datastore.runs_for_lite { "beside the server" } else { "at the next start, or with `data-migrate run`" };
        context.printer.note(format!("{} goes on {when}", progress.migration));
    }
    Ok(0)
}

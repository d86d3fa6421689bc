//! `leoflow rollback`: to a release before, with the data. It works from any version that is kept, also when
//! the one in force is broken or gone.

use super::rollback_restore::{self, RestoreWay};
use super::upgrade_facts::{self, Looked};
use super::upgrade_worker;
use super::watch_worker;
use crate::backup::{Input, catalog, restore};
use crate::cli::upgrade_args::RollbackRelease;
use crate::commands::context::Context;
use crate::commands::lite::replaced;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::protocol::{control, log};
use crate::recovery::datastore::Datastore;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::stdio;
use crate::upgrade::back::{self, Back, Refusal, Ways, as_change};
use crate::upgrade::history;
use crate::upgrade::plan::{Facts, Instance, Plan};
use crate::upgrade::program::{self, About};
use crate::upgrade::rollback_record::{RollbackRecord, Settled};
use crate::upgrade::{self, Outcome, ReleaseSource, stage, version_order};
use semver::Version;
use serde_json::json;
use std::ffi::OsString;

/// What going back would be.
struct Looking {
    to: Version,
    facts: Facts,
    datastore: Datastore,
    plan: Plan,
    back: Back,
    /// The newest schema that the release knows that is gone back to.
    own_schema_of_target: i64,
    needed_bytes: u64,
}

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        log::start("upgrade", context.log_level());
        return upgrade_worker::tell(work(context, args).await);
    }
    if let Some(Settled::Finished(record)) = context.recovery().settle_rollback(args.dry_run).await? {
        let to = record.to.to_string();
        // This command finishes the interrupted one, and goes no further back.
        if args.to.as_deref().is_none_or(|asked| asked.strip_prefix('v').unwrap_or(asked) == to) {
            return finished(context, &record);
        }
    }
    context.recovery().settle_change(args.dry_run).await?;
    let looking = look(context, args).await?;
    let lost = lost(context, &looking).await?;
    show(context, &looking, &lost, args.dry_run)?;
    let in_the_way = in_the_way(&looking).await?;
    in_the_way.iter().for_each(|line| context.printer.warning(line));
    if args.dry_run {
        return Ok(0);
    }
    if let Some(first) = in_the_way.first() {
        return Err(Error::refused(format!("nothing was changed: {first}"))
            .hint("keep its definition (leoflow lite psql, then \\d+ NAME), drop it, run the same command again, and create it again"));
    }
    if !context.confirm(&format!("Go back to {}?", looking.to), args.yes)? {
        context.printer.note("Nothing was changed");
        return Ok(1);
    }
    if let Back::Restore { .. } = looking.back {
        rollback_restore::check(context, &looking.datastore)?;
    }
    let to = looking.to.to_string();
    // A private datastore is the worker's from here on.
    drop(looking.datastore);
    let arguments: [OsString; 5] = ["rollback".into(), "--to".into(), to.into(), "--yes".into(), "--worker".into()];
    watch_worker::watch(context, &arguments, &[]).await
}

fn finished(context: &Context<'_>, record: &RollbackRecord) -> Result<u8, Error> {
    let made = record.made.as_ref().map(|made| context.home.root().join(made));
    if context.printer.json {
        context.printer.json(&json!({
            "status": "rolled_back", "previous_version": record.from, "new_version": record.to, "commit": null,
            "migrations_run": [], "backup_path": made, "details": [],
        }))?;
    } else {
        context.printer.line(format!("Leoflow is {} again (it was {})", record.to, record.from));
    }
    if control::status_of(&context.home).is_none() {
        context.printer.note("Start it:  leoflow lite start");
    }
    Ok(0)
}

async fn look(context: &Context<'_>, args: &RollbackRelease) -> Result<Looking, Error> {
    let home = &context.home;
    let Looked { mut facts, datastore } = upgrade_facts::look(context).await?;
    if let Some(version) = linked_by_the_last_change(context) {
        facts.installed = version;
    }
    let changes = history::history(home);
    let way = history::way(&changes);
    let to = match &args.to {
        Some(text) => Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|error| Error::usage(format!("{text:?} is no version: {error}")).hint("leoflow versions"))?,
        None => {
            let led_here = way.iter().rev().find(|change| change.to == facts.installed);
            led_here.map(|change| change.from.clone()).ok_or(Refusal::NoHistory(facts.installed.clone()))?
        }
    };
    if to == facts.installed {
        return Err(Refusal::Same(to).into());
    }
    if version_order::compare(&to, &facts.installed).is_gt() {
        return Err(Refusal::Newer(to).into());
    }
    let kept = stage::program_of(home, &to);
    if !kept.is_file() {
        return Err(Refusal::NotKept(to).into());
    }
    let about = program::about(&kept).map_err(upgrade::UpgradeError::from)?;
    let change = way.into_iter().rev().find(|change| change.from == to);
    let (schema, to_undo) = schema_of(&datastore, &about).await?;
    let backup = change.and_then(|change| change.backup.as_ref());
    let backup_exists = backup.is_some_and(|path| path.is_file());
    let ways = Ways { about: &about, schema, to_undo, change, backup_exists };
    let back = back::plan(&ways)?;
    let target = match &back {
        Back::Undo { schema, .. } => *schema,
        Back::Restore { .. } => change.map_or(0, |change| change.schema_from),
    };
    let plan = as_change(&facts, &ways, &to, target);
    let own_schema_of_target = about.schema_version;
    let needed_bytes = room_for(&facts, &back);
    if let Some(free) = facts.free_bytes.filter(|free| *free < needed_bytes) {
        return Err(Refusal::Space { needed: needed_bytes, free, backups: backups_bytes(home) }.into());
    }
    Ok(Looking { to, facts, datastore, plan, back, own_schema_of_target, needed_bytes })
}

/// A backup of what is there, and the copy of the database, or what comes back beside what is there. The last backup says how
/// well the data packs.
fn room_for(facts: &Facts, back: &Back) -> u64 {
    let backup = match back {
        Back::Restore { backup } => std::fs::metadata(backup).map_or(0, |meta| meta.len()),
        Back::Undo { .. } => facts.database_bytes / 4,
    };
    let copies = match back {
        Back::Restore { .. } => 2,
        Back::Undo { .. } => 1,
    };
    facts.database_bytes.saturating_mul(copies).saturating_add(backup.saturating_mul(3)).saturating_add(LEAST_FREE)
}

/// For the datastore to go on.
const LEAST_FREE: u64 = 16 * 1024 * 1024;

/// What the backups take that are made by themselves.
fn backups_bytes(home: &Home) -> u64 {
    catalog::list(home).iter().filter(|backup| backup.automatic).map(|backup| backup.size_bytes).sum()
}

/// What `bin/` leads to, where the last change of release says the same: the supervisor may still be of the release
/// before, when the new one did not let itself be handed over to.
fn linked_by_the_last_change(context: &Context<'_>) -> Option<Version> {
    let linked = Version::parse(&setup::linked_version(&context.home)?).ok()?;
    history::history(&context.home).pop().map(|change| change.to).filter(|to| *to == linked)
}

/// The database's schema, and what of it that program does not know.
async fn schema_of(datastore: &Datastore, about: &About) -> Result<(i64, Result<Vec<String>, String>), Error> {
    let client = datastore.connect().await?;
    let schema = schema::classify::database_version(&schema::inspect(&client).await?);
    let to_undo = match schema::to_undo(&client, Extent::DownTo(about.schema_version)).await {
        Ok(names) => Ok(names),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error @ SchemaError::NotReversible(_)) => Err(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    Ok((schema, to_undo))
}

/// Exactly what will be gone, a line each.
async fn lost(context: &Context<'_>, looking: &Looking) -> Result<Vec<String>, Error> {
    match &looking.back {
        Back::Undo { migrations, .. } if migrations.is_empty() => Ok(Vec::new()),
        Back::Undo { schema, .. } => {
            Ok(schema::lost(&looking.datastore.connect().await?, Extent::DownTo(*schema)).await?)
        }
        Back::Restore { backup } => {
            let then = restore::peek(&Input::plain(backup))?;
            let now = replaced::summary(context, &looking.datastore).await?;
            let mut lost: Vec<String> = replaced::changes(&then.tables, &now.rows)
                .into_iter()
                .map(|change| format!("since the backup: {change}; they become what they were"))
                .collect();
            lost.push(format!("everything is as it was at {}, the workspace too", then.created_at));
            Ok(lost)
        }
    }
}

async fn in_the_way(looking: &Looking) -> Result<Vec<String>, Error> {
    match &looking.back {
        Back::Undo { migrations, schema } if !migrations.is_empty() => {
            Ok(schema::in_the_way(&looking.datastore.connect().await?, Extent::DownTo(*schema)).await?)
        }
        _ => Ok(Vec::new()),
    }
}

fn show(context: &Context<'_>, looking: &Looking, lost: &[String], dry_run: bool) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        if !dry_run {
            return Ok(());
        }
        return printer.json(&json!({
            "from": looking.facts.installed, "to": looking.to, "back": looking.back, "lost": lost,
        }));
    }
    printer.line(format!("leoflow {} -> {}", looking.facts.installed, looking.to));
    match &looking.back {
        Back::Undo { migrations, .. } if migrations.is_empty() => printer.line("  nothing is lost: the schema stays"),
        Back::Undo { .. } if lost.is_empty() => printer.line("  everything you have stays"),
        Back::Undo { .. } => printer.line("  everything you have stays, but for:"),
        Back::Restore { backup } => printer.line(format!("  the backup from before comes back: {}", backup.display())),
    }
    for line in lost {
        printer.line(format!("  - {line}"));
    }
    let tasks = looking.facts.running_tasks;
    match &looking.back {
        Back::Undo { .. } if looking.plan.live => {
            printer.line(format!("  {tasks} running task(s) go on; requests wait for a moment"))
        }
        Back::Restore { .. } if looking.plan.live => {
            printer.line(format!("  {tasks} running task(s) end; Leoflow stops and starts again"));
        }
        _ => {}
    }
    printer.line("  what is there now is backed up first");
    let megabytes = |bytes: u64| bytes as f64 / 1e6;
    printer.line(format!(
        "  disk: about {:.0} MB are needed for it, {:.0} MB are free",
        megabytes(looking.needed_bytes),
        looking.facts.free_bytes.map_or(0.0, megabytes)
    ));
    Ok(())
}

/// By the migrations' own rollbacks, with the steps of an upgrade; or by the backup from before it.
async fn work(context: &Context<'_>, args: &RollbackRelease) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = upgrade_worker::cancelled()?;
    stdio::set_stdout_blocking(false);
    let alone = OperationLock::take(home, "leoflow rollback")?;
    upgrade_worker::refuse_interrupted(home)?;
    let looking = look(context, args).await?;
    if let Back::Restore { backup } = &looking.back {
        let backup = backup.clone();
        let Looking { facts, datastore, plan, own_schema_of_target, .. } = looking;
        let was_running = facts.instance != Instance::Stopped;
        let way = RestoreWay { datastore, plan, schema_to: own_schema_of_target, backup, was_running };
        return rollback_restore::bring_back(context, way, alone, cancelled).await;
    }
    let Looking { facts, datastore, plan, .. } = looking;
    let config = context.recovery().running_config()?;
    upgrade_worker::change(
        context,
        &config,
        Looked { facts, datastore },
        plan,
        ReleaseSource::Installed,
        true,
        cancelled,
    )
    .await
}

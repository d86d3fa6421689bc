//! `leoflow rollback`: to a release before, with the data. It works from any version that is kept, also when
//! the one in force is broken or gone.

use super::rollback_consequences::Consequences;
use super::rollback_facts::{Looking, look};
use super::rollback_restore::{self, RestoreWay};
use super::upgrade_facts::Looked;
use super::upgrade_worker;
use super::watch_worker;
use crate::cli::upgrade_args::RollbackRelease;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::lock::OperationLock;
use crate::protocol::{control, log};
use crate::sys::stdio;
use crate::upgrade::history::{self};
use crate::upgrade::plan::Instance;
use crate::upgrade::rollback_plan::Back;
use crate::upgrade::rollback_record::Settled;
use crate::upgrade::{Outcome, ReleaseSource};
use semver::Version;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        log::start("upgrade", context.log_level());
        return upgrade_worker::tell(work(context, args).await);
    }
    if let Some(Settled::Finished(record)) = context.recovery().settle_rollback(args.dry_run).await? {
        let to = record.to.to_string();
        // This command finishes the interrupted one, and goes no further back.
        if args.to.as_deref().is_none_or(|asked| asked.strip_prefix('v').unwrap_or(asked) == to) {
            reported(context)?;
            return finished(context, &record.from, &record.to, record.made.as_ref());
        }
    }
    context.recovery().settle_change(args.dry_run).await?;
    let changes = history::history(&context.home);
    if let Some(change) = history::finished_by_another(&changes).filter(|_| args.to.is_none()) {
        if !args.dry_run {
            reported(context)?;
        }
        let further = history::next_back(&changes, &change.to);
        context.printer.note(format!("the rollback to {} was interrupted, and is finished already", change.to));
        if let Some(further) = further {
            context.printer.note(format!("To go further back:  leoflow rollback --to {further}"));
        }
        return finished(context, &change.from, &change.to, change.backup.as_ref());
    }
    let looking = look(context, args).await?;
    let consequences = Consequences::of(context, &looking).await?;
    if !context.printer.json {
        consequences.print(context, &looking);
    } else if args.dry_run {
        context.printer.json(&consequences.to_json(&looking))?;
    }
    let in_the_way = &consequences.in_the_way;
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

/// The next rollback goes further back.
fn reported(context: &Context<'_>) -> Result<(), Error> {
    history::set_finished_by_another(&context.home, false)
        .map_err(|error| Error::io("write", &context.home.upgrade(), &error))
}

fn finished(context: &Context<'_>, from: &Version, to: &Version, made: Option<&PathBuf>) -> Result<u8, Error> {
    let made = made.map(|made| context.home.root().join(made));
    if context.printer.json {
        context.printer.json(&json!({
            "status": "rolled_back", "previous_version": from, "new_version": to, "commit": null,
            "migrations_run": [], "backup_path": made, "details": [],
        }))?;
    } else {
        context.printer.line(format!("Leoflow is {to} again (it was {from})"));
    }
    if control::status_of(&context.home).is_none() {
        context.printer.note("Start it:  leoflow lite start");
    }
    Ok(0)
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

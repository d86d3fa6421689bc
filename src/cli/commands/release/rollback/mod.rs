//! `leoflow rollback`: returns to an earlier release, with the data. Works from any version in `versions/`, even when
//! the current one is broken or missing.

pub mod args;
mod consequences;
pub mod facts;
mod restore;

use crate::commands::release::apply_plan::{self, PlannedChange};
use crate::commands::release::upgrade::gather_facts::FactsAndDatastore;
use crate::commands::release::watch_worker;
use crate::commands::release::worker_report;
use crate::context::Context;
use crate::error::Error;
use args::RollbackRelease;
use consequences::Consequences;
use facts::{PlannedRollback, plan_rollback};
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::{control, log};
use leoflow_base::sys::process::stdio;
use leoflow_lifecycle::upgrade::plan::Instance;
use leoflow_lifecycle::upgrade::rollback::history;
use leoflow_lifecycle::upgrade::rollback::rollback_plan::RollbackPlan;
use leoflow_lifecycle::upgrade::rollback::rollback_record::Settled;
use leoflow_lifecycle::upgrade::{Outcome, ReleaseSource};
use restore::RestoreInput;
use semver::Version;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        log::start("upgrade", context.log_level());
        return worker_report::send_result(perform(context, args).await);
    }
    if let Some(exit_code) = finish_interrupted(context, args).await? {
        return Ok(exit_code);
    }
    let planned = plan_rollback(context, args).await?;
    let consequences = Consequences::find(context, &planned).await?;
    if !context.printer.json {
        consequences.print(context, &planned);
    } else if args.dry_run {
        context.printer.json(&consequences.to_json(&planned))?;
    }
    let in_the_way = &consequences.in_the_way;
    in_the_way.iter().for_each(|line| context.printer.warning(line));
    if args.dry_run {
        return Ok(0);
    }
    if let Some(first) = in_the_way.first() {
        return Err(Error::refused(format!("nothing was changed: {first}"))
            .hint("save its definition (leoflow lite psql, then \\d+ NAME), drop it, run the same command again, and recreate it"));
    }
    if !context.confirm(&format!("Go back to {}?", planned.to), args.yes.into())? {
        context.printer.note(Context::DECLINED);
        return Ok(1);
    }
    if let RollbackPlan::Restore { .. } = planned.rollback_plan {
        restore::refuse_instance_in_terminal(context, &planned.datastore)?;
    }
    let to = planned.to.to_string();
    // The worker opens the datastore itself.
    drop(planned.datastore);
    let arguments: [OsString; 5] = ["rollback".into(), "--to".into(), to.into(), "--yes".into(), "--worker".into()];
    watch_worker::watch(context, &arguments, &[]).await
}

/// Finishes an interrupted rollback. Returns the exit code if this command has nothing else to do.
async fn finish_interrupted(context: &Context<'_>, args: &RollbackRelease) -> Result<Option<u8>, Error> {
    if let Some(Settled::Finished(record)) = context.recovery().settle_rollback(args.dry_run.into()).await? {
        let to = record.to.to_string();
        // This command finishes the interrupted rollback, and does not start another.
        if args.to.as_deref().is_none_or(|requested| requested.strip_prefix('v').unwrap_or(requested) == to) {
            mark_reported(context)?;
            let backup = record.backup_of_current_state.as_ref();
            return print_finished(context, &record.from, &record.to, backup).map(Some);
        }
    }
    context.recovery().settle_change(args.dry_run.into()).await?;
    let changes = history::history(&context.home);
    if let Some(change) = history::finished_by_another(&changes).filter(|_| args.to.is_none()) {
        if !args.dry_run {
            mark_reported(context)?;
        }
        let further = history::rollback_target(&changes, &change.to);
        context.printer.note(format!("The interrupted rollback to {} is already finished.", change.to));
        if let Some(further) = further {
            context.printer.note(format!("To roll back further:  leoflow rollback --to {further}"));
        }
        return print_finished(context, &change.from, &change.to, change.backup.as_ref()).map(Some);
    }
    Ok(None)
}

/// Marks the finished rollback as reported, so that the next `rollback` goes further back.
fn mark_reported(context: &Context<'_>) -> Result<(), Error> {
    history::set_finished_by_another(&context.home, history::Reported::Yes)
        .map_err(|error| Error::io("write", &context.home.upgrade(), &error))
}

/// Prints the result of a rollback that an earlier command started.
fn print_finished(context: &Context<'_>, from: &Version, to: &Version, backup: Option<&PathBuf>) -> Result<u8, Error> {
    let backup = backup.map(|path| context.home.root().join(path));
    if context.printer.json {
        context.printer.json(&json!({
            "status": "rolled_back", "previous_version": from, "new_version": to, "commit": null,
            "migrations_run": [], "backup_path": backup, "details": [],
        }))?;
    } else {
        context.printer.line(format!("Rolled back from {from} to {to}"));
    }
    if control::status_of(&context.home).is_none() {
        context.printer.note("Start it:  leoflow lite start");
    }
    Ok(0)
}

/// Rolls back with the migrations' rollback SQL and the steps of an upgrade, or by restoring the backup from before the
/// last upgrade.
async fn perform(context: &Context<'_>, args: &RollbackRelease) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = apply_plan::cancelled()?;
    stdio::set_stdout_writes(stdio::Writes::Fail);
    let operation_lock = OperationLock::take(home, "leoflow rollback")?;
    apply_plan::refuse_interrupted(home)?;
    let planned = plan_rollback(context, args).await?;
    if let RollbackPlan::Restore { backup } = &planned.rollback_plan {
        let backup = backup.clone();
        let PlannedRollback { facts, datastore, plan, own_schema_of_target, .. } = planned;
        let was_running = facts.instance != Instance::Stopped;
        let input = RestoreInput { datastore, plan, schema_to: own_schema_of_target, backup, was_running };
        return restore::restore_backup(context, input, operation_lock, cancelled).await;
    }
    let PlannedRollback { facts, datastore, plan, .. } = planned;
    let config = context.recovery().running_config()?;
    let change = PlannedChange { plan, source: ReleaseSource::RetainedOlder, no_rollback: true };
    apply_plan::apply_plan(context, &config, FactsAndDatastore { facts, datastore }, change, cancelled).await
}

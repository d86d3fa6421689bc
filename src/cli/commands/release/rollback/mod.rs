//! `leoflow rollback`: returns to an earlier release, with the data. Works from any version in `versions/`, even when
//! the current one is broken or missing.

pub mod args;
mod consequences;
mod restore;

use crate::commands::release::watch_worker;
use crate::commands::release::worker::{self, Cancelled, LoggedSink};
use crate::context::Context;
use crate::error::Error;
use args::RollbackRelease;
use consequences::Consequences;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::control;
use leoflow_lifecycle::operation::change::{Change, Gathered};
use leoflow_lifecycle::operation::rollback::{Finished, FinishedBy, PlannedRollback};
use leoflow_lifecycle::upgrade::plan::Instance;
use leoflow_lifecycle::upgrade::rollback::rollback_plan::RollbackPlan;
use leoflow_lifecycle::upgrade::{Outcome, ReleaseSource};
use restore::Rollback;
use serde_json::json;
use std::ffi::OsString;

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        return worker::run(context, async |cancelled| perform(context, args, cancelled).await).await;
    }
    let operation = context.operation();
    if let Some(finished) = operation.finish_interrupted_rollback(args.to.as_deref(), args.dry_run.into()).await? {
        return print_finished(context, &finished);
    }
    let planned = operation.plan_rollback(args.to.as_deref()).await?;
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

/// Prints the result of a rollback that an earlier command started.
fn print_finished(context: &Context<'_>, finished: &Finished) -> Result<u8, Error> {
    let Finished { from, to, backup, by } = finished;
    if let FinishedBy::AnotherCommand { further } = by {
        context.printer.note(format!("The interrupted rollback to {to} is already finished."));
        if let Some(further) = further {
            context.printer.note(format!("To roll back further:  leoflow rollback --to {further}"));
        }
    }
    let value = json!({
        "status": "rolled_back", "previous_version": from, "new_version": to, "commit": null, "migrations_run": [],
        "backup_path": backup, "details": [],
    });
    context.printer.show(&value, |printer| printer.line(format!("Rolled back from {from} to {to}")))?;
    if control::status_of(&context.home).is_none() {
        context.printer.note("Start it:  leoflow lite start");
    }
    Ok(0)
}

/// Rolls back with the migrations' rollback SQL and the steps of an upgrade, or by restoring the backup from before the
/// last upgrade.
async fn perform(context: &Context<'_>, args: &RollbackRelease, cancelled: Cancelled) -> Result<Outcome, Error> {
    let home = &context.home;
    let operation_lock = OperationLock::take(home, "leoflow rollback")?;
    let operation = context.operation();
    operation.refuse_interrupted_change()?;
    let planned = operation.plan_rollback(args.to.as_deref()).await?;
    let PlannedRollback { facts, datastore, plan, rollback_plan, own_schema_of_target, .. } = planned;
    if let RollbackPlan::Restore { backup } = rollback_plan {
        restore::refuse_instance_in_terminal(context, &datastore)?;
        let was_running = facts.instance != Instance::Stopped;
        let rollback = Rollback::begin(context, plan, own_schema_of_target, backup, was_running)?;
        return rollback.run(operation_lock, datastore, cancelled.received()).await;
    }
    let config = operation.running_config()?;
    let source = ReleaseSource::RetainedOlder;
    let change = Change { plan, source, no_rollback: true, reporter: &LoggedSink };
    Ok(change.apply(&operation, &config, Gathered { facts, datastore }, cancelled.received()).await?)
}

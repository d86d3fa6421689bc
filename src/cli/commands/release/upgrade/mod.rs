//! `leoflow upgrade`: plans, asks for confirmation, starts the worker and shows its progress.
//!
//! Two processes share an upgrade. This command plans, and watches the worker (`watch_worker.rs`), which plans again and
//! applies the plan (`lifecycle/operation/upgrade.rs`). If the worker is killed, the next command or start continues
//! from the journal (`lifecycle/operation/open/upgrades.rs`).

pub mod args;

use crate::commands::release::watch_worker;
use crate::commands::release::worker::{self, LoggedSink};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::{Printer, counted};
use args::{Upgrade, UpgradeCommand};
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_lifecycle::operation::DryRun;
use leoflow_lifecycle::operation::open::Abort;
use leoflow_lifecycle::operation::upgrade::{Planned, PlannedUpgrade, Unneeded};
use leoflow_lifecycle::upgrade::plan::{Action, UpgradePlan, UpgradeRefusal};
use leoflow_lifecycle::upgrade::target_release::{Purpose, Request};
use serde_json::json;

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    match &args.command {
        Some(UpgradeCommand::Plan(plan)) => {
            let request =
                Request { version: plan.version.as_deref(), from: plan.from.from.as_deref(), ..args.request() };
            dry_run(context, request).await.map_err(Error::of_upgrade_plan)
        }
        None if args.resume || args.abort => resume(context, args).await,
        None if args.install => install(context, args).await,
        None if args.worker => {
            worker::run(context, async |cancelled| {
                let operation = context.operation();
                operation.perform_upgrade(args.request(), &LoggedSink, cancelled.received()).await
            })
            .await
        }
        None if args.dry_run => dry_run(context, args.request()).await,
        None => upgrade(context, args).await,
    }
}

/// Plans the upgrade, asks for confirmation, and starts and watches the worker, which performs the upgrade.
async fn upgrade(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    let operation = context.operation();
    operation.settle_change(DryRun::No).await?;
    let planned = operation.plan_upgrade(args.request(), Purpose::Apply).await?;
    // With `--yes`, no user reads the warnings of the plan. HTTP requests set it, too.
    let accepts_outdated = !args.yes || args.accept_old_manifest;
    let PlannedUpgrade { plan, last_pause, release } = match planned {
        Planned::Unneeded(unneeded) => return print_unneeded(printer, &unneeded),
        Planned::HandOver(PlannedUpgrade { plan, release, .. }) => {
            // The next step runs the release's program, so the warnings are printed before it.
            plan.warnings.iter().for_each(|warning| printer.warning(warning));
            if !accepts_outdated {
                release.refuse_outdated(home)?;
            }
            match release.hand_over(home, context.version, &plan, printer).await? {}
        }
        Planned::Upgrade(planned) => planned,
    };
    match printer.json {
        true => plan.warnings.iter().for_each(|warning| printer.warning(warning)),
        false => print_plan(printer, &plan, last_pause),
    }
    if !accepts_outdated {
        release.refuse_outdated(home)?;
    }
    if !context.confirm(&format!("Upgrade to {}?", plan.to), args.yes.into())? {
        printer.note(Context::DECLINED);
        return Ok(1);
    }
    release.add_own_program(home)?;
    // The source may contain a password, so it is not an argument.
    let variables: Vec<_> = release.host().iter().map(|host| (RELEASE_SOURCE, host.with_secrets().into())).collect();
    watch_worker::watch(context, &args.for_worker(&plan.to), &variables).await
}

/// `--dry-run`, and `leoflow upgrade plan`.
async fn dry_run(context: &Context<'_>, request: Request<'_>) -> Result<u8, Error> {
    let operation = context.operation();
    operation.settle_change(DryRun::Yes).await?;
    match operation.plan_upgrade(request, Purpose::Show).await? {
        Planned::Unneeded(unneeded) => print_unneeded(context.printer, &unneeded),
        Planned::Upgrade(planned) | Planned::HandOver(planned) => {
            context.printer.show(&planned, |printer| print_plan(printer, &planned.plan, planned.last_pause))
        }
    }
}

/// `--resume` and `--abort`.
async fn resume(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let abort = if args.abort { Abort::Yes } else { Abort::No };
    let text = context.operation().finish_interrupted(abort).await?;
    context.printer.line(text.as_deref().unwrap_or("No interrupted upgrade; nothing to do"));
    Ok(0)
}

/// `--install`, used by install.sh.
async fn install(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let installed = context.operation().install_release(args.request()).await?;
    context.printer.line(format!("Installed leoflow {installed}"));
    Ok(0)
}

fn print_unneeded(printer: &Printer, unneeded: &Unneeded) -> Result<u8, Error> {
    let (installed, warnings) = match unneeded {
        Unneeded::Installed { installed, warnings, .. } => (installed, warnings.clone()),
        Unneeded::Owned { own, installed, owner } => {
            let command = owner.upgrade_command();
            (installed, vec![format!("leoflow {own} belongs to {}, which upgrades it: {command}", owner.name())])
        }
    };
    let status = json!({"status": "up_to_date", "version": installed, "warnings": warnings});
    printer.show(&status, |printer| match unneeded {
        Unneeded::Installed { why, .. } => {
            warnings.iter().for_each(|warning| printer.warning(warning));
            printer.line(format!("{why}; nothing to do"));
            if let UpgradeRefusal::Ahead { .. } = why {
                printer.note("If this release was withdrawn:  leoflow rollback");
            }
        }
        Unneeded::Owned { .. } => warnings.iter().for_each(|text| printer.line(text)),
    })
}

/// Prints the plan.
fn print_plan(printer: &Printer, plan: &UpgradePlan, last_pause: Option<f64>) {
    printer.line(format!("leoflow {} -> {}", plan.from, plan.to));
    print_migrations(printer, plan);
    for component in &plan.components {
        let action_text = match &component.action {
            Action::Carried | Action::Kept => "stays".to_owned(),
            Action::Fetch(release_file) => format!("will be downloaded, {:.1} MB", release_file.size as f64 / 1e6),
        };
        printer.line(format!("  {:<10} {} {action_text}", component.name, component.version));
    }
    match plan.program.url.as_str() {
        "" => printer.line("  program    already on this machine"),
        _ => printer.line(format!("  program    will be downloaded, {:.1} MB", plan.program.size as f64 / 1e6)),
    }
    printer.line(format!("  disk       {:.0} MB needed temporarily", plan.needs_bytes as f64 / 1e6));
    if plan.live {
        let last = last_pause.map(|seconds| format!(" ({seconds:.1} s last time)")).unwrap_or_default();
        let tasks = counted(plan.running_tasks, "task");
        printer.line(format!("  running    {tasks}, not interrupted; requests wait for a moment{last}"));
        printer.line("  pause      measured by the rehearsal before anything is changed");
    } else {
        printer.line("  running    no; Leoflow stays stopped");
    }
    printer.line("  backup     created first");
    for warning in &plan.warnings {
        printer.warning(warning);
    }
    if !plan.notes.trim().is_empty() {
        printer.line(format!("\n{}\n", plan.notes.trim()));
    }
}

fn print_migrations(printer: &Printer, plan: &UpgradePlan) {
    for migration in &plan.migrations {
        let undo = if migration.reversible { "reversible" } else { "reversible only by a restore" };
        printer
            .line(format!("  migration  V{:04}__{} ({}, {undo})", migration.version, migration.name, migration.phase));
    }
    for migration in &plan.later {
        let when = if migration.phase == "contract" { "once its gates are open" } else { "after the upgrade" };
        printer
            .line(format!("  later      V{:04}__{} ({}, {when})", migration.version, migration.name, migration.phase));
    }
    if plan.migrations.is_empty() && plan.schema_from == plan.schema_to {
        printer.line(format!("  schema     stays at version {:04}", plan.schema_from));
    }
}

//! `leoflow upgrade`: plans, asks for confirmation, starts the worker and shows its progress.
//!
//! Two processes share an upgrade. This command plans, and watches the worker (`watch_worker.rs`). The worker
//! (`worker.rs`) runs in a session of its own, so that closing the terminal does not end it. It holds the
//! operation lock and plans again with the same functions, because other commands may have changed the facts before it
//! took the lock; then it applies the plan (`apply_plan.rs`), whose steps are in `lifecycle/upgrade/run.rs`. If the
//! worker is killed, the next command or start continues from the journal (`lifecycle/operation/open/upgrades.rs`).

pub mod args;
pub mod gather_facts;
mod install;
mod worker;

use crate::commands::release::hand_over;
use crate::commands::release::packaged::{self, Program};
use crate::commands::release::watch_worker;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::{Abort, DryRun};
use crate::terminal::printer::counted;
use args::{From, Upgrade, UpgradeCommand};
use gather_facts::FactsAndDatastore;
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self};
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_lifecycle::contract::effects::{Uses, effects};
use leoflow_lifecycle::contract::{self, Contract};
use leoflow_lifecycle::upgrade::plan::{Action, Database, Instance, UpgradeFacts, UpgradePlan, UpgradeRefusal};
use leoflow_lifecycle::upgrade::release::{program, stage};
use leoflow_lifecycle::upgrade::rollback::history;
use leoflow_lifecycle::upgrade::target_release::{Remember, Request, TargetError, TargetRelease, earlier_failures};
use serde_json::json;

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    match &args.command {
        Some(UpgradeCommand::Plan(plan)) => {
            dry_run(context, plan.version.as_deref(), &plan.from).await.map_err(Error::of_upgrade_plan)
        }
        None if args.resume || args.abort => resume(context, args).await,
        None if args.install => install::run(context, args).await,
        None if args.worker => worker::run(context, args).await,
        None if args.dry_run => dry_run(context, args.version.as_deref(), &args.from).await,
        None => upgrade(context, args).await,
    }
}

/// Plans the upgrade, asks for confirmation, and starts and watches the worker, which performs the upgrade.
async fn upgrade(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    context.recovery().settle_change(DryRun::No).await?;
    let planned = plan_upgrade(context, args.version.as_deref(), &args.from, Some(args)).await?;
    let Some((plan, release)) = planned else { return Ok(0) };
    match context.printer.json {
        true => plan.warnings.iter().for_each(|warning| context.printer.warning(warning)),
        false => show(context, &plan)?,
    }
    refuse_outdated_manifest(context, args, &release)?;
    if !context.confirm(&format!("Upgrade to {}?", plan.to), args.yes.into())? {
        context.printer.note(Context::DECLINED);
        return Ok(1);
    }
    release.add_own_program(&context.home)?;
    // The source may contain a password, so it is not an argument.
    let variables: Vec<_> = release.host().iter().map(|host| (RELEASE_SOURCE, host.with_secrets().into())).collect();
    watch_worker::watch(context, &args.for_worker(&plan.to), &variables).await
}

/// Refuses an expired manifest, or one older than a manifest seen before, if `--yes` is set: then no user reads the
/// warnings of the plan. HTTP requests set it, too.
fn refuse_outdated_manifest(context: &Context<'_>, args: &Upgrade, release: &TargetRelease) -> Result<(), Error> {
    if !args.yes || args.accept_old_manifest || !release.is_outdated(&context.home) {
        return Ok(());
    }
    Err(Error::refused("the manifest of the release host has expired or is an old copy; nothing was changed")
        .hint("read the warnings: leoflow upgrade plan")
        .hint("if the host is as it should be: leoflow upgrade --yes --accept-old-manifest"))
}

/// `--dry-run`, and `leoflow upgrade plan`.
async fn dry_run(context: &Context<'_>, version: Option<&str>, from: &From) -> Result<u8, Error> {
    context.recovery().settle_change(DryRun::Yes).await?;
    if let Some((plan, _)) = plan_upgrade(context, version, from, None).await? {
        show(context, &plan)?;
    }
    Ok(0)
}

/// `--resume` and `--abort`.
async fn resume(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    let abort = if args.abort { Abort::Yes } else { Abort::No };
    let text = context.recovery().finish_interrupted(abort).await?;
    context.printer.line(text.as_deref().unwrap_or("No interrupted upgrade; nothing to do"));
    Ok(0)
}

/// Plans the upgrade. `applied` has the arguments of an upgrade that applies the plan; `None` for a dry run. When there
/// is nothing to do, prints a message and returns `None`.
async fn plan_upgrade(
    context: &Context<'_>,
    version: Option<&str>,
    from: &From,
    applied: Option<&Upgrade>,
) -> Result<Option<(UpgradePlan, TargetRelease)>, Error> {
    let home = &context.home;
    let config = config::load(&home.config())?.map(|loaded| loaded.config);
    let request = Request { version, from: from.from.as_deref() };
    let program = Program::of(context)?;
    let may_be_own = program.can_be_requested(&request);
    let mut release = match program.owner {
        None => match TargetRelease::find(home, config.as_ref(), context.version, request).await {
            Err(TargetError::NoHost) if may_be_own => TargetRelease::own()?,
            Err(error) if may_be_own && !matches!(error, TargetError::DevelopmentBuild) => {
                context.printer.warning(Error::from(error).in_one_line());
                TargetRelease::own()?
            }
            found => found?,
        },
        Some(_) if may_be_own => TargetRelease::own()?,
        Some(owner) if applied.is_some() => return Err(program.refusal(owner)),
        Some(owner) => return packaged::print_owner(context, &program, owner).map(|()| None),
    };
    let remember = if applied.is_some() { Remember::Yes } else { Remember::No };
    let doubts = release.doubts(home, remember, context.printer);
    let FactsAndDatastore { facts, .. } = gather_facts::gather(context, "leoflow upgrade").await?;
    refuse_older_program(context, &facts)?;
    let mut planned = release.plan(&facts);
    if may_be_own
        && matches!(
            planned,
            Err(UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Unknown(_))
        )
    {
        // The host offers nothing newer, but this program is.
        release = TargetRelease::own()?;
        planned = release.plan(&facts);
    }
    match planned {
        Ok(plan) => Ok(Some((with_warnings(context, plan, doubts, &release).await?, release))),
        Err(UpgradeRefusal::HandOver(plan)) => match applied {
            None => Ok(Some((with_warnings(context, *plan, doubts, &release).await?, release))),
            Some(args) => {
                // The next step runs the release's program, so the doubts are printed before it.
                doubts.iter().for_each(|doubt| context.printer.warning(doubt));
                refuse_outdated_manifest(context, args, &release)?;
                hand_over::run(context, &plan, &release).await.map(|()| None)
            }
        },
        Err(
            not_needed @ (UpgradeRefusal::UpToDate(_) | UpgradeRefusal::Ahead { .. } | UpgradeRefusal::Installed(_)),
        ) => print_not_needed(context, &facts, &not_needed, &doubts).map(|()| None),
        Err(refusal) => Err(refusal.into()),
    }
}

/// Adds warnings to the plan: the doubts about the release host, earlier failed upgrades to this release, and changes
/// of features that this home uses.
async fn with_warnings(
    context: &Context<'_>,
    mut plan: UpgradePlan,
    doubts: Vec<String>,
    release: &TargetRelease,
) -> Result<UpgradePlan, Error> {
    plan.warnings.extend(doubts);
    plan.warnings.extend(earlier_failures(&context.home, &plan.to));
    let own = Contract::parse(build_info().contract.as_bytes());
    let (Some(settings), Ok(own)) = (context.config()?, own) else { return Ok(plan) };
    if let Some(new) = release.contract(&plan.to).await {
        plan.warnings.extend(effects(&contract::compare(&own, &new), &Uses::of(&settings)));
    }
    Ok(plan)
}

fn print_not_needed(
    context: &Context<'_>,
    facts: &UpgradeFacts,
    not_needed: &UpgradeRefusal,
    doubts: &[String],
) -> Result<(), Error> {
    if context.printer.json {
        let status = json!({"status": "up_to_date", "version": facts.installed, "warnings": doubts});
        return context.printer.json(&status);
    }
    doubts.iter().for_each(|doubt| context.printer.warning(doubt));
    context.printer.line(format!("{not_needed}; nothing to do"));
    if let UpgradeRefusal::Ahead { .. } = not_needed {
        context.printer.note("If this release was withdrawn:  leoflow rollback");
    }
    Ok(())
}

/// Refuses to upgrade when this program is older than the running release: it cannot rehearse on a schema that is newer
/// than its own.
fn refuse_older_program(context: &Context<'_>, facts: &UpgradeFacts) -> Result<(), Error> {
    let schema = match &facts.database {
        Database::Applied(applied) => applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
        Database::Damaged(_) => 0,
    };
    let program = stage::program_of(&context.home, &facts.installed);
    let is_behind = facts.instance != Instance::Stopped && schema > facts.own_schema;
    if is_behind && program::about(&program).is_ok() {
        let (own, installed) = (context.version, &facts.installed);
        let text = format!("this is leoflow {own}, but {installed} is running here; nothing was changed");
        return Err(Error::refused(text).hint(format!("{} upgrade", program.display())));
    }
    Ok(())
}

/// Prints the plan.
fn show(context: &Context<'_>, plan: &UpgradePlan) -> Result<(), Error> {
    let printer = context.printer;
    let last_pause = history::last_pause(&history::history(&context.home), None);
    if printer.json {
        let mut value = serde_json::to_value(plan).map_err(Error::bug)?;
        value["last_pause"] = json!(last_pause);
        return printer.json(&value);
    }
    printer.line(format!("leoflow {} -> {}", plan.from, plan.to));
    show_migrations(context, plan);
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
    Ok(())
}

fn show_migrations(context: &Context<'_>, plan: &UpgradePlan) {
    let printer = context.printer;
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

//! `leoflow upgrade`: plans, asks for confirmation, starts the worker and shows its progress.

use super::target_release::{From, doubts, earlier_failures, kept, source, target, version_of};
use super::upgrade_args::{Upgrade, UpgradeCommand};
use super::upgrade_facts::{self, FactsAndDatastore};
use super::upgrade_install;
use super::upgrade_worker;
use super::watch_worker;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_base::build_info::build_info;
use leoflow_base::config::{self};
use leoflow_base::protocol::child::RELEASE_SOURCE;
use leoflow_lifecycle::upgrade::plan::{Action, Database, Instance, Plan, Refusal, UpgradeFacts, plan, plan_kept};
use leoflow_lifecycle::upgrade::release::source::Source;
use leoflow_lifecycle::upgrade::release::{program, signature, stage};
use leoflow_lifecycle::upgrade::rollback::history;
use serde_json::json;
use std::ffi::OsString;

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    if let Some(UpgradeCommand::Plan(plan)) = &args.command {
        context.recovery().settle_change(true).await?;
        if let Some((plan, _)) = plan_upgrade(context, plan.version.as_deref(), &plan.from, true).await? {
            show(context, &plan)?;
        }
        return Ok(0);
    }
    if args.resume || args.abort {
        return upgrade_worker::resume(context, args.abort).await;
    }
    if args.install {
        return upgrade_install::run(context, args).await;
    }
    if args.worker {
        return upgrade_worker::run(context, args).await;
    }
    context.recovery().settle_change(args.dry_run).await?;
    let planned = plan_upgrade(context, args.version.as_deref(), &args.from, args.dry_run).await?;
    let Some((plan, from)) = planned else { return Ok(0) };
    if args.dry_run {
        show(context, &plan)?;
        return Ok(0);
    }
    match context.printer.json {
        true => plan.warnings.iter().for_each(|warning| context.printer.warning(warning)),
        false => show(context, &plan)?,
    }
    if !context.confirm(&format!("Upgrade to {}?", plan.to), args.yes.into())? {
        context.printer.note(Context::DECLINED);
        return Ok(1);
    }
    let mut arguments: Vec<OsString> = vec!["upgrade".into(), plan.to.to_string().into(), "--yes".into()];
    arguments.push("--worker".into());
    if args.no_rollback {
        arguments.push("--no-rollback".into());
    }
    let variables: Vec<_> = from.iter().map(|source| (RELEASE_SOURCE, source.with_secrets().into())).collect();
    watch_worker::watch(context, &arguments, &variables).await
}

/// Refuses to upgrade with an older program than the running one, whose schema it cannot rehearse on.
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

/// Plans the upgrade. Returns the plan, and the release's source unless it is kept on this machine. Prints a message
/// and returns `None` when there is nothing to do.
async fn plan_upgrade(
    context: &Context<'_>,
    version: Option<&str>,
    from: &From,
    dry_run: bool,
) -> Result<Option<(Plan, Option<Source>)>, Error> {
    let config = config::load(&context.home.config())?.map(|loaded| loaded.config);
    let target = target(version, config.as_ref())?;
    if let Some(about) = kept(context, &target, from, &upgrade_facts::installed_version(context)?) {
        let FactsAndDatastore { facts, .. } = upgrade_facts::gather(context).await?;
        refuse_older_program(context, &facts)?;
        let to = version_of(&about)?;
        let mut plan = plan_kept(&facts, &about.migrations, &to)?;
        plan.warnings.extend(earlier_failures(context, &to));
        return Ok(Some((plan, None)));
    }
    let source = source(from, config.as_ref())?;
    let manifest = source.manifest(&signature::trusted(&context.home, build_info().public_key)).await?;
    let doubts = doubts(context, &manifest, &source, dry_run);
    let FactsAndDatastore { facts, .. } = upgrade_facts::gather(context).await?;
    refuse_older_program(context, &facts)?;
    match plan(&facts, &manifest, &target) {
        Ok(mut plan) => {
            plan.warnings.extend(doubts);
            plan.warnings.extend(earlier_failures(context, &plan.to));
            Ok(Some((plan, Some(source))))
        }
        Err(not_needed @ (Refusal::UpToDate(_) | Refusal::Ahead { .. } | Refusal::Installed(_))) => {
            if context.printer.json {
                let status = json!({"status": "up_to_date", "version": facts.installed, "warnings": doubts});
                context.printer.json(&status)?;
            } else {
                doubts.iter().for_each(|doubt| context.printer.warning(doubt));
                context.printer.line(format!("{not_needed}; nothing to do"));
                if let Refusal::Ahead { .. } = not_needed {
                    context.printer.note("If this release was withdrawn:  leoflow rollback");
                }
            }
            Ok(None)
        }
        Err(refusal) => Err(refusal.into()),
    }
}

/// Prints the plan.
fn show(context: &Context<'_>, plan: &Plan) -> Result<(), Error> {
    let printer = context.printer;
    let last_pause = history::last_pause(&history::history(&context.home), None);
    if printer.json {
        let mut value = serde_json::to_value(plan).map_err(Error::bug)?;
        value["last_pause"] = json!(last_pause);
        return printer.json(&value);
    }
    printer.line(format!("leoflow {} -> {}", plan.from, plan.to));
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
    if plan.migrations.is_empty() {
        printer.line(format!("  schema     stays at version {:04}", plan.schema_from));
    }
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

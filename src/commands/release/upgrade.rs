//! `leoflow upgrade`: looks, shows the plan, asks, and starts the worker, whose progress it shows.

use super::upgrade_facts::{self, Looked};
use super::upgrade_install;
use super::upgrade_worker;
use super::wanted_release::{doubts, kept, source, target, version_of, was_left};
use super::watch_worker;
use crate::build_info::build_info;
use crate::cli::upgrade_args::{From, Upgrade, UpgradeCommand};
use crate::commands::context::Context;
use crate::config::{self};
use crate::error::Error;
use crate::protocol::child::RELEASE_SOURCE;
use crate::upgrade::plan::{Action, Database, Facts, Instance, Plan, Refusal, plan, plan_kept};
use crate::upgrade::source::Source;
use crate::upgrade::{history, program, signature, stage};
use serde_json::json;
use std::ffi::OsString;

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    if let Some(UpgradeCommand::Plan(plan)) = &args.command {
        context.recovery().settle_change(true).await?;
        if let Some((plan, _)) = look_beyond(context, plan.version.as_deref(), &plan.from, true).await? {
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
    let looked = look_beyond(context, args.version.as_deref(), &args.from, args.dry_run).await?;
    let Some((plan, from)) = looked else { return Ok(0) };
    if args.dry_run {
        show(context, &plan)?;
        return Ok(0);
    }
    match context.printer.json {
        true => plan.warnings.iter().for_each(|warning| context.printer.warning(warning)),
        false => show(context, &plan)?,
    }
    if !context.confirm(&format!("Upgrade to {}?", plan.to), args.yes)? {
        context.printer.note("Nothing was changed");
        return Ok(1);
    }
    let mut arguments: Vec<OsString> = vec!["upgrade".into(), plan.to.to_string().into(), "--yes".into()];
    arguments.push("--worker".into());
    if args.no_rollback {
        arguments.push("--no-rollback".into());
    }
    let variables: Vec<_> = from.iter().map(|source| (RELEASE_SOURCE, source.whole().into())).collect();
    watch_worker::watch(context, &arguments, &variables).await
}

/// An older copy of the program cannot rehearse on the schema of a newer one that runs.
fn refuse_an_older_copy(context: &Context<'_>, facts: &Facts) -> Result<(), Error> {
    let schema = match &facts.database {
        Database::Applied(applied) => applied.iter().map(|(version, _)| *version).max().unwrap_or(0),
        Database::Damaged(_) => 0,
    };
    let program = stage::program_of(&context.home, &facts.installed);
    let is_behind = facts.instance != Instance::Stopped && schema > facts.own_schema;
    if is_behind && program::about(&program).is_ok() {
        let (own, installed) = (context.version, &facts.installed);
        let text = format!("this is leoflow {own}, and {installed} runs here; nothing was changed");
        return Err(Error::refused(text).hint(format!("{} upgrade", program.display())));
    }
    Ok(())
}

/// What would be done, and where the release comes from, unless it is kept; everything that is asked of the machine is
/// asked here. `None` when there is nothing to do, which is said.
async fn look_beyond(
    context: &Context<'_>,
    version: Option<&str>,
    from: &From,
    look_only: bool,
) -> Result<Option<(Plan, Option<Source>)>, Error> {
    let config = config::load(&context.home.config())?.map(|loaded| loaded.config);
    let target = target(version, config.as_ref())?;
    if let Some(about) = kept(context, &target, from, &upgrade_facts::installed_version(context)?) {
        let Looked { facts, .. } = upgrade_facts::look(context).await?;
        refuse_an_older_copy(context, &facts)?;
        let to = version_of(&about)?;
        let mut plan = plan_kept(&facts, &about.migrations, &to)?;
        plan.warnings.extend(was_left(context, &to));
        return Ok(Some((plan, None)));
    }
    let source = source(from, config.as_ref())?;
    let manifest = source.manifest(&signature::trusted(&context.home, build_info().public_key)).await?;
    let doubts = doubts(context, &manifest, &source, look_only);
    let Looked { facts, .. } = upgrade_facts::look(context).await?;
    refuse_an_older_copy(context, &facts)?;
    match plan(&facts, &manifest, &target) {
        Ok(mut plan) => {
            plan.warnings.extend(doubts);
            plan.warnings.extend(was_left(context, &plan.to));
            Ok(Some((plan, Some(source))))
        }
        Err(nothing @ (Refusal::UpToDate(_) | Refusal::Ahead { .. } | Refusal::Installed(_))) => {
            if context.printer.json {
                let told = json!({"status": "up_to_date", "version": facts.installed, "warnings": doubts});
                context.printer.json(&told)?;
            } else {
                doubts.iter().for_each(|doubt| context.printer.warning(doubt));
                context.printer.line(format!("{nothing}; nothing has to be done"));
                if let Refusal::Ahead { .. } = nothing {
                    context.printer.note("If it was withdrawn there:  leoflow rollback");
                }
            }
            Ok(None)
        }
        Err(refusal) => Err(refusal.into()),
    }
}

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
        let undo = if migration.reversible { "can be undone" } else { "cannot be undone by itself" };
        printer
            .line(format!("  migration  V{:04}__{} ({}, {undo})", migration.version, migration.name, migration.phase));
    }
    for migration in &plan.later {
        let what = if migration.phase == "contract" { "once its gates are open" } else { "after the upgrade" };
        printer
            .line(format!("  later      V{:04}__{} ({}, {what})", migration.version, migration.name, migration.phase));
    }
    if plan.migrations.is_empty() {
        printer.line(format!("  schema     stays at version {:04}", plan.schema_from));
    }
    for component in &plan.components {
        let what = match &component.action {
            Action::Carried | Action::Kept => "stays".to_owned(),
            Action::Fetch(wanted) => format!("is fetched, {:.1} MB", wanted.size as f64 / 1e6),
        };
        printer.line(format!("  {:<10} {} {what}", component.name, component.version));
    }
    match plan.program.url.as_str() {
        "" => printer.line("  program    is kept on this machine"),
        _ => printer.line(format!("  program    is fetched, {:.1} MB", plan.program.size as f64 / 1e6)),
    }
    printer.line(format!("  disk       {:.0} MB are needed for the moment", plan.needs_bytes as f64 / 1e6));
    if plan.live {
        let last = last_pause.map(|seconds| format!(" ({seconds:.1} s the last time)")).unwrap_or_default();
        printer.line(format!("  running    {} task(s) run on; requests wait for a moment{last}", plan.running_tasks));
        printer.line("  pause      the rehearsal measures it before anything is changed");
    } else {
        printer.line("  running    Leoflow is stopped, and stays so");
    }
    printer.line("  backup     one is taken first");
    for warning in &plan.warnings {
        printer.warning(warning);
    }
    if !plan.notes.trim().is_empty() {
        printer.line(format!("\n{}\n", plan.notes.trim()));
    }
    Ok(())
}

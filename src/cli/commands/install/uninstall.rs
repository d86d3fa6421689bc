//! `leoflow uninstall`.

use crate::commands::lite::stop;
use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::human_size;
use clap::Args;
use leoflow_base::config;
use leoflow_base::home::journal::{self, Entry, Operation};
use leoflow_base::home::lock::{HomeLock, OperationLock};
use leoflow_base::home::{Home, LOST_AND_FOUND};
use leoflow_lifecycle::setup::uninstall::{self, Part, Request, UninstallPlan};
use leoflow_postgres::{Endpoint, location};
use leoflow_processes::supervisor;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  leoflow uninstall --dry-run        print what would be removed, with sizes\n  \
                  leoflow uninstall                  remove the programs, keep your data\n  \
                  leoflow uninstall --purge          remove everything, including the workspace")]
pub struct Uninstall {
    /// Also remove the datastore, configuration, logs, backups and the workspace
    #[arg(long)]
    pub purge: bool,
    /// Print what would be removed and change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Skip the confirmation prompt
    #[arg(long)]
    pub yes: bool,
    /// With --purge: keep the workspace
    #[arg(long, requires = "purge")]
    pub keep_workspace: bool,
    /// With --purge: also remove a workspace that existed before Leoflow
    #[arg(long, requires = "purge", conflicts_with = "keep_workspace")]
    pub include_workspace: bool,
    /// With --purge: also remove repositories with uncommitted or unpushed work
    #[arg(long, requires = "purge")]
    pub include_repositories: bool,
}

pub fn run(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let home = &context.home;
    if !home.exists() || is_empty(context)? {
        return print_not_installed(context, args);
    }
    if let Some(entry) = interrupted_purge(home)? {
        if uninstall::may_have_removed_something(&entry) {
            return finish_purge(context, args, entry);
        }
        if !args.dry_run {
            // The interrupted purge may have moved the workspace. `discard_purge` moves it back before the new plan.
            let _home_lock = HomeLock::take(home, "leoflow uninstall", None)?;
            context.recovery().discard_purge(entry)?;
        }
    }
    let request = Request {
        purge: args.purge,
        keep_workspace: args.keep_workspace,
        include_workspace: args.include_workspace,
        include_repositories: args.include_repositories,
        yes: args.yes,
    };
    let plan = uninstall::plan(&uninstall::gather(home, &request)?, &request)?;
    if args.dry_run {
        return show_dry_run(context, &plan);
    }
    show(context, &plan);
    if !confirm_plan(context, &plan, args)? {
        return Err(Error::failed(Context::DECLINED));
    }
    let _operation_lock = OperationLock::take(home, "leoflow uninstall")?;
    stop::stop_with_tasks(context)?;
    apply(context, &request, &plan)
}

fn interrupted_purge(home: &Home) -> Result<Option<Entry>, Error> {
    Ok(journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Purge))
}

/// Removes what the confirmed plan says. The caller holds the operation lock, and has stopped the instance.
fn apply(context: &Context<'_>, request: &Request, plan: &UninstallPlan) -> Result<u8, Error> {
    let home = &context.home;
    let lock = HomeLock::take(home, "leoflow uninstall", None)?;
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("failed to end the processes of an earlier run").cause(error).hint("leoflow doctor")
    })?;
    refuse_unfinished_operation(context, plan)?;
    // The prompt may have been open for long, so plan again; the result must be the same.
    let current_plan = uninstall::plan(&uninstall::gather(home, request)?, request)?;
    if !current_plan.removes_the_same(plan) {
        return Err(Error::refused("the plan has changed since it was shown; nothing was removed")
            .hint("run the same command again and review the plan"));
    }
    let data_location = location::recorded(home)?;
    match plan.purge {
        true => uninstall::purge(home, &current_plan, context.printer)?,
        false => uninstall::remove_programs(home, &current_plan, context.printer)?,
    }
    Endpoint::for_home(home).remove_socket_folder();
    drop(lock);
    print_result(context, plan)?;
    if let Some(data_location) = data_location
        .filter(|data_location| !context.printer.json && (!plan.purge || data_location.container.is_none()))
    {
        context.printer.line(format!("  your data stays in {}", data_location.display_text));
    }
    Ok(0)
}

/// Refuses while a restore, an upgrade or a move of the datastore is unfinished. A purge ignores an unfinished restore
/// or upgrade, because it removes all data.
fn refuse_unfinished_operation(context: &Context<'_>, plan: &UninstallPlan) -> Result<(), Error> {
    let other = journal::unfinished(&context.home)?.filter(|entry| {
        let is_change = matches!(entry.operation, Operation::Restore | Operation::RestoreUndo | Operation::Upgrade);
        // An interrupted move may have created a container, which a purge would leave behind.
        entry.operation == Operation::MoveDatastore || (is_change && !plan.purge)
    });
    match other {
        None => Ok(()),
        Some(entry) => Err(Error::refused(format!("a {} was interrupted and is not finished", entry.operation))
            .hint("finish it with leoflow lite start, then uninstall again")),
    }
}

/// Finishes an interrupted purge. The user confirmed its plan when it started, so there is no prompt.
fn finish_purge(context: &Context<'_>, args: &Uninstall, entry: Entry) -> Result<u8, Error> {
    let text = "a purge of this home was interrupted, and part of it is already removed";
    if !args.purge {
        return Err(Error::refused(text).hint("finish it with leoflow uninstall --purge"));
    }
    if args.dry_run {
        context.printer.note(format!("{text}; this command would finish it"));
        return print_empty_json(context, args).map(|()| 0);
    }
    let _lock = HomeLock::take(&context.home, "leoflow uninstall", None)?;
    uninstall::resume_purge(&context.home, entry, context.printer)?;
    context.printer.note("Finished the interrupted purge; nothing is left");
    print_empty_json(context, args).map(|()| 0)
}

/// True for an empty home, or the empty folders of a purge that was killed at its end.
fn is_empty(context: &Context<'_>) -> Result<bool, Error> {
    let names = |folder: &Path| -> Result<Vec<OsString>, Error> {
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, &error))?;
        Ok(entries.flatten().map(|entry| entry.file_name()).filter(|name| *name != *LOST_AND_FOUND).collect())
    };
    Ok(match names(context.home.root())?.as_slice() {
        [] => true,
        [only_entry] => *only_entry == *"run" && names(&context.home.run())?.is_empty(),
        _ => false,
    })
}

fn print_not_installed(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let root = context.home.root();
    if args.purge && !args.dry_run && context.home.exists() && !root.is_symlink() {
        // remove_dir removes only empty folders.
        let removed = match std::fs::remove_dir(context.home.run()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::remove_dir(root),
        };
        // A mount point stays.
        let removed = match removed {
            Err(error) if matches!(error.kind(), ErrorKind::ResourceBusy | ErrorKind::DirectoryNotEmpty) => Ok(()),
            other => other,
        };
        removed.map_err(|error| Error::io("remove", root, &error))?;
    }
    context.printer.note(format!("Leoflow is not installed in {}; nothing to do", root.display()));
    print_empty_json(context, args).map(|()| 0)
}

fn print_empty_json(context: &Context<'_>, args: &Uninstall) -> Result<(), Error> {
    if context.printer.json {
        context.printer.json(&json!({
            "purge": args.purge, "remove": [], "keep": [], "workspace": null, "repositories": [], "shell_files": [],
            "service": null,
        }))?;
    }
    Ok(())
}

/// Asks for a confirmation; a purge asks for the instance's name, and for the path of a workspace that existed before
/// Leoflow.
fn confirm_plan(context: &Context<'_>, plan: &UninstallPlan, args: &Uninstall) -> Result<bool, Error> {
    if !plan.purge {
        return context.confirm("Uninstall Leoflow?", args.yes.into());
    }
    let config = config::load(&context.home.config()).ok().flatten().map(|loaded| loaded.config);
    if !context.confirm_by_name("This cannot be undone.", config::instance_name(config.as_ref()), args.yes.into())? {
        return Ok(false);
    }
    match &plan.workspace {
        Some(workspace) if plan.must_type_workspace_path => {
            let path = workspace.path.display().to_string();
            context.confirm_by_name("The workspace existed before Leoflow.", &path, Confirmation::Ask)
        }
        _ => Ok(true),
    }
}

fn show_dry_run(context: &Context<'_>, plan: &UninstallPlan) -> Result<u8, Error> {
    if context.printer.json {
        context.printer.json(&as_json(plan))?;
    } else {
        show(context, plan);
        context.printer.note("Nothing was changed.");
    }
    Ok(0)
}

fn as_json(plan: &UninstallPlan) -> Value {
    let part = |part: &Part| json!({"what": part.what, "path": part.path, "size_bytes": part.bytes});
    json!({
        "purge": plan.purge,
        "remove": plan.remove.iter().map(part).collect::<Vec<_>>(),
        "keep": plan.keep.iter().map(part).collect::<Vec<_>>(),
        "workspace": plan.workspace.as_ref().map(|tree| json!({"path": tree.path, "size_bytes": tree.bytes})),
        "repositories": plan.repositories.iter().map(|repository| json!({"path": repository.path, "why": repository.why})).collect::<Vec<_>>(),
        "shell_files": plan.shell_files,
        "service": plan.service,
        "not_ours": plan.not_ours,
    })
}

fn show(context: &Context<'_>, plan: &UninstallPlan) {
    let printer = context.printer;
    let line = |verb: &str, part: &Part| printer.note(plan_line(verb, part.bytes, &part.path, part.what));
    // The line about everything else in the home covers the empty parts of a purge.
    let is_shown = |part: &&Part| !plan.purge || part.bytes != Some(0);
    plan.remove.iter().filter(is_shown).for_each(|part| line("remove", part));
    if let Some(workspace) = &plan.workspace {
        printer.note(plan_line("remove", Some(workspace.bytes), &workspace.path, "the workspace"));
    }
    if let Ok(Some(data_location)) = location::recorded(&context.home) {
        let is_removed = plan.purge && data_location.container.is_some();
        printer.note(format!(
            "{}              {}  (your data)",
            if is_removed { "remove" } else { "keep  " },
            data_location.display_text
        ));
    }
    if let Some(file) = &plan.service {
        printer.note(format!("remove  the service {}", file.display()));
    }
    for file in &plan.shell_files {
        printer.note(format!("remove  our lines in {}", file.display()));
    }
    plan.keep.iter().for_each(|part| line("keep  ", part));
    for path in &plan.not_ours {
        printer.note(format!("keep                {}  (not created by Leoflow)", path.display()));
    }
    if plan.purge && plan.not_ours.is_empty() {
        printer.note(format!("remove  everything else in {}", plan.home.display()));
    }
    for repository in &plan.repositories {
        printer.warning(format!("work that exists only here: {}: {}", repository.path.display(), repository.why));
    }
}

/// A line of the plan. Omits an unknown size, and a size of 0.
fn plan_line(verb: &str, bytes: Option<u64>, path: &Path, what: &str) -> String {
    let size = bytes.filter(|bytes| *bytes > 0).map(human_size).unwrap_or_default();
    format!("{verb}  {size:>10}  {}  ({what})", path.display())
}

fn print_result(context: &Context<'_>, plan: &UninstallPlan) -> Result<u8, Error> {
    if context.printer.json {
        context.printer.json(&as_json(plan))?;
        return Ok(0);
    }
    if plan.purge {
        context.printer.line("Leoflow and its data were removed");
        for path in &plan.not_ours {
            context.printer.line(format!("  kept, because Leoflow did not create it: {}", path.display()));
        }
        let is_in_the_way = |path: &&PathBuf| **path != plan.home && !path.ends_with(LOST_AND_FOUND);
        if plan.not_ours.iter().filter(is_in_the_way).any(|path| path.starts_with(&plan.home)) {
            let home = plan.home.display();
            context
                .printer
                .line(format!("  to set up Leoflow in {home} again, move the remaining files elsewhere first"));
        }
    } else {
        context.printer.line(format!("Leoflow was uninstalled; your data stays in {}", context.home.root().display()));
        if let Some(workspace) =
            config::load(&context.home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace)
        {
            context.printer.line(format!("  and in {}", workspace.display()));
        }
        context
            .printer
            .line("  a later install uses it; to remove it, delete these folders, or install Leoflow again and run");
        context.printer.advice("  `leoflow uninstall --purge`");
    }
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_plan_omits_an_unknown_size_and_zero() {
        let line = |bytes| plan_line("remove", bytes, Path::new("/h/bin"), "programs");
        assert_eq!(line(Some(36_864)), "remove       36 kB  /h/bin  (programs)");
        for bytes in [Some(0), None] {
            assert_eq!(line(bytes), "remove              /h/bin  (programs)");
        }
    }
}

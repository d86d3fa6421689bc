//! `leoflow uninstall`.

use crate::context::{Confirmation, Context};
use crate::error::Error;
use crate::terminal::printer::{Printer, human_size};
use clap::Args;
use leoflow_base::config;
use leoflow_base::home::journal::Entry;
use leoflow_base::home::lock::{HomeLock, OperationLock};
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::home::{Home, LOST_AND_FOUND};
use leoflow_lifecycle::operation::instance;
use leoflow_lifecycle::setup::uninstall::{self, HomeState, Part, Repository, Request, UninstallPlan};
use leoflow_postgres::location::{self, Location};
use serde_json::{Value, json};
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

impl Uninstall {
    fn request(&self) -> Request {
        let &Self { purge, keep_workspace, include_workspace, include_repositories, yes, .. } = self;
        Request { purge, keep_workspace, include_workspace, include_repositories, yes }
    }
}

pub fn run(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let (home, printer) = (&context.home, context.printer);
    match uninstall::find(home)? {
        HomeState::Nothing => {
            if args.purge && !args.dry_run {
                uninstall::remove_empty(home)?;
            }
            let text = format!("Leoflow is not installed in {}; nothing to do", home.root().display());
            return print_nothing_left(printer, args, &text);
        }
        HomeState::HalfPurged(entry) => return finish_purge(context, args, entry),
        HomeState::PurgeBegun(entry) if !args.dry_run => {
            // The interrupted purge may have moved the workspace. `discard_purge` moves it back before the new plan.
            let _home_lock = HomeLock::take(home, COMMAND, None)?;
            context.operation().discard_purge(entry)?;
        }
        HomeState::PurgeBegun(_) | HomeState::Instance => {}
    }
    let request = args.request();
    let plan = uninstall::plan_of(home, &request)?;
    if args.dry_run {
        return printer.show(&as_json(&plan), |printer| {
            print_plan(context, &plan);
            printer.note("Nothing was changed.");
        });
    }
    print_plan(context, &plan);
    confirm_plan(context, &plan, args.yes.into())?;
    let _operation_lock = OperationLock::take(home, COMMAND)?;
    instance::stop(&context.operation(), &mut None)?;
    let data_location = uninstall::apply(home, &request, &plan, &without_progress_in_json(printer))?;
    printer.show(&as_json(&plan), |printer| print_removed(printer, home, &plan, data_location))
}

const COMMAND: &str = "leoflow uninstall";

/// Finishes an interrupted purge. The user confirmed its plan when it started, so there is no prompt.
fn finish_purge(context: &Context<'_>, args: &Uninstall, entry: Entry) -> Result<u8, Error> {
    let text = "a purge of this home was interrupted, and part of it is already removed";
    if !args.purge {
        return Err(Error::refused(text).hint("finish it with leoflow uninstall --purge"));
    }
    if args.dry_run {
        return print_nothing_left(context.printer, args, &format!("{text}; this command would finish it"));
    }
    let _lock = HomeLock::take(&context.home, COMMAND, None)?;
    uninstall::resume_purge(&context.home, entry, &without_progress_in_json(context.printer))?;
    print_nothing_left(context.printer, args, "Finished the interrupted purge; nothing is left")
}

fn without_progress_in_json(printer: &Printer) -> impl Fn(Progress) + Sync {
    |progress| {
        if !printer.json || !matches!(progress, Progress::Started(_)) {
            printer.report(progress);
        }
    }
}

fn print_nothing_left(printer: &Printer, args: &Uninstall, text: &str) -> Result<u8, Error> {
    printer.note(text);
    let empty = json!({
        "purge": args.purge, "remove": [], "keep": [], "workspace": null, "repositories": [], "shell_files": [],
        "service": null,
    });
    printer.show(&empty, |_| {})
}

/// Asks for a confirmation; a purge asks for the instance's name, and for the path of a workspace that existed before
/// Leoflow.
fn confirm_plan(context: &Context<'_>, plan: &UninstallPlan, confirmation: Confirmation) -> Result<(), Error> {
    if !plan.purge {
        return context.require_confirmation("Uninstall Leoflow?", confirmation);
    }
    let config = config::load(&context.home.config()).ok().flatten().map(|loaded| loaded.config);
    context.require_name("This cannot be undone.", config::instance_name(config.as_ref()), confirmation)?;
    match &plan.workspace {
        Some(workspace) if plan.must_type_workspace_path => {
            let path = workspace.path.display().to_string();
            context.require_name("The workspace existed before Leoflow.", &path, Confirmation::Ask)
        }
        _ => Ok(()),
    }
}

fn as_json(plan: &UninstallPlan) -> Value {
    let part = |part: &Part| json!({"what": part.what, "path": part.path, "size_bytes": part.bytes});
    let repository = |repository: &Repository| json!({"path": repository.path, "why": repository.why});
    json!({
        "purge": plan.purge,
        "remove": plan.remove.iter().map(part).collect::<Vec<_>>(),
        "keep": plan.keep.iter().map(part).collect::<Vec<_>>(),
        "workspace": plan.workspace.as_ref().map(|tree| json!({"path": tree.path, "size_bytes": tree.bytes})),
        "repositories": plan.repositories.iter().map(repository).collect::<Vec<_>>(),
        "shell_files": plan.shell_files,
        "service": plan.service,
        "not_ours": plan.not_ours,
    })
}

fn print_plan(context: &Context<'_>, plan: &UninstallPlan) {
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

fn print_removed(printer: &Printer, home: &Home, plan: &UninstallPlan, data_location: Option<Location>) {
    if plan.purge {
        printer.line("Leoflow and its data were removed");
        for path in &plan.not_ours {
            printer.line(format!("  kept, because Leoflow did not create it: {}", path.display()));
        }
        let is_in_the_way = |path: &PathBuf| *path != plan.home && !path.ends_with(LOST_AND_FOUND);
        if plan.not_ours.iter().any(|path| is_in_the_way(path) && path.starts_with(&plan.home)) {
            let home = plan.home.display();
            printer.line(format!("  to set up Leoflow in {home} again, move the remaining files elsewhere first"));
        }
    } else {
        printer.line(format!("Leoflow was uninstalled; your data stays in {}", home.root().display()));
        if let Some(workspace) = config::load(&home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace)
        {
            printer.line(format!("  and in {}", workspace.display()));
        }
        printer.line("  a later install uses it; to remove it, delete these folders, or install Leoflow again and run");
        printer.advice("  `leoflow uninstall --purge`");
    }
    if let Some(location) = data_location.filter(|location| !plan.purge || location.container.is_none()) {
        printer.line(format!("  your data stays in {}", location.display_text));
    }
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

//! `leoflow uninstall`.

use super::context::Context;
use super::lite_control;
use crate::cli::args::Uninstall;
use crate::config;
use crate::error::Error;
use crate::home::journal::{self, Operation};
use crate::home::lock::{HomeLock, OperationLock};
use crate::postgres::Endpoint;
use crate::setup::uninstall::{self, Part, Plan, Repository, Wishes};
use crate::supervisor;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

pub fn run(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let home = &context.home;
    if nothing_there(context)? {
        context.printer.line(format!("Leoflow is not in {}; nothing to do", home.root().display()));
        return Ok(0);
    }
    if let Some(entry) = journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Purge) {
        if args.dry_run {
            context.printer.line("A purge was interrupted; this would finish it.");
            return Ok(0);
        }
        let _lock = HomeLock::take(home, "leoflow uninstall", None)?;
        uninstall::resume_purge(home, entry)?;
        context.printer.line("The purge that was interrupted is finished; nothing is left");
        return Ok(0);
    }
    let wishes = Wishes {
        purge: args.purge,
        keep_workspace: args.keep_workspace,
        include_workspace: args.include_workspace,
        include_repositories: args.include_repositories,
        yes: args.yes,
    };
    let plan = uninstall::plan(&uninstall::gather(home, args.purge)?, &wishes)?;
    if args.dry_run {
        return show_dry_run(context, &plan);
    }
    show(context, &plan);
    if !asked(context, &plan, args)? {
        return Err(Error::failed("nothing was removed"));
    }
    let _alone = OperationLock::take(home, "leoflow uninstall")?;
    lite_control::stop_whole(context)?;
    let lock = HomeLock::take(home, "leoflow uninstall", None)?;
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    // While nobody asked, somebody may have begun something else.
    if let Some(entry) = journal::unfinished(home)?.filter(|entry| entry.operation != Operation::Setup) {
        return Err(Error::refused(format!("a {} was interrupted and is not finished", entry.operation))
            .hint("leoflow lite start finishes it; then uninstall again"));
    }
    if plan.purge {
        uninstall::purge(home, &plan)?;
    } else {
        uninstall::remove_programs(home, &plan)?;
    }
    Endpoint::for_home(home).tidy();
    drop(lock);
    tell(context, &plan)
}

/// An empty home is what an uninstall leaves that was killed at its very end.
fn nothing_there(context: &Context<'_>) -> Result<bool, Error> {
    let root = context.home.root();
    if !context.home.exists() {
        return Ok(true);
    }
    let names = |folder: &Path| -> Result<Vec<OsString>, Error> {
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, &error))?;
        Ok(entries.flatten().map(|entry| entry.file_name()).collect())
    };
    let run = context.home.run();
    let at_the_end = match names(root)?.as_slice() {
        [] => true,
        [only] => *only == *"run" && names(&run)?.is_empty(),
        _ => false,
    };
    if root.is_symlink() || !at_the_end {
        return Ok(false);
    }
    // Only empty folders go this way.
    let removed = match std::fs::remove_dir(&run) {
        Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
        _ => std::fs::remove_dir(root),
    };
    removed.map(|()| true).map_err(|error| Error::io("remove", root, &error))
}

fn asked(context: &Context<'_>, plan: &Plan, args: &Uninstall) -> Result<bool, Error> {
    if !plan.purge {
        return context.confirm("Remove this?", args.yes);
    }
    let name = config::load(&context.home.config()).ok().flatten().and_then(|loaded| loaded.config.instance_name);
    if !context.confirm_by_name("This cannot be undone.", &name.unwrap_or_else(|| "leoflow".to_owned()), args.yes)? {
        return Ok(false);
    }
    match &plan.workspace {
        Some(workspace) if plan.type_workspace => {
            let path = workspace.path.display().to_string();
            context.confirm_by_name("The workspace was there before Leoflow.", &path, false)
        }
        _ => Ok(true),
    }
}

fn show_dry_run(context: &Context<'_>, plan: &Plan) -> Result<u8, Error> {
    if context.printer.json {
        context.printer.json(&as_json(plan))?;
    } else {
        show(context, plan);
        context.printer.note("Nothing was changed.");
    }
    Ok(0)
}

fn as_json(plan: &Plan) -> Value {
    let part = |part: &Part| json!({"what": part.what, "path": part.path, "size_bytes": part.bytes});
    json!({
        "purge": plan.purge,
        "remove": plan.remove.iter().map(part).collect::<Vec<_>>(),
        "keep": plan.keep.iter().map(part).collect::<Vec<_>>(),
        "workspace": plan.workspace.as_ref().map(|tree| json!({"path": tree.path, "size_bytes": tree.bytes})),
        "shell_files": plan.shell_files,
    })
}

fn show(context: &Context<'_>, plan: &Plan) {
    let printer = context.printer;
    let line = |word: &str, part: &Part| {
        printer.note(format!("{word}  {:>10}  {}  ({})", size(part.bytes), part.path.display(), part.what));
    };
    plan.remove.iter().for_each(|part| line("remove", part));
    if let Some(workspace) = &plan.workspace {
        printer.note(format!("remove  {:>10}  {}  (the workspace)", size(workspace.bytes), workspace.path.display()));
    }
    for file in &plan.shell_files {
        printer.note(format!("remove  our lines in {}", file.display()));
    }
    plan.keep.iter().for_each(|part| line("keep  ", part));
    if plan.purge {
        printer.note(format!("and all else in {}", context.home.root().display()));
    }
    let repositories: Vec<&Repository> = plan.workspace.iter().flat_map(|workspace| &workspace.repositories).collect();
    for repository in repositories {
        printer.warning(format!("only here: {}: {}", repository.path.display(), repository.why));
    }
}

fn size(bytes: u64) -> String {
    match bytes {
        0..10_000 => format!("{bytes} B"),
        10_000..10_000_000 => format!("{} kB", bytes / 1000),
        _ => format!("{} MB", bytes / 1_000_000),
    }
}

fn tell(context: &Context<'_>, plan: &Plan) -> Result<u8, Error> {
    if context.printer.json {
        context.printer.json(&as_json(plan))?;
        return Ok(0);
    }
    if plan.purge {
        context.printer.line("Leoflow and all that it had are gone");
    } else {
        context.printer.line(format!("Leoflow is uninstalled; your data stays in {}", context.home.root().display()));
        if let Some(workspace) = config::load(&context.home.config())?.and_then(|loaded| loaded.config.workspace) {
            context.printer.line(format!("  and in {}", workspace.display()));
        }
        context.printer.line("  a later install goes on from there; `leoflow uninstall --purge` removes it");
    }
    Ok(0)
}

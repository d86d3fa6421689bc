//! `leoflow uninstall`.

use crate::cli::args::Uninstall;
use crate::cli::printer::in_words;
use crate::commands::context::Context;
use crate::commands::lite::stop;
use crate::config;
use crate::error::Error;
use crate::home::journal::{self, Entry, Operation};
use crate::home::lock::{HomeLock, OperationLock};
use crate::postgres::{Endpoint, place};
use crate::setup::uninstall::{self, Part, Plan, Wishes};
use crate::supervisor;
use serde_json::{Value, json};
use std::ffi::OsString;
use std::path::Path;

pub fn run(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let home = &context.home;
    if !home.exists() || is_empty(context)? {
        return tell_empty(context, args);
    }
    let interrupted = journal::unfinished(home)?.filter(|entry| entry.operation == Operation::Purge);
    match interrupted {
        Some(entry) if uninstall::has_begun(&entry) => return finish_purge(context, args, entry),
        // Its workspace may be set aside: the plan is made of what is in its place.
        Some(entry) if !args.dry_run => {
            let _held = HomeLock::take(home, "leoflow uninstall", None)?;
            context.recovery().take_back_purge(entry)?;
        }
        _ => {}
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
    stop::stop_whole(context)?;
    let lock = HomeLock::take(home, "leoflow uninstall", None)?;
    supervisor::end_leftovers(home).map_err(|error| {
        Error::failed("what an earlier run left cannot be ended").cause(error).hint("leoflow doctor")
    })?;
    refuse_other_work(context, &plan)?;
    // The question may have been open for long: what was shown has to be what is there.
    let again = uninstall::plan(&uninstall::gather(home, args.purge)?, &wishes)?;
    if !again.removes_the_same(&plan) {
        return Err(Error::refused("something has changed since this was shown; nothing was removed")
            .hint("run the same command again, and look again"));
    }
    let place = place::recorded(home)?;
    match plan.purge {
        true => uninstall::purge(home, &again, context.printer)?,
        false => uninstall::remove_programs(home, &again, context.printer)?,
    }
    Endpoint::for_home(home).tidy();
    drop(lock);
    tell(context, &plan)?;
    if let Some(place) = place.filter(|place| !context.printer.json && (!plan.purge || place.container.is_none())) {
        context.printer.line(format!("  your data stays in {}", place.shown));
    }
    Ok(0)
}

/// What an earlier command left half done comes first; only a purge makes it meaningless.
fn refuse_other_work(context: &Context<'_>, plan: &Plan) -> Result<(), Error> {
    let other = journal::unfinished(&context.home)?.filter(|entry| {
        let is_change = matches!(entry.operation, Operation::Restore | Operation::RestoreUndo | Operation::Upgrade);
        // One that was interrupted may have made a container.
        entry.operation == Operation::MoveDatastore || (is_change && !plan.purge)
    });
    match other {
        None => Ok(()),
        Some(entry) => Err(Error::refused(format!("a {} was interrupted and is not finished", entry.operation))
            .hint("leoflow lite start finishes it; then uninstall again")),
    }
}

/// It was decided when it began; it only has to be the same command.
fn finish_purge(context: &Context<'_>, args: &Uninstall, entry: Entry) -> Result<u8, Error> {
    let text = "a purge of this home was interrupted, and part of it is gone already";
    if !args.purge {
        return Err(Error::refused(text).hint("finish it: leoflow uninstall --purge"));
    }
    if args.dry_run {
        context.printer.note(format!("{text}; this would finish it."));
        return tell_json_of_nothing(context, args).map(|()| 0);
    }
    let _lock = HomeLock::take(&context.home, "leoflow uninstall", None)?;
    uninstall::resume_purge(&context.home, entry, context.printer)?;
    context.printer.note("The purge that was interrupted is finished; nothing is left");
    tell_json_of_nothing(context, args).map(|()| 0)
}

/// Nothing, or the empty folders that a purge leaves that was killed at its very end.
fn is_empty(context: &Context<'_>) -> Result<bool, Error> {
    let names = |folder: &Path| -> Result<Vec<OsString>, Error> {
        let entries = std::fs::read_dir(folder).map_err(|error| Error::io("read", folder, &error))?;
        Ok(entries.flatten().map(|entry| entry.file_name()).collect())
    };
    Ok(match names(context.home.root())?.as_slice() {
        [] => true,
        [only] => *only == *"run" && names(&context.home.run())?.is_empty(),
        _ => false,
    })
}

fn tell_empty(context: &Context<'_>, args: &Uninstall) -> Result<u8, Error> {
    let root = context.home.root();
    if args.purge && !args.dry_run && context.home.exists() && !root.is_symlink() {
        // Only empty folders go this way.
        let removed = match std::fs::remove_dir(context.home.run()) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => Err(error),
            _ => std::fs::remove_dir(root),
        };
        removed.map_err(|error| Error::io("remove", root, &error))?;
    }
    context.printer.note(format!("Leoflow is not in {}; nothing to do", root.display()));
    tell_json_of_nothing(context, args).map(|()| 0)
}

fn tell_json_of_nothing(context: &Context<'_>, args: &Uninstall) -> Result<(), Error> {
    if context.printer.json {
        context.printer.json(&json!({
            "purge": args.purge, "remove": [], "keep": [], "workspace": null, "repositories": [], "shell_files": [],
            "service": null,
        }))?;
    }
    Ok(())
}

fn asked(context: &Context<'_>, plan: &Plan, args: &Uninstall) -> Result<bool, Error> {
    if !plan.purge {
        return context.confirm("Remove this?", args.yes);
    }
    let config = config::load(&context.home.config()).ok().flatten().map(|loaded| loaded.config);
    if !context.confirm_by_name("This cannot be undone.", config::instance_name(config.as_ref()), args.yes)? {
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
        "repositories": plan.repositories.iter().map(|one| json!({"path": one.path, "why": one.why})).collect::<Vec<_>>(),
        "shell_files": plan.shell_files,
        "service": plan.service,
        "not_ours": plan.not_ours,
    })
}

fn show(context: &Context<'_>, plan: &Plan) {
    let printer = context.printer;
    let line = |word: &str, part: &Part| {
        printer.note(format!("{word}  {:>10}  {}  ({})", in_words(part.bytes), part.path.display(), part.what));
    };
    plan.remove.iter().for_each(|part| line("remove", part));
    if let Some(workspace) = &plan.workspace {
        printer.note(format!(
            "remove  {:>10}  {}  (the workspace)",
            in_words(workspace.bytes),
            workspace.path.display()
        ));
    }
    if let Ok(Some(place)) = place::recorded(&context.home) {
        let goes = plan.purge && place.container.is_some();
        printer.note(format!("{}              {}  (your data)", if goes { "remove" } else { "keep  " }, place.shown));
    }
    if let Some(file) = &plan.service {
        printer.note(format!("remove  the service {}", file.display()));
    }
    for file in &plan.shell_files {
        printer.note(format!("remove  our lines in {}", file.display()));
    }
    plan.keep.iter().for_each(|part| line("keep  ", part));
    for path in &plan.not_ours {
        printer.note(format!("keep                {}  (Leoflow has not made it)", path.display()));
    }
    if plan.purge && plan.not_ours.is_empty() {
        printer.note(format!("and all else in {}", plan.home.display()));
    }
    for repository in &plan.repositories {
        printer.warning(format!("only here: {}: {}", repository.path.display(), repository.why));
    }
}

fn tell(context: &Context<'_>, plan: &Plan) -> Result<u8, Error> {
    if context.printer.json {
        context.printer.json(&as_json(plan))?;
        return Ok(0);
    }
    if plan.purge {
        context.printer.line("Leoflow and all that it had are gone");
        for path in &plan.not_ours {
            context.printer.line(format!("  left, because Leoflow has not made it: {}", path.display()));
        }
        if plan.not_ours.iter().any(|path| path.starts_with(&plan.home)) {
            let home = plan.home.display();
            context
                .printer
                .line(format!("  to set Leoflow up in {home} again, move what is left there elsewhere first"));
        }
    } else {
        context.printer.line(format!("Leoflow is uninstalled; your data stays in {}", context.home.root().display()));
        if let Some(workspace) =
            config::load(&context.home.config()).ok().flatten().and_then(|loaded| loaded.config.workspace)
        {
            context.printer.line(format!("  and in {}", workspace.display()));
        }
        context.printer.line("  a later install goes on from there; `leoflow uninstall --purge` removes it");
    }
    Ok(0)
}

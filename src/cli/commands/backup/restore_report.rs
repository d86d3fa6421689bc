//! The messages of a restore.

use super::restore_args::NextStart;
use crate::context::Context;
use crate::terminal::printer::counted;
use leoflow_base::sys::shell;
use leoflow_lifecycle::backup::restore::restore_dir::RetainedState;
use leoflow_lifecycle::operation::restore::Overview;
use leoflow_lifecycle::operation::summary::list_names;
use std::path::Path;

/// Prints what the restore replaces.
pub fn print_overview(context: &Context<'_>, overview: &Overview, next_start: NextStart) {
    let printer = context.printer;
    let note = |text: String| printer.note(text);
    let format_time = |time: &str| printer.time(Some(time));
    let (home, workspace) = (context.home.root().display(), overview.workspace.display());
    note(format!("Backup:   {}", overview.backup.describe(&format_time)));
    print_running(context, &overview.backup.running_tries);
    if let Some(lost_config) = &overview.lost_config {
        printer.warning(format!("the current state cannot be read completely: {lost_config}"));
        if context.home.config().exists() {
            note(format!("The current config.yaml is kept in {}.", context.home.postgres().display()));
        }
    }
    let replaces = || {
        note(format!("The backup replaces the database, config.yaml and the task logs in {home}, and {workspace}."));
    };
    match (&overview.unreadable, &overview.current) {
        (Some(reason), _) => {
            printer.warning(format!("the current data cannot be read: {reason}"));
            let kept_path = context.home.postgres().join("data.damaged-…");
            note(format!("The unreadable datastore is kept in {}.", kept_path.display()));
            replaces();
        }
        (None, Some(current)) => {
            if overview.lost_config.is_none() {
                note(format!("Current:  {}", current.describe(&format_time)));
            }
            replaces();
            note("The replaced state is kept for `leoflow lite restore --undo`.".to_owned());
            if let Some(names) = list_names(&current.left_behind) {
                note(format!("Not restored, because backups do not contain them: {names}."));
            }
            if let Some(earlier) = &overview.earlier_restore {
                note(format!(
                    "The restore of {} can no longer be undone afterwards; the state it replaced is removed: {}.",
                    format_time(&earlier.exchanged_at),
                    earlier.replaced
                ));
            }
        }
        (None, None) => note(format!("The backup is restored into {home} and {workspace}.")),
    }
    print_trust(context, &overview.workspace, next_start);
    if let Some(names) = list_names(&overview.newer_files) {
        note(format!(
            "Replaced too, because they are not in the backup or changed since: {} in {workspace}: {names}.",
            counted(overview.newer_files.len(), "file"),
        ));
    }
    print_left_out(context, &overview.left_out);
}

/// Prints what an undo changes. `changes` are those of row counts since the restore.
pub fn print_changes(context: &Context<'_>, retained: &RetainedState, changes: &[String]) {
    let printer = context.printer;
    let since = printer.time(Some(&retained.exchanged_at));
    printer.note(format!("Current state, since {since}:  {}", retained.restored));
    printer.note(format!("Restored by the undo:  {}", retained.replaced));
    if changes.is_empty() {
        printer.note("No row counts have changed since then.");
    } else {
        printer.note(format!("Changes since then are undone: {}.", changes.join(", ")));
    }
    printer.note("Changed files in the workspace are replaced too. Everything is kept: undo again to bring it back.");
}

/// Warns that a backup's DAG files run as the user once Leoflow starts: the restore checks only the dump and the paths.
pub fn print_trust(context: &Context<'_>, workspace: &Path, next_start: NextStart) {
    context.printer.note(trust_text(workspace, next_start));
}

fn trust_text(workspace: &Path, next_start: NextStart) -> String {
    let (start, check) = match next_start {
        NextStart::ByRestore => ("when Leoflow starts again", "add --no-start and read its DAG files first".to_owned()),
        NextStart::ByUser => {
            ("once you start Leoflow", format!("read the files in {} before you start it", workspace.display()))
        }
    };
    format!(
        "The backup's DAG files run as you {start}, and its admin password and encryption key become yours. Restore \
         only a backup that you trust, or {check}."
    )
}

/// Says what happens to the tries that ran when the backup was made.
pub fn print_running(context: &Context<'_>, running: &[String]) {
    if running.is_empty() {
        return;
    }
    let names: Vec<String> = running.iter().take(5).map(|name| name.escape_debug().to_string()).collect();
    let others = if running.len() > names.len() { ", …" } else { "" };
    let tries = counted(running.len(), "running task");
    context.printer.warning(format!(
        "the backup has {tries}: {}{others}. Once Leoflow starts, they count as failed, or are retried by their `retries`",
        names.join("; ")
    ));
}

/// Warns that the schedules of a backup start runs in a new home, beside those of the instance that it is of.
pub fn print_schedules(context: &Context<'_>, dag_ids: &[String]) {
    if let Some(text) = schedules_text(dag_ids) {
        context.printer.warning(text);
    }
}

fn schedules_text(dag_ids: &[String]) -> Option<String> {
    let names = list_names(dag_ids)?;
    let (are, run, them) = if dag_ids.len() == 1 { ("is", "runs", "it") } else { ("are", "run", "them") };
    let dag_id = shell::word(dag_ids.first()?);
    Some(format!(
        "{} with a schedule {are} active in the backup ({names}) and {run} here too once Leoflow starts. Stop the other \
         instance first, or pause {them} right after the start: leoflow dags pause {dag_id}",
        counted(dag_ids.len(), "DAG")
    ))
}

/// Names the settings of the backup that a home without settings does not take over.
pub fn print_left_out(context: &Context<'_>, names: &[&str]) {
    if names.is_empty() {
        return;
    }
    let is_encryption = |name: &&str| ["backup.recipients", "backup.passphrase"].contains(name);
    let consequence = if names.iter().any(is_encryption) { "; until then, backups are not encrypted" } else { "" };
    context.printer.warning(format!(
        "not taken over from the backup: {}; set what you want with `leoflow config set`, or restore with \
         --take-over-settings{consequence}",
        names.join(", ")
    ));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_the_schedules_that_a_new_home_runs_too() {
        let text = |dag_ids: &[&str]| schedules_text(&dag_ids.iter().map(|&id| id.to_owned()).collect::<Vec<_>>());
        assert_eq!(text(&[]), None);
        assert_eq!(
            text(&["orders"]).unwrap(),
            "1 DAG with a schedule is active in the backup (orders) and runs here too once Leoflow starts. Stop the \
             other instance first, or pause it right after the start: leoflow dags pause orders"
        );
        let two = text(&["orders", "sales"]).unwrap();
        assert!(two.starts_with("2 DAGs with a schedule are active in the backup (orders, sales)"), "{two}");
    }

    #[test]
    fn no_start_is_offered_only_where_the_restore_starts_it() {
        let text = |next_start| trust_text(Path::new("/w"), next_start);
        assert!(text(NextStart::ByRestore).ends_with("or add --no-start and read its DAG files first."));
        let by_user = text(NextStart::ByUser);
        assert!(
            by_user.contains("once you start Leoflow")
                && by_user.ends_with("read the files in /w before you start it.")
        );
    }
}

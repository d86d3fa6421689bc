//! The messages of a restore.

use super::current_state::MovedConfig;
use super::restore_args::NextStart;
use super::restore_target::Target;
use super::state_summary::{self, Summary};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_base::sys::shell;
use leoflow_lifecycle::backup::restore::restore_dir;
use std::path::Path;

/// Prints what the restore replaces. `before` is the current state; `None` in an empty home.
pub fn print_plan(
    context: &Context<'_>,
    target: &Target,
    backup: &Summary,
    unreadable: Option<&Error>,
    before: Option<&Summary>,
) {
    let note = |text: String| context.printer.note(text);
    let (home, workspace) = (context.home.root().display(), target.workspace.display());
    note(format!("Backup:   {}", state_summary::describe(context.printer, backup)));
    print_running(context, &backup.running_tries);
    if let Some(error) = &target.lost_config {
        context.printer.warning(format!("the current state cannot be read completely: {}", error.in_one_line()));
        if context.home.config().exists() {
            note(format!("The current config.yaml is kept in {}.", context.home.postgres().display()));
        }
    }
    match (unreadable, before) {
        (Some(error), _) => {
            context.printer.warning(format!("the current data cannot be read: {}", error.in_one_line()));
            let kept_path = context.home.postgres().join("data.damaged-…");
            note(format!("The unreadable datastore is kept in {}.", kept_path.display()));
            note(format!(
                "The backup replaces the database, config.yaml and the task logs in {home}, and {workspace}."
            ));
        }
        (None, Some(before)) => {
            if target.lost_config.is_none() {
                note(format!("Current:  {}", state_summary::describe(context.printer, before)));
            }
            note(format!(
                "The backup replaces the database, config.yaml and the task logs in {home}, and {workspace}."
            ));
            note("The replaced state is kept for `leoflow lite restore --undo`.".to_owned());
            if let Some(names) = state_summary::list_names(&before.left_behind) {
                note(format!("Not restored, because backups do not contain them: {names}."));
            }
            // A folder that cannot be read is an error once the restore writes into it.
            let older = restore_dir::retained(&context.home).ok().flatten();
            if let Some((_, older_state)) = older.filter(|(_, older_state)| older_state.unreadable.is_none()) {
                note(format!(
                    "The restore of {} can no longer be undone afterwards; the state it replaced is removed: {}.",
                    context.printer.time(Some(&older_state.exchanged_at)),
                    older_state.replaced
                ));
            }
        }
        (None, None) => note(format!("The backup is restored into {home} and {workspace}.")),
    }
}

/// Warns that a backup's DAG files run as the user once Leoflow starts: the restore checks only the dump and the paths.
pub fn print_trust(context: &Context<'_>, target: &Target, next_start: NextStart) {
    context.printer.note(trust_text(&target.workspace, next_start));
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
    let names = state_summary::list_names(dag_ids)?;
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

/// Lists workspace files that are replaced although the backup does not contain their current content.
pub fn print_newer_files(context: &Context<'_>, target: &Target, newer: &[String]) {
    let Some(names) = state_summary::list_names(newer) else { return };
    context.printer.note(format!(
        "Replaced too, because they are not in the backup or changed since: {} in {}: {names}.",
        counted(newer.len(), "file"),
        target.workspace.display(),
    ));
}

/// Keeps the unreadable config.yaml, if there was one, and prints where.
pub fn print_kept_config(context: &Context<'_>, moved_config: MovedConfig) {
    if let Some(path) = moved_config.keep() {
        context.printer.note(format!("The unreadable config.yaml is kept: {}", path.display()));
    }
}

/// Prints where the unreadable datastore, the previous workspace and the task logs are kept.
pub fn print_kept_datastore(context: &Context<'_>) {
    context.printer.note(format!(
        "The unreadable datastore is kept in {}, the previous workspace and task logs in {}.",
        context.home.postgres().display(),
        context.home.restore().display()
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

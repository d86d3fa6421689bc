//! The messages of a restore.

use super::current_state::MovedConfig;
use super::restore_target::Target;
use super::state_summary::{self, Summary};
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_lifecycle::backup::restore::restore_dir;

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
    note(format!("Backup:   {}", state_summary::describe(backup)));
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
                note(format!("Current:  {}", state_summary::describe(before)));
            }
            note(format!(
                "The backup replaces the database, config.yaml and the task logs in {home}, and {workspace}."
            ));
            note("The replaced state is kept for `leoflow lite restore --undo`.".to_owned());
            if let Some(names) = state_summary::list_names(&before.left_behind) {
                note(format!("Not restored, because backups do not contain them: {names}."));
            }
            let older =
                restore_dir::retained(&context.home).filter(|(_, older_state)| older_state.unreadable.is_none());
            if let Some((_, older_state)) = older {
                note(format!(
                    "The restore of {} can no longer be undone afterwards; the state it replaced is removed: {}.",
                    older_state.exchanged_at, older_state.replaced
                ));
            }
        }
        (None, None) => note(format!("The backup is restored into {home} and {workspace}.")),
    }
    print_trust(context, target, backup);
}

/// Warns that a backup's DAG files run as the user once Leoflow starts: the restore checks only the dump and the paths. In
/// an empty home, also warns that the backup's schedules become active beside those of the instance that it is from.
pub fn print_trust(context: &Context<'_>, target: &Target, backup: &Summary) {
    if !target.is_set_up && backup.rows.get("dag").is_some_and(|count| *count > 0) {
        context.printer.warning(
            "the schedules that are active in the backup start runs here too, as soon as Leoflow starts: stop the \
             instance that the backup is of, or pause its DAGs before you make the backup",
        );
    }
    context.printer.note(
        "Its DAG files run as you when Leoflow starts; its admin password and encryption key become yours. Restore \
         only a backup that you trust, or read its DAG files first: --no-start",
    );
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

//! `leoflow lite restore` and `leoflow lite restore --undo`.

use super::restore_args::{Decryption, Restore};
use super::restore_report::{
    print_changes, print_left_out, print_overview, print_running, print_schedules, print_trust,
};
use crate::commands::install::creation;
use crate::commands::lite::restart;
use crate::context::Context;
use crate::error::Error;
use crate::terminal::printer::counted;
use leoflow_base::config::{self, CopyAddress};
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{env_vars, terminal};
use leoflow_lifecycle::backup::restore::restore_dir::RetainedState;
use leoflow_lifecycle::backup::{Input, Keys};
use leoflow_lifecycle::operation::copies::{self, Fetched};
use leoflow_lifecycle::operation::restore::{self, Applied, ArchiveSettings, Force, RestoreRequest, Restored};
use leoflow_postgres::schema::{embedded, known};
use serde_json::json;
use std::io::Read;
use std::path::{Path, PathBuf};

pub async fn run(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    if env_vars::is_set(RESTORE_OF_ROLLBACK) {
        wait_for_rollback()?;
    }
    let Some(input) = &args.input else { return undo(context, args).await };
    if CopyAddress::is_url(&input.to_string_lossy()) && !args.dry_run {
        // Before a backup is fetched, which may take long.
        restore::refuse_unforced(
            &context.home,
            &request(context, args, input, args.force.into(), &|time| time.to_owned())?,
        )?;
    }
    let (input, _fetched) = local_input(context, input).await?;
    let format_time = |time: &str| context.printer.time(Some(time));
    let request = request(context, args, &input, args.force.into(), &format_time)?;
    restore::check(&context.home, &request)?;
    if args.dry_run {
        return dry_run(context, args, &request).await;
    }
    let (restored, restarted) = restore_backup(context, args, &request).await?;
    print_result(context, &restored, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

/// Number of backups at a place that are listed.
const MAX_LISTED: usize = 10;
const ADDRESSES: &str = "s3://BUCKET/PREFIX, s3://BUCKET/PREFIX?endpoint=URL&region=NAME, or sftp://USER@HOST/PATH";

/// Waits for the rollback that started this process: a byte on stdin means that the rollback has recorded this
/// process, EOF that the rollback has ended.
fn wait_for_rollback() -> Result<(), Error> {
    let mut byte = [0];
    std::io::stdin()
        .read_exact(&mut byte)
        .map_err(|_| Error::failed("the rollback that started this restore has ended"))
}

/// The file to restore. One at another place is fetched into a temporary folder, which is removed when the second value is
/// dropped. Of a folder or another place, the newest backup is taken.
async fn local_input(context: &Context<'_>, input: &Path) -> Result<(PathBuf, Option<Fetched>), Error> {
    let text = input.to_string_lossy();
    let address = match CopyAddress::is_url(&text) {
        true => CopyAddress::parse(&text).map_err(|error| Error::usage(error).hint(ADDRESSES))?,
        false if input.is_dir() => CopyAddress::Folder(env_vars::absolute(input)?),
        false => return Ok((input.to_owned(), None)),
    };
    let backup = copies::find(&context.home, &address).await?;
    let count = backup.all.len();
    if count > 1 && address == backup.at {
        context.printer.note(format!("Backups in {address}, newest first:"));
        backup.all.iter().take(MAX_LISTED).for_each(|name| context.printer.note(format!("  {name}")));
        context.printer.note(format!("The newest of {count} is taken; add a name to the address for another."));
    }
    if let CopyAddress::Folder(folder) = &backup.at {
        return Ok((folder.join(backup.name()), None));
    }
    let fetched = backup.fetch(&context.operation()).await?;
    Ok((fetched.path.clone(), Some(fetched)))
}

fn request<'a>(
    context: &Context<'_>,
    args: &Restore,
    input: &Path,
    force: Force,
    format_time: &'a (dyn Fn(&str) -> String + Sync),
) -> Result<RestoreRequest<'a>, Error> {
    let path = env_vars::absolute(input)?;
    Ok(RestoreRequest {
        input: Input { path, keys: keys(context, &args.decryption)? },
        workspace: args.workspace.clone(),
        force,
        archive_settings: if args.take_over_settings { ArchiveSettings::TakenOver } else { ArchiveSettings::LeftOut },
        format_time,
    })
}

/// Restores into a new home, without printing the result. Warns of the tries that ran.
pub async fn into_new(context: &Context<'_>, args: &Restore, input: &Path) -> Result<(), Error> {
    let (input, _fetched) = local_input(context, input).await?;
    let format_time = |time: &str| context.printer.time(Some(time));
    let request = request(context, args, &input, Force::No, &format_time)?;
    restore::check(&context.home, &request)?;
    let (restored, _) = restore_backup(context, args, &request).await?;
    print_running(context, &restored.manifest.running);
    Ok(())
}

/// Collects the keys that decrypt backups: from the arguments, config.yaml, or a prompt.
pub fn keys(context: &Context<'_>, decryption: &Decryption) -> Result<Keys, Error> {
    // An unreadable configuration must not prevent a restore.
    let settings = context.config().ok().flatten().map(|loaded| loaded.config.backup);
    let ask_passphrase =
        || terminal::can_ask().then(|| terminal::read_secret("Passphrase of the backup:").ok()).flatten();
    Ok(Keys::read(&decryption.identity, decryption.passphrase_file.as_deref(), settings.as_ref(), ask_passphrase)?)
}

async fn dry_run(context: &Context<'_>, args: &Restore, request: &RestoreRequest<'_>) -> Result<u8, Error> {
    let overview = restore::preview(&context.operation(), request).await?;
    print_overview(context, &overview, args.next_start(context));
    context.printer.note("Nothing was changed.");
    let json = json!({
        "dry_run": true,
        "home": context.home.root(),
        "workspace": overview.workspace,
        "backup": overview.backup,
        "replaces": overview.current,
        "newer_files": overview.newer_files,
        "left_out": overview.left_out,
    });
    context.printer.show(&json, |_| {})
}

/// The result of an operation and of the restart; the latter is `None` if the instance was not running.
type AppliedAndRestarted<T> = (T, Option<Result<(), Error>>);

/// Replaces the current state, after a confirmation, and restarts the instance.
async fn restore_backup(
    context: &Context<'_>,
    args: &Restore,
    request: &RestoreRequest<'_>,
) -> Result<AppliedAndRestarted<Restored>, Error> {
    let plan = restore::plan(&context.operation(), request).await?;
    let overview = &plan.overview;
    if overview.is_set_up {
        print_overview(context, overview, args.next_start(context));
        if overview.lost_config.is_none() {
            args.check_address(context)?;
        }
        let name = config::instance_name(overview.config.as_ref());
        context.require_name("Replace the current data?", name, args.yes.into())?;
    } else {
        print_trust(context, &overview.workspace, args.next_start(context));
    }
    let applied = restore::apply(plan).await;
    if let Ok(restored) = &applied.outcome {
        creation::complete(&context.home)?;
        print_schedules(context, &restored.scheduled_dags);
    }
    restart(context, args, applied)
}

/// Starts an instance again that was stopped for the operation: after a failure too, and after a success unless the
/// user wants it stopped.
fn restart<T>(context: &Context<'_>, args: &Restore, applied: Applied<T>) -> Result<AppliedAndRestarted<T>, Error> {
    let Applied { outcome, stopped } = applied;
    let stopped = stopped.filter(|_| !args.no_start || outcome.is_err());
    let restarted = stopped.map(|stopped| restart::start_again(context, stopped));
    Ok((outcome?, restarted))
}

fn print_result(context: &Context<'_>, restored: &Restored, is_running: bool) -> Result<u8, Error> {
    let manifest = &restored.manifest;
    let config = config::load(&context.home.config())?.map(|loaded| loaded.config);
    let json = json!({
        "restored": true,
        "instance": manifest.instance,
        "created_at": manifest.created_at,
        "schema_version": embedded::newest(known()),
        "tables": manifest.tables,
        "running": is_running,
        "can_undo": restored.can_undo,
        "left_out": restored.left_out,
        "running_tries": manifest.running,
    });
    context.printer.show(&json, |printer| {
        let rows = counted(manifest.rows(), "row");
        let created_at = printer.time(Some(&manifest.created_at));
        printer.line(format!("Restored {} of {created_at}: {rows}", manifest.instance));
        let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
        for skipped in &manifest.skipped {
            let relative = skipped.path.strip_prefix("workspace/");
            let stays = relative
                .zip(workspace)
                .is_some_and(|(relative, root)| files::is_there(&root.join(relative)).unwrap_or(true));
            let outcome = if stays { "; the current file in the workspace stays" } else { "" };
            printer.warning(format!(
                "not in the backup: {}: {}{outcome}",
                skipped.path.escape_debug(),
                skipped.reason.escape_debug()
            ));
        }
        print_left_out(context, &restored.left_out);
        print_running(context, &manifest.running);
        let email = config.map(|config| config.admin_email).unwrap_or_default();
        printer.line(format!("  log in as {email} with the password from the backup"));
        printer.line(match is_running {
            true => "  Leoflow is running again".to_owned(),
            false => printer.for_home("  Start it:  leoflow lite start"),
        });
        if restored.can_undo {
            printer.advice("  undo it:  leoflow lite restore --undo");
        }
    })
}

/// Undoes the last restore.
async fn undo(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    let printer = context.printer;
    let plan = restore::plan_undo(&context.operation(), args.dry_run.into()).await?;
    print_changes(context, &plan.retained, &plan.changes);
    if args.dry_run {
        printer.note("Nothing was changed.");
        let (in_force, comes_back) = (&plan.retained.restored, &plan.retained.replaced);
        let json = json!({"dry_run": true, "in_force": in_force, "comes_back": comes_back, "changes": plan.changes});
        return printer.show(&json, |_| {});
    }
    args.check_address(context)?;
    let current = context.config()?.map(|loaded| loaded.config);
    context.require_name("Undo the restore?", config::instance_name(current.as_ref()), args.yes.into())?;
    let (retained, restarted) = restart(context, args, restore::apply_undo(plan).await)?;
    print_undone(context, &retained, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

fn print_undone(context: &Context<'_>, retained: &RetainedState, is_running: bool) -> Result<u8, Error> {
    let json = json!({"undone": true, "in_force": retained.restored, "running": is_running});
    context.printer.show(&json, |printer| {
        printer.line(format!("Restored:  {}", retained.restored));
        match is_running {
            true => printer.line("  Leoflow is running again"),
            false => printer.advice("  Start it:  leoflow lite start"),
        }
        printer.advice("  undo it:  leoflow lite restore --undo");
    })
}

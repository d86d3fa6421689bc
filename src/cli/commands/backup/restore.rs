//! `leoflow lite restore`.

use super::current_state::{COMMAND, CurrentState, MovedConfig, open, open_exclusively, refuse_in_terminal};
use super::restore_args::{Decryption, Restore};
use super::restore_report::{
    print_kept_config, print_kept_datastore, print_left_out, print_newer_files, print_plan, print_running,
    print_schedules, print_trust,
};
use super::restore_target::{Force, Target};
use super::state_summary::{self, Summary};
use crate::commands::lite::restart::WasRunning;
use crate::commands::lite::run::set_up;
use crate::commands::lite::stop;
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use crate::recovery::{self, AfterUpgrade};
use crate::terminal::printer::counted;
use leoflow_base::config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::{HomeLock, OperationLock};
use leoflow_base::protocol::child::RESTORE_OF_ROLLBACK;
use leoflow_base::protocol::control;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, env_vars, terminal};
use leoflow_engine::store::dag::dag_facts;
use leoflow_lifecycle::backup::newer_files;
use leoflow_lifecycle::backup::restore::restore_plan::{RestoreRefusal, adapted_config};
use leoflow_lifecycle::backup::restore::{self, Records, Staged};
use leoflow_lifecycle::backup::restore::{obstacles, quarantine};
use leoflow_lifecycle::backup::{Input, Keys, Manifest, RestoreError, verify};
use leoflow_lifecycle::setup::Request;
use leoflow_postgres::schema::{embedded, known};
use leoflow_processes::supervisor;
use serde_json::json;
use std::io::Read;
use std::path::Path;

pub async fn run(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    if env_vars::is_set(RESTORE_OF_ROLLBACK) {
        wait_for_rollback()?;
    }
    let Some(input) = &args.input else { return super::restore_undo::run(context, args).await };
    let input = read_input(context, args, input)?;
    // Every check that needs no write comes first.
    let manifest = restore::peek(&input)?;
    let target = Target::find(context, args)?;
    target.check(context, &manifest, args.force.into())?;
    if args.dry_run {
        return dry_run(context, args, &input, &target).await;
    }
    let (restored, restarted) = restore_backup(context, args, &input).await?;
    print_result(context, &restored, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

/// Waits for the rollback that started this process: a byte on stdin means that the rollback has recorded this
/// process, EOF that the rollback has ended.
fn wait_for_rollback() -> Result<(), Error> {
    let mut byte = [0];
    std::io::stdin()
        .read_exact(&mut byte)
        .map_err(|_| Error::failed("the rollback that started this restore has ended"))
}

/// Returns the backup to restore and the keys that decrypt it.
fn read_input(context: &Context<'_>, args: &Restore, input: &Path) -> Result<Input, Error> {
    let path = env_vars::absolute(input)?;
    Ok(Input { path, keys: keys(context, &args.decryption)? })
}

/// Restores into a new home, without printing the result. Warns of the tries that ran.
pub async fn into_new(context: &Context<'_>, args: &Restore, input: &Path) -> Result<(), Error> {
    let input = read_input(context, args, input)?;
    Target::find(context, args)?.check(context, &restore::peek(&input)?, Force::No)?;
    let (restored, _) = restore_backup(context, args, &input).await?;
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

async fn dry_run(context: &Context<'_>, args: &Restore, input: &Input, target: &Target) -> Result<u8, Error> {
    context.recovery().refuse_interrupted()?;
    let manifest = verify::verify_hashes(input, context.printer)?;
    let before = match (&target.unreadable, &target.lost_config) {
        (None, None) if target.is_set_up && target.has_datastore => {
            Some(state_summary::summarize(context, &Datastore::open(&context.recovery(), COMMAND).await?).await?)
        }
        (Some(_), _) | (_, Some(_)) => Some(Summary::nothing()),
        _ => None,
    };
    print_plan(context, target, &Summary::of(&manifest), target.unreadable.as_ref(), before.as_ref());
    print_trust(context, target, args.next_start(context));
    let newer = newer_files(&context.home, &manifest, &input.path, &target.workspace);
    print_newer_files(context, target, &newer);
    let left_out = target.left_out(&restore::peek_config(input)?.1);
    print_left_out(context, &left_out);
    context.printer.note("Nothing was changed.");
    if context.printer.json {
        context.printer.json(&json!({
            "dry_run": true,
            "home": context.home.root(),
            "workspace": target.workspace,
            "backup": Summary::of(&manifest),
            "replaces": before,
            "newer_files": newer,
            "left_out": left_out,
        }))?;
    }
    Ok(0)
}

/// The result of a restore.
struct RestoreResult {
    manifest: Manifest,
    /// True when the replaced state was in use, is readable, and is kept for `--undo`.
    can_undo: bool,
    /// Names of the backup's settings that were not taken over.
    left_out: Vec<&'static str>,
    /// The instance that was stopped for the restore.
    was_running: Option<WasRunning>,
    /// In a new home, the DAGs of the backup that start runs by their schedules.
    scheduled_dags: Vec<String>,
}

/// The results of a restore and of the restart; the latter is `None` if the instance was not running.
type RestoredAndRestarted = (RestoreResult, Option<Result<(), Error>>);

/// Takes the locks, replaces the state and restarts the instance. After a failure the previous state runs again.
async fn restore_backup(context: &Context<'_>, args: &Restore, input: &Input) -> Result<RestoredAndRestarted, Error> {
    refuse_in_terminal(context)?;
    context.recovery().settle_change(args.dry_run.into()).await?;
    let home = &context.home;
    let created_home = !home.exists();
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    // The lock keeps others from setting up or starting this home; a running instance holds it itself.
    let home_lock = match control::status_of(home) {
        Some(_) => None,
        None => Some(context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?),
    };
    let operation_lock = OperationLock::take(home, COMMAND)?;
    let mut stopped = None;
    let outcome = replace(context, args, input, home_lock, &mut stopped).await;
    if outcome.is_err() && quarantine::pending(home).is_ok_and(|moved_away| moved_away.is_some()) {
        // Every process that used the new cluster has ended, so `take_home` can move the old cluster back.
        match context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await {
            Ok(home_lock) => drop(home_lock),
            Err(error) => {
                let error = Error::from(error).in_one_line();
                context.printer.warning(format!("failed to move the old datastore back: {error}"));
            }
        }
    }
    if outcome.is_err() {
        // `stopped` is the instance whose unreadable cluster was moved away.
        drop(stopped.map(|was_running| was_running.restart(context)));
    }
    drop(operation_lock);
    if outcome.is_err() && created_home {
        home.remove_if_unused(COMMAND);
    }
    let restored = outcome?;
    crate::commands::install::creation::complete(home)?;
    print_schedules(context, &restored.scheduled_dags);
    let restarted = args.restart(context, restored.was_running);
    Ok((restored, restarted))
}

/// Replaces the current state by the backup. The caller holds the operation lock, and passes the home's lock if it
/// has it. Sets `stopped` if it stops an instance in order to move the unreadable cluster away.
async fn replace(
    context: &Context<'_>,
    args: &Restore,
    input: &Input,
    home_lock: Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<RestoreResult, Error> {
    let (home, printer, force) = (&context.home, context.printer, Force::from(args.force));
    // Check everything again under the lock.
    let (mut target, (backup, backup_config)) = (Target::find(context, args)?, restore::peek_config(input)?);
    target.check(context, &backup, force)?;
    let mut home_lock = home_lock;
    let mut current = CurrentState { opened: None, before: Summary::nothing(), unreadable: target.unreadable.take() };
    if target.is_set_up && current.unreadable.is_none() && target.lost_config.is_none() && target.has_datastore {
        current.read(context, home_lock.take(), force).await?;
    }
    if target.is_set_up {
        print_plan(context, &target, &Summary::of(&backup), current.unreadable.as_ref(), Some(&current.before));
        print_trust(context, &target, args.next_start(context));
        print_newer_files(context, &target, &newer_files(home, &backup, &input.path, &target.workspace));
        print_left_out(context, &target.left_out(&backup_config));
        if target.lost_config.is_none() {
            args.check_address(context)?;
        }
        confirm(context, &target, args)?;
    } else {
        print_trust(context, &target, args.next_start(context));
    }
    // Dropped before `home_lock` and the caller's operation lock: on an error, the drop puts the unusable config.yaml
    // back while the locks are held.
    let moved_config = match &target.lost_config {
        Some(_) => Some(MovedConfig::begin(home)?),
        None => None,
    };
    if target.lost_config.is_some() && current.unreadable.is_none() {
        // With an empty config.yaml in place, the datastore can be opened.
        current.read(context, home_lock.take(), Force::Yes).await?;
    }
    let staged = Staged::unpack(home, input, &target.workspace, printer)?;
    // Check once more with the verified manifest: `unpack` has compared every entry with it.
    target.check(context, &staged.manifest, force)?;
    let restored = exchange(context, &target, staged, &mut current, &mut home_lock, stopped).await?;
    recovery::report_conflicts(home, printer);
    if let Some(moved_config) = moved_config {
        print_kept_config(context, moved_config);
    }
    if !restored.can_undo && target.is_set_up {
        print_kept_datastore(context);
    }
    Ok(restored)
}

/// Verifies the unpacked backup in the datastore and makes it current. Sets up an empty home first.
async fn exchange(
    context: &Context<'_>,
    target: &Target,
    staged: Staged,
    current: &mut CurrentState,
    home_lock: &mut Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<RestoreResult, Error> {
    let (home, printer) = (&context.home, context.printer);
    let machine = target.machine();
    let (manifest, config) = (staged.manifest.clone(), adapted_config(&staged.config, &machine)?);
    let left_out = target.left_out(&staged.config);
    let unreadable = current.unreadable.take();
    if let Some(error) = &unreadable {
        refuse_obstacles(home)?;
        *home_lock = Some(move_cluster_away(context, error, home_lock.take(), stopped).await?);
    }
    let datastore = match current.opened.take() {
        Some(datastore) => datastore,
        None => prepare_home(context, target, home_lock.take()).await?,
    };
    let loaded = restore::load_and_verify(home, &datastore.access, staged, context.version, printer).await;
    let ready = loaded.map_err(|error| super::explain(&datastore, error.into()))?;
    let records = Records {
        config,
        receipt: target.receipt(context)?,
        restored: state_summary::describe(printer, &Summary::of(&manifest)),
        replaced: state_summary::describe(printer, &current.before),
    };
    let can_undo = target.is_set_up && unreadable.is_none();
    let (datastore, was_running) = match unreadable {
        Some(_) => (datastore, *stopped),
        None => open_exclusively(context, datastore).await?,
    };
    checkpoint("restore.stopped");
    if let Err(error) = ready.make_current(home, &datastore.access, &records).await {
        continue_with_old_state(context, datastore, was_running).await;
        return Err(error.into());
    }
    let scheduled_dags = if target.is_set_up { Vec::new() } else { scheduled_dags(&datastore).await };
    Ok(RestoreResult { manifest, can_undo, left_out, was_running, scheduled_dags })
}

/// The unpaused DAGs with a schedule. Empty if they cannot be read, because the restore is complete.
async fn scheduled_dags(datastore: &Datastore) -> Vec<String> {
    match datastore.connect().await {
        Ok(client) => dag_facts::unpaused_with_schedule(&client).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    }
}

fn confirm(context: &Context<'_>, target: &Target, args: &Restore) -> Result<(), Error> {
    let name = config::instance_name(target.config.as_ref());
    match context.confirm_by_name("Replace the current data?", name, args.yes.into())? {
        true => Ok(()),
        false => Err(Error::failed(Context::DECLINED)),
    }
}

/// Removes the prepared database of a failed restore and restarts the instance.
async fn continue_with_old_state(context: &Context<'_>, datastore: Datastore, was_running: Option<WasRunning>) {
    drop(context.recovery().clean_up(Some(&datastore.access)).await);
    drop(datastore);
    drop(was_running.map(|was_running| was_running.restart(context)));
}

/// Refuses to move an unreadable cluster if an obstacle in it, such as a mount point, prevents the rename.
fn refuse_obstacles(home: &Home) -> Result<(), Error> {
    let obstacle = obstacles::find_in_cluster(home).map_err(|error| Error::io("read", &home.postgres(), &error))?;
    match obstacle {
        Some(obstacle) => Err(RestoreError::from(RestoreRefusal::from(obstacle)).into()),
        None => Ok(()),
    }
}

/// Moves an unreadable cluster away, after every process that uses it has stopped.
async fn move_cluster_away(
    context: &Context<'_>,
    unreadable: &Error,
    home_lock: Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<HomeLock, Error> {
    let home = &context.home;
    let home_lock = stop_all_processes(context, home_lock, stopped).await?;
    quarantine::begin(home, &unreadable.in_one_line()).map_err(Error::failed)?;
    Ok(home_lock)
}

/// Stops every process that uses an unreadable datastore.
async fn stop_all_processes(
    context: &Context<'_>,
    home_lock: Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<HomeLock, Error> {
    let home = &context.home;
    let home_lock = match home_lock {
        Some(home_lock) => home_lock,
        None => {
            *stopped = control::status_of(home).map(|_| WasRunning::of(context));
            stop::stop_with_tasks(context)?;
            context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?
        }
    };
    supervisor::end_leftovers(home).map_err(Error::failed)?;
    Ok(home_lock)
}

/// Sets up an empty home: programs, a cluster, and a configuration that the backup's will replace.
async fn prepare_home(context: &Context<'_>, target: &Target, home_lock: Option<HomeLock>) -> Result<Datastore, Error> {
    let request = Request { workspace: target.workspace_to_create(), ..Request::default() };
    set_up(context, &request, context.printer).await?;
    let datastore = open(context, home_lock).await?;
    drop(datastore.connect().await?);
    Ok(datastore)
}

fn print_result(context: &Context<'_>, restored: &RestoreResult, is_running: bool) -> Result<(), Error> {
    let (printer, manifest) = (context.printer, &restored.manifest);
    let config = config::load(&context.home.config())?.map(|loaded| loaded.config);
    if printer.json {
        return printer.json(&json!({
            "restored": true,
            "instance": manifest.instance,
            "created_at": manifest.created_at,
            "schema_version": embedded::newest(known()),
            "tables": manifest.tables,
            "running": is_running,
            "can_undo": restored.can_undo,
            "left_out": restored.left_out,
            "running_tries": manifest.running,
        }));
    }
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
    Ok(())
}

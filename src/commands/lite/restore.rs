//! `leoflow lite restore`.

use super::replaced::{self, Summary};
use super::restart::WasRunning;
use super::restore_present::{COMMAND, ConfigAside, Present, alone_with_it, open, refuse_beside_a_terminal};
use super::restore_target::Target;
use super::run::set_up;
use super::stop;
use crate::backup::restore::{self, Records, Staged};
use crate::backup::restore_plan::{Refusal, fitted_config};
use crate::backup::{Input, Keys, Manifest, RestoreError, newer_files, obstacles, set_aside, side, verify};
use crate::cli::args::{Decryption, Restore};
use crate::commands::context::Context;
use crate::config;
use crate::error::Error;
use crate::home::lock::{HomeLock, OperationLock};
use crate::protocol::child::RESTORE_OF_ROLLBACK;
use crate::protocol::control;
use crate::recovery::datastore::Datastore;
use crate::recovery::{self, AfterUpgrade};
use crate::schema::{embedded, known};
use crate::setup::Wishes;
use crate::supervisor;
use crate::sys::{checkpoint, env_vars, files, terminal};
use serde_json::json;
use std::io::Read;
use std::path::Path;

pub async fn run(context: &Context<'_>, args: &Restore) -> Result<u8, Error> {
    if env_vars::is_set(RESTORE_OF_ROLLBACK) {
        wait_for_rollback()?;
    }
    let Some(input) = &args.input else { return super::restore_undo::run(context, args).await };
    let input = input_of(context, args, input)?;
    // Whatever can be refused by a look is refused before anything is written.
    let manifest = restore::peek(&input)?;
    let target = Target::find(context, args)?;
    target.check(context, &manifest, args.force)?;
    if args.dry_run {
        return dry_run(context, &input, &target).await;
    }
    let (replaced, restarted) = bring_back(context, args, &input).await?;
    tell_result(context, &replaced, matches!(restarted, Some(Ok(()))))?;
    restarted.unwrap_or(Ok(())).map(|()| 0)
}

/// A byte on the standard input says that the rollback has written down that this runs; its end, that the rollback is gone.
fn wait_for_rollback() -> Result<(), Error> {
    let mut word = [0];
    std::io::stdin().read_exact(&mut word).map_err(|_| Error::failed("the rollback that this belongs to has ended"))
}

fn input_of(context: &Context<'_>, args: &Restore, input: &Path) -> Result<Input, Error> {
    let path = env_vars::current_dir().map_err(Error::failed)?.join(input);
    Ok(Input { path, keys: keys(context, &args.decryption)? })
}

/// Restores into a home that is not there yet, and tells nothing of the result.
pub async fn into_new(context: &Context<'_>, args: &Restore, input: &Path) -> Result<(), Error> {
    let input = input_of(context, args, input)?;
    Target::find(context, args)?.check(context, &restore::peek(&input)?, false)?;
    bring_back(context, args, &input).await.map(drop)
}

/// By what encrypted backups open here: what was given, what config.yaml names, or what somebody types.
pub fn keys(context: &Context<'_>, given: &Decryption) -> Result<Keys, Error> {
    // A configuration that cannot be read is no reason not to restore.
    let settings = context.config().ok().flatten().map(|loaded| loaded.config.backup);
    let ask = |of_what: &str| {
        terminal::can_ask().then(|| terminal::read_secret(&format!("Passphrase of {of_what}:")).ok()).flatten()
    };
    Ok(Keys::read(&given.identity, given.passphrase_file.as_deref(), settings.as_ref(), ask)?)
}

async fn dry_run(context: &Context<'_>, input: &Input, target: &Target) -> Result<u8, Error> {
    context.recovery().refuse_interrupted()?;
    let manifest = verify::hashes(input, context.printer)?;
    let before = match (&target.unreadable, &target.lost_config) {
        (None, None) if target.is_set_up && target.has_datastore => {
            Some(replaced::summary(context, &Datastore::open(&context.recovery(), COMMAND).await?).await?)
        }
        (Some(_), _) | (_, Some(_)) => Some(Summary::nothing()),
        _ => None,
    };
    tell_plan(context, target, &Summary::of(&manifest), target.unreadable.as_ref(), before.as_ref());
    let newer = newer_files(&context.home, &manifest, &input.path, &target.workspace);
    name_newer_files(context, target, &newer);
    context.printer.note("Nothing was changed.");
    if context.printer.json {
        context.printer.json(&json!({
            "dry_run": true,
            "home": context.home.root(),
            "workspace": target.workspace,
            "backup": Summary::of(&manifest),
            "replaces": before,
            "newer_files": newer,
        }))?;
    }
    Ok(0)
}

/// What came of a restore.
struct Replaced {
    manifest: Manifest,
    /// Whether something is kept that somebody had used, and that can be read.
    can_undo: bool,
    /// The instance that was stopped for it.
    was_running: Option<WasRunning>,
}

/// Whether what ran was started again, beside what came of it.
type BroughtBack = (Replaced, Option<Result<(), Error>>);

async fn bring_back(context: &Context<'_>, args: &Restore, input: &Input) -> Result<BroughtBack, Error> {
    refuse_beside_a_terminal(context)?;
    context.recovery().settle_change(args.dry_run).await?;
    let home = &context.home;
    let made_home = !home.exists();
    home.create().map_err(|error| Error::io("create", home.root(), &error))?;
    // Nobody may set this home up or start in it from here on; a running instance has it already.
    let held = match control::status_of(home) {
        Some(_) => None,
        None => Some(context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?),
    };
    let alone = OperationLock::take(home, COMMAND)?;
    let mut stopped = None;
    let outcome = replace(context, args, input, held, &mut stopped).await;
    if outcome.is_err() && set_aside::pending(home).is_ok_and(|aside| aside.is_some()) {
        // Everything that ran from the new one has gone with it.
        match context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await {
            Ok(held) => drop(held),
            Err(error) => context.printer.warning(format!("it is not in its place again: {}", error.in_one_line())),
        }
    }
    if outcome.is_err() {
        // It served what it could.
        drop(stopped.map(|was_running| was_running.restart(context)));
    }
    drop(alone);
    if outcome.is_err() && made_home {
        home.remove_if_unused();
    }
    let replaced = outcome?;
    let restarted = replaced.was_running.map(|was_running| was_running.restart(context));
    Ok((replaced, restarted))
}

/// Everything up to the new state in its place. The caller has the operation to itself, and the home
/// when it gives its lock. `stopped` is told when a running instance was stopped for it.
async fn replace(
    context: &Context<'_>,
    args: &Restore,
    input: &Input,
    held: Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<Replaced, Error> {
    let (home, printer) = (&context.home, context.printer);
    // Again, now that nobody else changes it.
    let (mut target, backup) = (Target::find(context, args)?, restore::peek(input)?);
    target.check(context, &backup, args.force)?;
    let mut held = held;
    let mut present = Present { opened: None, before: Summary::nothing(), unreadable: target.unreadable.take() };
    if target.is_set_up && present.unreadable.is_none() && target.lost_config.is_none() && target.has_datastore {
        present.read(context, held.take(), args.force).await?;
    }
    if target.is_set_up {
        tell_plan(context, &target, &Summary::of(&backup), present.unreadable.as_ref(), Some(&present.before));
        name_newer_files(context, &target, &newer_files(home, &backup, &input.path, &target.workspace));
        let name = config::instance_name(target.config.as_ref());
        if !context.confirm_by_name("Replace it?", name, args.yes)? {
            return Err(Error::failed("nothing was changed"));
        }
    }
    let config_aside = match &target.lost_config {
        Some(_) => Some(ConfigAside::begin(home)?),
        None => None,
    };
    if target.lost_config.is_some() && present.unreadable.is_none() {
        // With the empty one in its place it can be opened.
        present.read(context, held.take(), true).await?;
    }
    let staged = Staged::unpack(home, input, &target.workspace, printer)?;
    // And once more: this is the manifest that everything was compared with.
    target.check(context, &staged.manifest, args.force)?;
    let (manifest, config) = (staged.manifest.clone(), fitted_config(&staged.config, &target.machine())?);
    let Present { opened, before, unreadable } = present;
    if let Some(error) = &unreadable {
        let obstacle = obstacles::of_cluster(home).map_err(|error| Error::io("look at", &home.postgres(), &error))?;
        if let Some(obstacle) = obstacle {
            return Err(RestoreError::from(Refusal::from(obstacle)).into());
        }
        held = Some(make_way(context, held, stopped).await?);
        set_aside::begin(home, &error.in_one_line()).map_err(Error::failed)?;
    }
    let datastore = match opened {
        Some(datastore) => datastore,
        None => prepare_home(context, &target, held).await?,
    };
    let ready = restore::prove(home, &datastore.access, staged, context.version, printer).await?;
    let records = Records {
        config,
        receipt: target.receipt(context)?,
        in_force: replaced::in_words(&Summary::of(&manifest)),
        set_aside: replaced::in_words(&before),
    };
    let can_undo = target.is_set_up && unreadable.is_none();
    let (datastore, was_running) = match unreadable {
        Some(_) => (datastore, *stopped),
        None => alone_with_it(context, datastore).await?,
    };
    checkpoint("restore.stopped");
    if let Err(error) = ready.bring_into_force(home, &datastore.access, &records).await {
        // What was prepared is a stray now; the instance goes on as it was.
        drop(context.recovery().clean_up(Some(&datastore.access)).await);
        drop(datastore);
        drop(was_running.map(|was_running| was_running.restart(context)));
        return Err(error.into());
    }
    recovery::tell_conflicts(home, printer);
    tell_what_is_kept(context, config_aside, !can_undo && target.is_set_up);
    Ok(Replaced { manifest, can_undo, was_running })
}

/// Stops what runs on a datastore that cannot be read, down to the last process.
async fn make_way(
    context: &Context<'_>,
    held: Option<HomeLock>,
    stopped: &mut Option<WasRunning>,
) -> Result<HomeLock, Error> {
    let home = &context.home;
    let held = match held {
        Some(held) => held,
        None => {
            *stopped = control::status_of(home).map(|_| WasRunning::of(context));
            stop::stop_whole(context)?;
            context.recovery().take_home(COMMAND, None, AfterUpgrade::GoOn).await?
        }
    };
    supervisor::end_leftovers(home).map_err(Error::failed)?;
    Ok(held)
}

fn tell_what_is_kept(context: &Context<'_>, config_aside: Option<ConfigAside>, was_unreadable: bool) {
    let (home, printer) = (&context.home, context.printer);
    if let Some(aside) = config_aside {
        printer.note(format!("The config.yaml that could not be read is kept: {}", aside.keep().display()));
    }
    if was_unreadable {
        printer.note(format!(
            "The datastore that could not be read is kept in {}, the workspace and the task logs of before in {}.",
            home.postgres().display(),
            home.restore().display()
        ));
    }
}

/// In an empty home: programs, a cluster, a configuration that the backup's will replace.
async fn prepare_home(context: &Context<'_>, target: &Target, held: Option<HomeLock>) -> Result<Datastore, Error> {
    let wishes = Wishes { workspace: target.wished_workspace(), ..Wishes::default() };
    set_up(context, &wishes, context.printer).await?;
    let datastore = open(context, held).await?;
    drop(datastore.connect().await?);
    Ok(datastore)
}

fn tell_plan(
    context: &Context<'_>,
    target: &Target,
    backup: &Summary,
    unreadable: Option<&Error>,
    before: Option<&Summary>,
) {
    let note = |text: String| context.printer.note(text);
    let (home, workspace) = (context.home.root().display(), target.workspace.display());
    note(format!("The backup:  {}", replaced::in_words(backup)));
    if let Some(error) = &target.lost_config {
        context.printer.warning(format!("what is here now cannot be read whole: {}", error.in_one_line()));
        note(format!("That file is kept, in {}.", context.home.postgres().display()));
    }
    match (unreadable, before) {
        (Some(error), _) => {
            context.printer.warning(format!("what is here now cannot be read: {}", error.in_one_line()));
            let place = context.home.postgres().join("data.damaged-…");
            note(format!("It is set aside whole, in {}, and kept.", place.display()));
            note(format!("It replaces the database, config.yaml and the task logs in {home}, and {workspace}."));
        }
        (None, Some(before)) => {
            if target.lost_config.is_none() {
                note(format!("Here now:    {}", replaced::in_words(before)));
            }
            note(format!("It replaces the database, config.yaml and the task logs in {home}, and {workspace}."));
            note("What is replaced is kept, for `leoflow lite restore --undo`.".to_owned());
            if let Some(names) = replaced::named(&before.left_behind) {
                note(format!("Not restored, because backups do not contain it: {names}."));
            }
            let older = side::kept(&context.home).filter(|(_, kept)| kept.unreadable.is_none());
            if let Some((_, kept)) = older {
                note(format!(
                    "What the restore of {} replaced can no longer be undone then, and is removed: {}.",
                    kept.exchanged_at, kept.set_aside
                ));
            }
        }
        (None, None) => note(format!("It goes into {home} and {workspace}.")),
    }
}

/// Files that leave the workspace though the backup does not hold them as they are.
fn name_newer_files(context: &Context<'_>, target: &Target, newer: &[String]) {
    let Some(names) = replaced::named(newer) else { return };
    context.printer.note(format!(
        "{} file(s) in {} are not in the backup or have changed since; they are replaced too: {names}.",
        newer.len(),
        target.workspace.display(),
    ));
}

fn tell_result(context: &Context<'_>, replaced: &Replaced, runs: bool) -> Result<(), Error> {
    let (printer, manifest) = (context.printer, &replaced.manifest);
    let config = config::load(&context.home.config())?.map(|loaded| loaded.config);
    if printer.json {
        return printer.json(&json!({
            "restored": true,
            "instance": manifest.instance,
            "created_at": manifest.created_at,
            "schema_version": embedded::newest(known()),
            "tables": manifest.tables,
            "running": runs,
            "can_undo": replaced.can_undo,
        }));
    }
    printer.line(format!("Restored {} of {}: {} rows", manifest.instance, manifest.created_at, manifest.rows()));
    let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
    for skipped in &manifest.skipped {
        let below = skipped.path.strip_prefix("workspace/");
        let stays =
            below.zip(workspace).is_some_and(|(below, root)| files::is_there(&root.join(below)).unwrap_or(true));
        let outcome = if stays { "; the one in the workspace stays" } else { "" };
        printer.warning(format!(
            "the backup does not have {}: {}{outcome}",
            skipped.path.escape_debug(),
            skipped.reason.escape_debug()
        ));
    }
    let email = config.map(|config| config.admin_email).unwrap_or_default();
    printer.line(format!("  log in as {email}, with the password of that time"));
    printer.line(if runs { "  Leoflow is running again" } else { "  Start it:  leoflow lite start" });
    if replaced.can_undo {
        printer.line("  what it replaced is kept:  leoflow lite restore --undo");
    }
    Ok(())
}

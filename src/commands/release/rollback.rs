//! `leoflow rollback`: to a release before, with the data. It works from any version that is kept, also when
//! the one in force is broken or gone.

use super::rollback_consequences::Consequences;
use super::rollback_restore::{self, RestoreWay};
use super::upgrade_facts::{self, Looked};
use super::upgrade_worker;
use super::watch_worker;
use crate::backup::restore_plan::workspace_size;
use crate::backup::{Input, catalog, restore};
use crate::cli::upgrade_args::RollbackRelease;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::protocol::{control, log};
use crate::recovery::datastore::Datastore;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::{disk, stdio};
use crate::upgrade::capacity::{self, Need, Restored};
use crate::upgrade::history::{self, Kind};
use crate::upgrade::plan::{Facts, Instance, Plan};
use crate::upgrade::program::{self, About};
use crate::upgrade::rollback_plan::{self, Back, Refusal, Ways, as_change};
use crate::upgrade::rollback_record::Settled;
use crate::upgrade::{self, Outcome, ReleaseSource, stage, version_order};
use semver::Version;
use serde_json::json;
use std::ffi::OsString;
use std::path::PathBuf;

/// What going back would be.
pub(super) struct Looking {
    pub to: Version,
    pub facts: Facts,
    pub datastore: Datastore,
    pub plan: Plan,
    pub back: Back,
    /// The newest schema that the release knows that is gone back to.
    own_schema_of_target: i64,
    pub needs: Vec<Need>,
    /// Seconds that the last change of release kept requests waiting; `None` where none was measured.
    pub last_pause: Option<f64>,
}

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        log::start("upgrade", context.log_level());
        return upgrade_worker::tell(work(context, args).await);
    }
    if let Some(Settled::Finished(record)) = context.recovery().settle_rollback(args.dry_run).await? {
        let to = record.to.to_string();
        // This command finishes the interrupted one, and goes no further back.
        if args.to.as_deref().is_none_or(|asked| asked.strip_prefix('v').unwrap_or(asked) == to) {
            reported(context)?;
            return finished(context, &record.from, &record.to, record.made.as_ref());
        }
    }
    context.recovery().settle_change(args.dry_run).await?;
    let changes = history::history(&context.home);
    if let Some(change) = history::finished_by_another(&changes).filter(|_| args.to.is_none()) {
        if !args.dry_run {
            reported(context)?;
        }
        let further = history::next_back(&changes, &change.to);
        context.printer.note(format!("the rollback to {} was interrupted, and is finished already", change.to));
        if let Some(further) = further {
            context.printer.note(format!("To go further back:  leoflow rollback --to {further}"));
        }
        return finished(context, &change.from, &change.to, change.backup.as_ref());
    }
    let looking = look(context, args).await?;
    let consequences = Consequences::of(context, &looking).await?;
    if !context.printer.json {
        consequences.print(context, &looking);
    } else if args.dry_run {
        context.printer.json(&consequences.to_json(&looking))?;
    }
    let in_the_way = &consequences.in_the_way;
    in_the_way.iter().for_each(|line| context.printer.warning(line));
    if args.dry_run {
        return Ok(0);
    }
    if let Some(first) = in_the_way.first() {
        return Err(Error::refused(format!("nothing was changed: {first}"))
            .hint("keep its definition (leoflow lite psql, then \\d+ NAME), drop it, run the same command again, and create it again"));
    }
    if !context.confirm(&format!("Go back to {}?", looking.to), args.yes)? {
        context.printer.note("Nothing was changed");
        return Ok(1);
    }
    if let Back::Restore { .. } = looking.back {
        rollback_restore::check(context, &looking.datastore)?;
    }
    let to = looking.to.to_string();
    // A private datastore is the worker's from here on.
    drop(looking.datastore);
    let arguments: [OsString; 5] = ["rollback".into(), "--to".into(), to.into(), "--yes".into(), "--worker".into()];
    watch_worker::watch(context, &arguments, &[]).await
}

/// The next rollback goes further back.
fn reported(context: &Context<'_>) -> Result<(), Error> {
    history::set_finished_by_another(&context.home, false)
        .map_err(|error| Error::io("write", &context.home.upgrade(), &error))
}

fn finished(context: &Context<'_>, from: &Version, to: &Version, made: Option<&PathBuf>) -> Result<u8, Error> {
    let made = made.map(|made| context.home.root().join(made));
    if context.printer.json {
        context.printer.json(&json!({
            "status": "rolled_back", "previous_version": from, "new_version": to, "commit": null,
            "migrations_run": [], "backup_path": made, "details": [],
        }))?;
    } else {
        context.printer.line(format!("Leoflow is {to} again (it was {from})"));
    }
    if control::status_of(&context.home).is_none() {
        context.printer.note("Start it:  leoflow lite start");
    }
    Ok(0)
}

async fn look(context: &Context<'_>, args: &RollbackRelease) -> Result<Looking, Error> {
    let home = &context.home;
    let Looked { mut facts, datastore } = upgrade_facts::look(context).await?;
    if let Some(version) = linked_by_the_last_change(context) {
        facts.installed = version;
    }
    let changes = history::history(home);
    let way = history::way(&changes);
    let to = match &args.to {
        Some(text) => Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|error| Error::usage(format!("{text:?} is no version: {error}")).hint("leoflow versions"))?,
        None => history::next_back(&changes, &facts.installed).ok_or(Refusal::NoHistory(facts.installed.clone()))?,
    };
    if to == facts.installed {
        return Err(Refusal::Same(to).into());
    }
    if version_order::compare(&to, &facts.installed).is_gt() {
        return Err(Refusal::Newer(to).into());
    }
    let kept = stage::program_of(home, &to);
    if !kept.is_file() {
        return Err(Refusal::NotKept(to).into());
    }
    let about = program::about(&kept).map_err(upgrade::UpgradeError::from)?;
    let change = way.into_iter().rev().find(|change| change.from == to);
    let (schema, to_undo) = schema_of(&datastore, &about).await?;
    let backup = change.and_then(|change| change.backup.as_ref());
    let backup_exists = backup.is_some_and(|path| path.is_file());
    let ways = Ways { about: &about, schema, to_undo, change, backup_exists };
    let back = rollback_plan::plan(&ways)?;
    let target = match &back {
        Back::Undo { schema, .. } => *schema,
        Back::Restore { .. } => change.map_or(0, |change| change.schema_from),
    };
    let plan = as_change(&facts, &ways, &to, target);
    let own_schema_of_target = about.schema_version;
    let needs = needs(context, &facts, &back)?;
    let needed = capacity::total(&needs);
    if let Some(free) = facts.free_bytes.filter(|free| *free < needed) {
        return Err(Refusal::Space { needs, free, backups: backups_bytes(home) }.into());
    }
    let last_pause = history::last_pause(&changes, matches!(back, Back::Restore { .. }).then_some(Kind::Restore));
    Ok(Looking { to, facts, datastore, plan, back, own_schema_of_target, needs, last_pause })
}

/// How much is written, and for what.
fn needs(context: &Context<'_>, facts: &Facts, back: &Back) -> Result<Vec<Need>, Error> {
    let restored = match back {
        Back::Undo { .. } => None,
        Back::Restore { backup } => {
            let manifest = restore::peek(&Input::plain(backup))?;
            let config = context.config()?.map(|loaded| loaded.config);
            let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
            let root = context.home.root();
            let is_here = workspace.is_none_or(|workspace| disk::same_file_system(root, workspace).unwrap_or(true));
            // The restore asks for the other file system's room itself.
            let elsewhere = if is_here { 0 } else { workspace_size(&manifest) };
            Some(Restored { files: manifest.total_size() - elsewhere, database: manifest.database.bytes })
        }
    };
    Ok(capacity::of_rollback(facts.backup_bytes, facts.database_bytes, restored))
}

/// What the backups take that are made by themselves.
fn backups_bytes(home: &Home) -> u64 {
    catalog::list(home).iter().filter(|backup| backup.automatic).map(|backup| backup.size_bytes).sum()
}

/// What `bin/` leads to, where the last change of release says the same: the supervisor may still be of the release
/// before, when the new one did not let itself be handed over to.
fn linked_by_the_last_change(context: &Context<'_>) -> Option<Version> {
    let linked = Version::parse(&setup::linked_version(&context.home)?).ok()?;
    history::history(&context.home).pop().map(|change| change.to).filter(|to| *to == linked)
}

/// The database's schema, and what of it that program does not know.
async fn schema_of(datastore: &Datastore, about: &About) -> Result<(i64, Result<Vec<String>, String>), Error> {
    let client = datastore.connect().await?;
    let schema = schema::classify::database_version(&schema::inspect(&client).await?);
    let to_undo = match schema::to_undo(&client, Extent::DownTo(about.schema_version)).await {
        Ok(names) => Ok(names),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error @ SchemaError::NotReversible(_)) => Err(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    Ok((schema, to_undo))
}

/// By the migrations' own rollbacks, with the steps of an upgrade; or by the backup from before it.
async fn work(context: &Context<'_>, args: &RollbackRelease) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = upgrade_worker::cancelled()?;
    stdio::set_stdout_blocking(false);
    let alone = OperationLock::take(home, "leoflow rollback")?;
    upgrade_worker::refuse_interrupted(home)?;
    let looking = look(context, args).await?;
    if let Back::Restore { backup } = &looking.back {
        let backup = backup.clone();
        let Looking { facts, datastore, plan, own_schema_of_target, .. } = looking;
        let was_running = facts.instance != Instance::Stopped;
        let way = RestoreWay { datastore, plan, schema_to: own_schema_of_target, backup, was_running };
        return rollback_restore::bring_back(context, way, alone, cancelled).await;
    }
    let Looking { facts, datastore, plan, .. } = looking;
    let config = context.recovery().running_config()?;
    upgrade_worker::change(
        context,
        &config,
        Looked { facts, datastore },
        plan,
        ReleaseSource::Installed,
        true,
        cancelled,
    )
    .await
}

//! `leoflow rollback`: to a release before, with the data. It works from any version that is kept, also when
//! the one in force is broken or gone.

use super::upgrade_facts::{self, Looked};
use super::upgrade_worker;
use super::watch_worker;
use crate::backup::Made;
use crate::backup::automatic::{self, Automatic};
use crate::backup::{Input, restore};
use crate::cli::upgrade_args::RollbackRelease;
use crate::commands::context::Context;
use crate::commands::lite::replaced;
use crate::config::Config;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::postgres::Access;
use crate::protocol::log;
use crate::recovery::datastore::Datastore;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::{checkpoint, files, process, stdio};
use crate::upgrade::back::{self, Back, Refusal, Ways, as_change};
use crate::upgrade::history::{self, Change};
use crate::upgrade::plan::{Database, Facts, Plan};
use crate::upgrade::program::{self, About};
use crate::upgrade::{self, Outcome, ReleaseSource, stage};
use semver::Version;
use serde_json::json;
use std::ffi::OsString;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};

/// What going back would be.
struct Looking {
    to: Version,
    facts: Facts,
    datastore: Datastore,
    plan: Plan,
    back: Back,
}

pub async fn run(context: &Context<'_>, args: &RollbackRelease) -> Result<u8, Error> {
    if args.worker {
        log::start("upgrade", context.log_level());
        return upgrade_worker::tell(work(context, args).await);
    }
    context.recovery().settle_change(args.dry_run).await?;
    let looking = look(context, args).await?;
    let lost = lost(context, &looking).await?;
    show(context, &looking, &lost, args.dry_run)?;
    if args.dry_run {
        return Ok(0);
    }
    if !context.confirm(&format!("Go back to {}?", looking.to), args.yes)? {
        context.printer.note("Nothing was changed");
        return Ok(1);
    }
    match looking.back {
        Back::Undo { .. } => {
            let to = looking.to.to_string();
            // A private datastore is the worker's from here on.
            drop(looking.datastore);
            let arguments: [OsString; 5] =
                ["rollback".into(), "--to".into(), to.into(), "--yes".into(), "--worker".into()];
            watch_worker::watch(context, &arguments).await
        }
        Back::Restore { ref backup } => {
            let backup = backup.clone();
            bring_back(context, looking, &backup).await
        }
    }
}

async fn look(context: &Context<'_>, args: &RollbackRelease) -> Result<Looking, Error> {
    let home = &context.home;
    let Looked { mut facts, datastore } = upgrade_facts::look(context).await?;
    if let Some(version) = unfinished(context, &facts).or_else(|| linked_by_the_last_change(context)) {
        facts.installed = version;
    }
    let change = history::led_to(home, &facts.installed);
    let to = match &args.to {
        Some(text) => Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|error| Error::usage(format!("{text:?} is no version: {error}")).hint("leoflow versions"))?,
        None => change.as_ref().map(|change| change.from.clone()).ok_or(Refusal::NoHistory(facts.installed.clone()))?,
    };
    if to == facts.installed {
        return Err(Refusal::Same(to).into());
    }
    if to > facts.installed {
        return Err(Refusal::Newer(to).into());
    }
    let kept = stage::program_of(home, &to);
    if !kept.is_file() {
        return Err(Refusal::NotKept(to).into());
    }
    let about = program::about(&kept).map_err(upgrade::UpgradeError::from)?;
    let change = change.filter(|change| change.from == to);
    let (schema, to_undo) = schema_of(&datastore, &about).await?;
    let backup = change.as_ref().and_then(|change| change.backup.as_ref());
    let backup_exists = backup.is_some_and(|path| path.is_file());
    let ways = Ways { about: &about, schema, to_undo, change: change.as_ref(), backup_exists };
    let back = back::plan(&ways)?;
    let target = match &back {
        Back::Undo { schema, .. } => *schema,
        Back::Restore { .. } => change.as_ref().map_or(0, |change| change.schema_from),
    };
    let plan = as_change(&facts, &ways, &to, target);
    Ok(Looking { to, facts, datastore, plan, back })
}

/// A rollback by backup that was cut off: the older program is linked already, and the database is still the newer
/// one's. Which version that is.
fn unfinished(context: &Context<'_>, facts: &Facts) -> Option<Version> {
    let Database::Applied(applied) = &facts.database else { return None };
    let schema = applied.last()?.0;
    let about = program::about(&stage::program_of(&context.home, &facts.installed)).ok()?;
    let changes = history::history(&context.home).into_iter().rev();
    let mut led_away = changes.filter(|change| change.from == facts.installed && change.schema_to <= schema);
    led_away.next().filter(|_| schema > about.schema_version).map(|change| change.to)
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

/// Exactly what will be gone, a line each.
async fn lost(context: &Context<'_>, looking: &Looking) -> Result<Vec<String>, Error> {
    match &looking.back {
        Back::Undo { migrations, .. } if migrations.is_empty() => Ok(Vec::new()),
        Back::Undo { schema, .. } => {
            Ok(schema::lost(&looking.datastore.connect().await?, Extent::DownTo(*schema)).await?)
        }
        Back::Restore { backup } => {
            let then = restore::peek(&Input::plain(backup))?;
            let now = replaced::summary(context, &looking.datastore).await?;
            let mut lost: Vec<String> = replaced::changes(&then.tables, &now.rows)
                .into_iter()
                .map(|change| format!("since the backup: {change}; they become what they were"))
                .collect();
            lost.push(format!("everything is as it was at {}, the workspace too", then.created_at));
            Ok(lost)
        }
    }
}

fn show(context: &Context<'_>, looking: &Looking, lost: &[String], dry_run: bool) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        if !dry_run {
            return Ok(());
        }
        return printer.json(&json!({
            "from": looking.facts.installed, "to": looking.to, "back": looking.back, "lost": lost,
        }));
    }
    printer.line(format!("leoflow {} -> {}", looking.facts.installed, looking.to));
    match &looking.back {
        Back::Undo { migrations, .. } if migrations.is_empty() => printer.line("  nothing is lost: the schema stays"),
        Back::Undo { .. } if lost.is_empty() => printer.line("  everything you have stays"),
        Back::Undo { .. } => printer.line("  everything you have stays, but for:"),
        Back::Restore { backup } => printer.line(format!("  the backup from before comes back: {}", backup.display())),
    }
    for line in lost {
        printer.line(format!("  - {line}"));
    }
    printer.line("  what is there now is backed up first");
    Ok(())
}

/// By the migrations' own rollbacks: the steps of an upgrade, the other way round.
async fn work(context: &Context<'_>, args: &RollbackRelease) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = upgrade_worker::cancelled()?;
    stdio::set_stdout_blocking(false);
    let _alone = OperationLock::take(home, "leoflow rollback")?;
    upgrade_worker::refuse_interrupted(home)?;
    let Looking { facts, datastore, plan, back, .. } = look(context, args).await?;
    if let Back::Restore { .. } = back {
        return Err(Error::failed("something has changed since it was planned").hint("leoflow rollback"));
    }
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

/// By the backup from before the upgrade, which the release that it belongs to restores itself.
async fn bring_back(context: &Context<'_>, looking: Looking, backup: &Path) -> Result<u8, Error> {
    let home = &context.home;
    crate::commands::lite::restore_present::refuse_beside_a_terminal(context)?;
    let config = context.recovery().running_config()?;
    // A name of its own: the backup that is taken now may push the old one out.
    let kept = home.upgrade().join(backup.file_name().unwrap_or_default());
    keep(backup, &kept).map_err(|error| Error::io("write", &kept, &error))?;
    let made = back_up(context, &looking.datastore.access, &config).await?;
    drop(looking.datastore);
    let Plan { from, to, schema_from, schema_to, .. } = looking.plan;
    let program = stage::program_of(home, &to);
    let link = |version: &Version| {
        setup::link(home, &version.to_string()).map_err(|error| Error::io("write", &home.bin(), &error))
    };
    // First: killed after it, the older program refuses the newer database, and nothing is lost; the other way round
    // the newer one would migrate what was just brought back.
    link(&to)?;
    checkpoint("rollback.linked");
    let ran = restore_with(&program, home, &kept);
    let is_back = async || schema_now(context).await.is_ok_and(|schema| schema <= schema_to);
    let has_come_back = ran.as_ref().is_ok_and(ExitStatus::success) || is_back().await;
    if !has_come_back {
        link(&from)?;
        let why = ran.map_or_else(|error| error.to_string(), |status| status.to_string());
        return Err(Error::failed(format!("{to} could not restore the backup: {why}"))
            .hint(format!("{from} is what is installed, as before; the backup: {}", backup.display()))
            .hint(format!("what is there now is also in {}", made.path.display())));
    }
    // One that stays takes room and nothing else.
    let _ = files::remove_any(&kept);
    setup::note_version(home, &to.to_string())?;
    let change = Change::now(&from, &to, (schema_from, schema_to), Some(made.path.clone()));
    history::add(home, change).map_err(|error| Error::io("write", &home.upgrade(), &error))?;
    if !ran.is_ok_and(|status| status.success()) {
        return Err(Error::failed(format!("{to} is back with its data, and does not start"))
            .hint("leoflow lite start")
            .hint(format!("what was there is in {}", made.path.display())));
    }
    tell_rolled_back(context, &from, &to, &made.path)?;
    Ok(0)
}

async fn back_up(context: &Context<'_>, access: &Access, config: &Config) -> Result<Made, Error> {
    let home = &context.home;
    let _alone = OperationLock::take(home, "leoflow rollback")?;
    let pinned = history::ways_back(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let with = Automatic { home, access, config, version: context.version, pinned: &pinned, reporter: context.printer };
    Ok(automatic::always("rollback", &with).await?)
}

/// By the program of the version that the backup is of.
fn restore_with(program: &Path, home: &Home, backup: &Path) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.arg("--home").arg(home.root()).args(["lite", "restore", "--force", "--yes", "--input"]).arg(backup);
    // It ends with a way to undo this that an older program cannot go; ours is told afterwards.
    command.stdout(Stdio::null());
    // A Ctrl-C is the restore's to answer; what comes after it is ours to put right.
    process::ignoring_interrupts(|| command.status())
}

fn tell_rolled_back(context: &Context<'_>, from: &Version, to: &Version, backup: &Path) -> Result<(), Error> {
    let printer = context.printer;
    if printer.json {
        return printer.json(&json!({
            "status": "rolled_back", "previous_version": from, "new_version": to, "commit": null,
            "migrations_run": [], "backup_path": backup, "details": [],
        }));
    }
    printer.line(format!("Leoflow is {to} again (it was {from}), with its data of then"));
    printer.line(format!("  what was there is in  {}", backup.display()));
    printer.line(format!("  to have it back:  leoflow upgrade {from} && leoflow lite restore --undo"));
    Ok(())
}

async fn schema_now(context: &Context<'_>) -> Result<i64, Error> {
    let datastore = Datastore::open(&context.recovery(), "leoflow rollback").await?;
    let client = datastore.connect().await?;
    Ok(schema::classify::database_version(&schema::inspect(&client).await?))
}

fn keep(backup: &Path, kept: &PathBuf) -> std::io::Result<()> {
    if let Some(folder) = kept.parent() {
        files::create_private_dir(folder)?;
    }
    files::remove_any(kept)?;
    // On another file system it is a copy.
    std::fs::hard_link(backup, kept).or_else(|_| std::fs::copy(backup, kept).map(drop))
}

//! A rollback by the backup from before the upgrade: the worker's part. The release that the backup belongs to restores it.

use super::rollback::Looking;
use super::upgrade_worker::{self, LoggedSink};
use crate::backup::Made;
use crate::backup::automatic::{self, Automatic};
use crate::commands::context::Context;
use crate::config::Config;
use crate::error::Error;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::Access;
use crate::recovery::datastore::Datastore;
use crate::recovery::{OF_ROLLBACK, Recovery};
use crate::schema;
use crate::sys::process::ProcessId;
use crate::sys::{checkpoint, files};
use crate::upgrade::plan::Plan;
use crate::upgrade::rollback_record::RollbackRecord;
use crate::upgrade::{Outcome, Status, UpgradeError, history, stage};
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::Instant;

/// Brings the backup back. `alone` is let go for the restore, which takes the operation itself.
pub async fn bring_back(
    context: &Context<'_>,
    looking: Looking,
    backup: &Path,
    alone: OperationLock,
) -> Result<Outcome, Error> {
    let home = &context.home;
    let recovery = Recovery { reporter: &LoggedSink, ..context.recovery() };
    // A datastore that is open for this moment has the home's lock, and nobody else runs.
    if looking.datastore.runs_for_lite {
        crate::commands::lite::restore_present::refuse_beside_a_terminal(context)?;
    }
    let config = recovery.running_config()?;
    let Plan { from, to, schema_from, .. } = looking.plan;
    // A name of its own: the backup that is taken now may push the old one out.
    let restored = home.upgrade().join(backup.file_name().unwrap_or_default());
    keep(backup, &restored).map_err(|error| Error::io("write", &restored, &error))?;
    let mut record = RollbackRecord {
        from: from.clone(),
        to: to.clone(),
        schema_from,
        schema_to: looking.own_schema_of_target,
        restored: below(home, &restored),
        made: None,
        worker: ProcessId::current(),
        restorer: None,
    };
    let write =
        |record: &RollbackRecord| record.write(home).map_err(|error| Error::io("write", &home.upgrade(), &error));
    write(&record)?;
    checkpoint("rollback.begun");
    let undone = |record: &RollbackRecord, error: Error| {
        // What cannot be removed now is removed by the next command.
        let _ = record.forget(home);
        error
    };
    let mut details = Vec::new();
    let mut step = |title: &str, begun: Instant| {
        let line = format!("{title}... {:.1} s", begun.elapsed().as_secs_f64());
        LoggedSink.report(Progress::Finished(line.clone()));
        details.push(line);
    };
    let begun = Instant::now();
    LoggedSink.report(Progress::Started("Backing up".to_owned()));
    let made = back_up(context, &looking.datastore.access, &config).await.map_err(|error| undone(&record, error))?;
    step("Backing up", begun);
    record.made = Some(below(home, &made.path));
    write(&record).map_err(|error| undone(&record, error))?;
    checkpoint("rollback.backed-up");
    drop(looking.datastore);
    drop(alone);
    let begun = Instant::now();
    LoggedSink.report(Progress::Started(format!("Restoring the backup with {to}")));
    let ran = restore_with(&stage::program_of(home, &to), home, &restored, &mut record);
    checkpoint("rollback.restored");
    let is_back = async || schema_now(&recovery).await.is_ok_and(|schema| schema <= record.schema_to);
    let has_succeeded = ran.as_ref().is_ok_and(ExitStatus::success);
    if !has_succeeded && !is_back().await {
        let why = ran.map_or_else(|error| error.to_string(), |status| status.to_string());
        let error =
            Error::failed(format!("nothing was changed, {from} goes on as before: {to} could not restore the backup"))
                .cause(why)
                .hint(crate::error::upgrade::WHAT_WAS_DONE)
                .hint(format!("the backup: {}", backup.display()))
                .hint(format!("what is there now is also in {}", made.path.display()));
        return Err(undone(&record, error));
    }
    step("Restoring the backup", begun);
    record.finish(home)?;
    if !has_succeeded {
        return Err(Error::failed(format!("{to} is back with its data, and does not start"))
            .hint("leoflow lite start")
            .hint(format!("what was there is in {}", made.path.display())));
    }
    Ok(Outcome {
        status: Status::RolledBack,
        previous_version: from.to_string(),
        new_version: to.to_string(),
        commit: None,
        migrations_run: Vec::new(),
        notes: vec![
            "its data is as it was then".to_owned(),
            format!("what was there is in  {}", made.path.display()),
            format!("to have it back:  leoflow upgrade {from} && leoflow lite restore --undo"),
        ],
        backup_path: Some(made.path),
        details,
        expected_pause: None,
        pause: None,
        problem: None,
        fault: None,
    })
}

async fn back_up(context: &Context<'_>, access: &Access, config: &Config) -> Result<Made, Error> {
    let home = &context.home;
    let pinned = history::ways_back(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let with = Automatic { home, access, config, version: context.version, pinned: &pinned, reporter: &LoggedSink };
    Ok(automatic::always("rollback", &with).await.map_err(UpgradeError::from)?)
}

/// By the program of the version that the backup is of. What it says goes to our log.
fn restore_with(program: &Path, home: &Home, backup: &Path, record: &mut RollbackRecord) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.arg("--home").arg(home.root()).args(["lite", "restore", "--force", "--yes", "--input"]).arg(backup);
    // It ends with a way to undo this that an older program cannot go; ours is told afterwards.
    command.env(OF_ROLLBACK, "1").stdin(Stdio::null()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    record.restorer = ProcessId::of(child.id() as i32);
    // Without it an interrupted rollback may be settled before the restore has begun; the restore goes on all the same.
    let _ = record.write(home);
    checkpoint("rollback.restoring");
    child.wait()
}

async fn schema_now(recovery: &Recovery<'_>) -> Result<i64, Error> {
    let datastore = Datastore::open(recovery, "leoflow rollback").await?;
    let client = datastore.connect().await?;
    Ok(schema::classify::database_version(&schema::inspect(&client).await?))
}

fn below(home: &Home, path: &Path) -> PathBuf {
    path.strip_prefix(home.root()).unwrap_or(path).to_owned()
}

fn keep(backup: &Path, kept: &PathBuf) -> io::Result<()> {
    if let Some(folder) = kept.parent() {
        files::create_private_dir(folder)?;
    }
    files::remove_any(kept)?;
    // On another file system it is a copy.
    std::fs::hard_link(backup, kept).or_else(|_| std::fs::copy(backup, kept).map(drop))
}

/// Refuses beside an instance in a terminal, before anything is asked or begun.
pub fn check(context: &Context<'_>, looking: &Looking) -> Result<(), Error> {
    if looking.datastore.runs_for_lite {
        crate::commands::lite::restore_present::refuse_beside_a_terminal(context)?;
    }
    upgrade_worker::refuse_interrupted(&context.home)
}

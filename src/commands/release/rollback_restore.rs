//! A rollback by the backup from before the upgrade: the worker's part. The release that the backup belongs to restores it.

use super::upgrade_worker::LoggedSink;
use crate::backup::Made;
use crate::backup::automatic::{self, Automatic};
use crate::commands::context::Context;
use crate::commands::lite::stop::asked_port;
use crate::config::Config;
use crate::error::Error;
use crate::error::upgrade::WHAT_WAS_DONE;
use crate::home::Home;
use crate::home::lock::OperationLock;
use crate::home::progress::{Progress, Reporter};
use crate::postgres::Access;
use crate::protocol::child::{RELEASE_SOURCE, RESTORE_OF_ROLLBACK};
use crate::recovery::Recovery;
use crate::recovery::datastore::Datastore;
use crate::schema;
use crate::sys::process::ProcessId;
use crate::sys::{checkpoint, command, files};
use crate::upgrade::plan::Plan;
use crate::upgrade::rollback_record::RollbackRecord;
use crate::upgrade::{Outcome, Status, UpgradeError, history, stage};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// What is known of it.
pub struct RestoreWay {
    pub datastore: Datastore,
    pub plan: Plan,
    /// The newest schema that the release knows that is gone back to.
    pub schema_to: i64,
    pub backup: PathBuf,
    pub was_running: bool,
}

/// Brings the backup back. `alone` is let go for the restore, which takes the operation itself. Gives up while nothing was
/// changed when `cancelled` completes.
pub async fn bring_back(
    context: &Context<'_>,
    way: RestoreWay,
    alone: OperationLock,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, Error> {
    let home = &context.home;
    let recovery = Recovery { reporter: &LoggedSink, ..context.recovery() };
    check(context, &way.datastore)?;
    let RestoreWay { datastore, plan, schema_to, backup, was_running } = way;
    // When it was started with another port than the configured one.
    let port = asked_port(context);
    let config = recovery.running_config()?;
    let Plan { from, to, schema_from, .. } = plan;
    // A name of its own: the backup that is taken now may push the old one out.
    let restored = home.upgrade().join(backup.file_name().unwrap_or_default());
    keep(&backup, &restored).map_err(|error| Error::io("write", &restored, &error))?;
    let mut record = RollbackRecord {
        from: from.clone(),
        to: to.clone(),
        schema_from,
        schema_to,
        restored: below(home, &restored),
        made: None,
        worker: ProcessId::current(),
        restorer: None,
    };
    write(home, &record)?;
    checkpoint("rollback.begun");
    let mut steps = Steps::default();
    let begun = steps.begin("Backing up");
    let made = tokio::select! {
        made = back_up(context, &datastore.access, &config) => made,
        () = cancelled => Err(UpgradeError::Cancelled.into()),
    };
    let made = made.inspect_err(|_| forget(home, &record))?;
    steps.end("Backing up", begun);
    record.made = Some(below(home, &made.path));
    write(home, &record).inspect_err(|_| forget(home, &record))?;
    checkpoint("rollback.backed-up");
    drop(datastore);
    drop(alone);
    let begun = steps.begin("Restoring the backup");
    let stopped = begun;
    let ran = restore_with(&stage::program_of(home, &to), home, &restored, &mut record);
    checkpoint("rollback.restored");
    // Not what the restore says of itself: one that was killed may have come through.
    let schema = schema_now(&recovery).await.map_err(|error| {
        Error { message: format!("the rollback to {to} was interrupted: {}", error.message), ..error }
            .hint("finish it: leoflow rollback")
    })?;
    if schema > schema_to {
        forget(home, &record);
        let why = ran.map_or_else(|error| error.to_string(), |status| status.to_string());
        let goes_on = match was_running.then(|| start(home, port)) {
            None | Some(Ok(())) => format!("{from} goes on as before"),
            Some(Err(error)) => format!("{from} is in force and does not start: {error}"),
        };
        return Err(Error::failed(format!("nothing was changed, {goes_on}: {to} could not restore the backup"))
            .cause(why)
            .hint(WHAT_WAS_DONE)
            .hint(format!("the backup: {}", backup.display()))
            .hint(format!("what is there now is also in {}", made.path.display())));
    }
    steps.end("Restoring the backup", begun);
    record.finish(home)?;
    if was_running {
        let begun = steps.begin("Starting");
        start(home, port).map_err(|error| {
            Error::failed(format!("{to} is back with its data, and does not start: {error}"))
                .hint("leoflow lite start")
                .hint(format!("what was there is in {}", made.path.display()))
        })?;
        steps.end("Starting", begun);
        // A pause that cannot be written down is not shown the next time.
        let _ = history::set_last_pause(home, stopped.elapsed().as_secs_f64());
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
        details: steps.0,
        expected_pause: None,
        pause: None,
        problem: None,
        fault: None,
    })
}

/// Lines of the steps that are done.
#[derive(Default)]
struct Steps(Vec<String>);

impl Steps {
    fn begin(&self, title: &str) -> Instant {
        LoggedSink.report(Progress::Started(title.to_owned()));
        Instant::now()
    }

    fn end(&mut self, title: &str, begun: Instant) {
        let line = format!("{title}... {:.1} s", begun.elapsed().as_secs_f64());
        LoggedSink.report(Progress::Finished(line.clone()));
        self.0.push(line);
    }
}

fn write(home: &Home, record: &RollbackRecord) -> Result<(), Error> {
    record.write(home).map_err(|error| Error::io("write", &home.upgrade(), &error))
}

/// What cannot be removed now is removed by the next command.
fn forget(home: &Home, record: &RollbackRecord) {
    let _ = record.forget(home);
}

/// Starts the release that `bin/` leads to.
fn start(home: &Home, port: Option<u16>) -> Result<(), String> {
    let mut command = Command::new(home.bin().join("leoflow"));
    command.arg("--home").arg(home.root()).args(["lite", "start"]).env_remove(RELEASE_SOURCE);
    command.args(port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    let output = command::output_limited(&mut command, START_LIMIT, OUTPUT_LIMIT).map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(command::failure(&String::from_utf8_lossy(&output.stderr), output.status)),
    }
}

/// A first start after a restore reads every DAG file.
const START_LIMIT: Duration = Duration::from_secs(300);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

async fn back_up(context: &Context<'_>, access: &Access, config: &Config) -> Result<Made, Error> {
    let home = &context.home;
    let pinned = history::ways_back(home).map_err(|error| Error::io("read", &home.upgrade(), &error))?;
    let with = Automatic { home, access, config, version: context.version, pinned: &pinned, reporter: &LoggedSink };
    Ok(automatic::always("rollback", &with).await.map_err(UpgradeError::from)?)
}

/// By the program of the version that the backup is of. What it says goes to our log. It begins once the record names it: an
/// interrupted rollback is not settled before it has ended.
fn restore_with(program: &Path, home: &Home, backup: &Path, record: &mut RollbackRecord) -> io::Result<ExitStatus> {
    let mut command = Command::new(program);
    command.arg("--home").arg(home.root()).args(["lite", "restore", "--force", "--yes", "--input"]).arg(backup);
    // It ends with a way to undo this that an older program cannot go; ours is told afterwards.
    command.env(RESTORE_OF_ROLLBACK, "1").stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn()?;
    record.restorer = ProcessId::of(child.id() as i32);
    let word = record.write(home).and_then(|()| {
        let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
        stdin.write_all(b"\n")
    });
    checkpoint("rollback.restoring");
    // Without the word it ends, having done nothing.
    drop(child.stdin.take());
    let status = child.wait()?;
    word.map(|()| status)
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

/// Refuses beside an instance in a terminal. A datastore that is open for this moment has the home's lock, and nobody else
/// runs.
pub fn check(context: &Context<'_>, datastore: &Datastore) -> Result<(), Error> {
    if datastore.runs_for_lite {
        crate::commands::lite::restore_present::refuse_beside_a_terminal(context)?;
    }
    Ok(())
}

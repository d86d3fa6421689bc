//! The worker of a rollback that restores the backup created before the upgrade. The older release, which the backup
//! belongs to, runs the restore.

use crate::commands::release::worker::LoggedSink;
use crate::context::Context;
use crate::error::Error;
use crate::error::upgrade::SEE_UPGRADE_LOG;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_base::protocol::child::{RELEASE_SOURCE, RESTORE_OF_ROLLBACK};
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::process::ProcessId;
use leoflow_base::sys::process::command;
use leoflow_lifecycle::backup::CreatedBackup;
use leoflow_lifecycle::backup::create::automatic;
use leoflow_lifecycle::operation::OperationContext;
use leoflow_lifecycle::operation::instance;
use leoflow_lifecycle::operation::open::Datastore;
use leoflow_lifecycle::upgrade::plan::UpgradePlan;
use leoflow_lifecycle::upgrade::release::stage;
use leoflow_lifecycle::upgrade::rollback::history;
use leoflow_lifecycle::upgrade::rollback::rollback_record::RollbackRecord;
use leoflow_lifecycle::upgrade::{self, Outcome, Status, UpgradeError};
use leoflow_postgres::Access;
use leoflow_postgres::schema;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// The title of the step that restores.
const RESTORING: &str = "Restoring the backup";

/// A rollback that restores a backup; its record is written.
pub struct Rollback<'a> {
    operation: OperationContext<'a>,
    config: Config,
    record: RollbackRecord,
    /// The backup from before the upgrade.
    backup: PathBuf,
    /// The copy of `backup` that is restored.
    backup_copy: PathBuf,
    was_running: bool,
    /// The port that the running instance's start requested, if it differs from the configured one.
    port: Option<u16>,
    /// The finished steps with their durations, for the report.
    finished_steps: Vec<String>,
}

impl<'a> Rollback<'a> {
    /// Copies the backup and records the rollback. `schema_to` is the newest schema that the target release knows.
    pub fn begin(
        context: &'a Context<'_>,
        plan: UpgradePlan,
        schema_to: i64,
        backup: PathBuf,
        was_running: bool,
    ) -> Result<Self, Error> {
        let home = &context.home;
        let operation = OperationContext { reporter: &LoggedSink, ..context.operation() };
        let port = instance::requested_port(home);
        let config = operation.running_config()?;
        let UpgradePlan { from, to, schema_from, .. } = plan;
        // Restore a copy, because the retention after the new backup may remove the original.
        let backup_copy = home.upgrade().join(backup.file_name().unwrap_or_default());
        copy_backup(&backup, &backup_copy).map_err(Error::cannot("write", &backup_copy))?;
        let record = RollbackRecord {
            from,
            to,
            schema_from,
            schema_to,
            backup: relative_to_home(home, &backup_copy),
            backup_of_current_state: None,
            worker: ProcessId::current(),
            restorer: None,
        };
        record.write(home).map_err(Error::cannot("write", &home.upgrade()))?;
        checkpoint("rollback.begun");
        let finished_steps = Vec::new();
        Ok(Self { operation, config, record, backup, backup_copy, was_running, port, finished_steps })
    }

    /// Restores the backup. Releases `operation_lock` for the restore, which takes the operation lock itself. Cancels
    /// when `cancelled` completes, as long as nothing was changed.
    pub async fn run(
        mut self,
        operation_lock: OperationLock,
        datastore: Datastore,
        cancelled: impl Future<Output = ()>,
    ) -> Result<Outcome, Error> {
        let new_backup = self.back_up(&datastore.access, cancelled).await.inspect_err(|_| self.discard_record())?;
        drop(datastore);
        drop(operation_lock);
        let restore_start = begin_step(RESTORING);
        let restore_status = self.restore();
        checkpoint("rollback.restored");
        // The schema decides, not the exit status: a killed restore may have completed.
        if self.schema_now().await? > self.record.schema_to {
            return Err(self.give_up(restore_status, &new_backup));
        }
        self.end_step(RESTORING, restore_start);
        self.record.finish(self.operation.home)?;
        self.start_if_it_ran(restore_start, &new_backup)?;
        Ok(self.outcome(new_backup))
    }

    /// Backs up the current state and records the backup.
    async fn back_up(&mut self, access: &Access, cancelled: impl Future<Output = ()>) -> Result<CreatedBackup, Error> {
        let OperationContext { home, version, .. } = self.operation;
        let step_start = begin_step("Backing up");
        let create = async {
            let parameters = upgrade::automatic_backup(home, access, &self.config, version, &LoggedSink)?;
            Ok(automatic::create_even_if_empty("rollback", &parameters).await.map_err(UpgradeError::from)?)
        };
        let created: Result<CreatedBackup, Error> = tokio::select! {
            created = create => created,
            () = cancelled => Err(UpgradeError::Cancelled.into()),
        };
        let new_backup = created?;
        self.end_step("Backing up", step_start);
        self.record.backup_of_current_state = Some(relative_to_home(home, &new_backup.path));
        self.record.write(home).map_err(Error::cannot("write", &home.upgrade()))?;
        checkpoint("rollback.backed-up");
        Ok(new_backup)
    }

    /// Restores with the older release's program, whose stderr goes to this process's log. The program waits for a byte
    /// on stdin, which this function writes once the program's pid is in the record: recovery then waits for its end.
    fn restore(&mut self) -> io::Result<ExitStatus> {
        let home = self.operation.home;
        let mut command = Command::new(stage::program_of(home, &self.record.to));
        command.arg("--home").arg(home.root()).args(["lite", "restore", "--force", "--yes", "--input"]);
        // The program's stdout ends with an undo hint that does not work across releases; this command prints its own.
        command.arg(&self.backup_copy).env(RESTORE_OF_ROLLBACK, "1").stdin(Stdio::piped()).stdout(Stdio::null());
        let mut child = command::spawn(&mut command)?;
        self.record.restorer = ProcessId::of(child.id() as i32);
        let started = self.record.write(home).and_then(|()| {
            let mut stdin = child.stdin.take().ok_or(io::ErrorKind::BrokenPipe)?;
            stdin.write_all(b"\n")
        });
        checkpoint("rollback.restoring");
        // Without the byte, the child exits and changes nothing.
        drop(child.stdin.take());
        let status = child.wait()?;
        started.map(|()| status)
    }

    async fn schema_now(&self) -> Result<i64, Error> {
        let read = async {
            let datastore = Datastore::open(&self.operation, "leoflow rollback").await?;
            Ok(schema::current_version(&datastore.connect().await?).await?)
        };
        read.await.map_err(|error: Error| {
            let message = format!("the rollback to {} was interrupted: {}", self.record.to, error.message);
            Error { message, ..error }.hint("finish it with leoflow rollback")
        })
    }

    /// Starts the instance again after a restore that changed nothing.
    fn give_up(&self, restore_status: io::Result<ExitStatus>, new_backup: &CreatedBackup) -> Error {
        let (home, RollbackRecord { from, to, .. }) = (self.operation.home, &self.record);
        self.discard_record();
        let cause = restore_status.map_or_else(|error| error.to_string(), |status| status.to_string());
        let consequence = match self.was_running.then(|| start(home, self.port)) {
            None | Some(Ok(())) => format!("{from} continues as before"),
            Some(Err(error)) => format!("{from} is installed but failed to start: {error}"),
        };
        Error::failed(format!("nothing was changed, {consequence}: {to} failed to restore the backup"))
            .cause(cause)
            .hint(SEE_UPGRADE_LOG)
            .hint(format!("the backup: {}", self.backup.display()))
            .hint(format!("a backup of the current state: {}", new_backup.path.display()))
    }

    /// Starts the restored release if an instance ran before. Requests have waited since `restore_start`.
    fn start_if_it_ran(&mut self, restore_start: Instant, new_backup: &CreatedBackup) -> Result<(), Error> {
        if !self.was_running {
            return Ok(());
        }
        let home = self.operation.home;
        let step_start = begin_step("Starting");
        start(home, self.port).map_err(|error| {
            Error::failed(format!("{} was restored with its data but failed to start: {error}", self.record.to))
                .hint("leoflow lite start")
                .hint(format!("a backup of the previous state: {}", new_backup.path.display()))
        })?;
        self.end_step("Starting", step_start);
        // If recording the pause fails, the next plan does not show it.
        let _ = history::set_last_pause(home, restore_start.elapsed().as_secs_f64());
        Ok(())
    }

    fn outcome(self, new_backup: CreatedBackup) -> Outcome {
        let RollbackRecord { from, to, .. } = &self.record;
        Outcome {
            status: Status::RolledBack,
            previous_version: from.to_string(),
            new_version: to.to_string(),
            commit: None,
            migrations_run: Vec::new(),
            notes: vec![
                "the data was restored from the backup before the upgrade".to_owned(),
                format!("a backup of the previous state:  {}", new_backup.path.display()),
                format!("to return to it:  leoflow upgrade {from} && leoflow lite restore --undo"),
            ],
            backup_path: Some(new_backup.path),
            details: self.finished_steps,
            expected_pause: None,
            pause: None,
            problem_text: None,
            error: None,
        }
    }

    fn end_step(&mut self, title: &str, step_start: Instant) {
        let line = format!("{title}... {:.1} s", step_start.elapsed().as_secs_f64());
        LoggedSink.report(Progress::Finished(line.clone()));
        self.finished_steps.push(line);
    }

    /// Removes the record. If that fails, the next command does it.
    fn discard_record(&self) {
        let _ = self.record.discard(self.operation.home);
    }
}

/// Reports the begin of a step and returns its time.
fn begin_step(title: &str) -> Instant {
    LoggedSink.report(Progress::Started(title.to_owned()));
    Instant::now()
}

/// Starts the release that `bin/` links to.
fn start(home: &Home, port: Option<u16>) -> Result<(), String> {
    let mut command = Command::new(home.bin().join("leoflow"));
    // The source URL may contain a password; the instance does not need it.
    command.arg("--home").arg(home.root()).args(["lite", "start"]).env_remove(RELEASE_SOURCE);
    command.args(port.iter().flat_map(|port| ["--port".to_owned(), port.to_string()]));
    let output = command::output_limited(&mut command, START_LIMIT, OUTPUT_LIMIT).map_err(|error| error.to_string())?;
    match output.status.success() {
        true => Ok(()),
        false => Err(command::failure(&String::from_utf8_lossy(&output.stderr), output.status)),
    }
}

/// Time limit of a start; the first one after a restore parses every DAG file.
const START_LIMIT: Duration = Duration::from_secs(300);
const OUTPUT_LIMIT: u64 = 1024 * 1024;

/// The path relative to the home.
fn relative_to_home(home: &Home, path: &Path) -> PathBuf {
    path.strip_prefix(home.root()).unwrap_or(path).to_owned()
}

/// Links or copies the backup to `target`.
fn copy_backup(backup: &Path, target: &PathBuf) -> io::Result<()> {
    if let Some(folder) = target.parent() {
        files::create_private_dir(folder)?;
    }
    files::remove_any(target)?;
    // A hard link fails if the backup is on another file system.
    std::fs::hard_link(backup, target).or_else(|_| std::fs::copy(backup, target).map(drop))
}

/// Refuses while an instance runs in a terminal. A datastore that this command started for itself holds the home's
/// lock, so no instance runs then.
pub fn refuse_instance_in_terminal(context: &Context<'_>, datastore: &Datastore) -> Result<(), Error> {
    if datastore.is_of_running_instance {
        instance::refuse_in_terminal(&context.home)?;
    }
    Ok(())
}

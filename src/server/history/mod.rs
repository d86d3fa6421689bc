//! Removes old history in batches while the server works: by request (`leoflow db clean`), and on schedule by `history`
//! in `config.yaml`.
//!
//! Each batch is one transaction, so a clean-up that is interrupted has removed whole runs; the next one continues.
//! With an archive, the runs are chosen first, then a backup is created and test-restored, and only the chosen runs are
//! removed: the backup holds every one of them.

pub mod deleted_logs;
pub mod plan;
mod task_logs;

use self::deleted_logs::DeletedLogs;
use crate::http::api_error::ApiError;
use crate::release::own_program;
use crate::state::Core;
use crate::state::database::DatastoreError;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::HistorySettings;
use leoflow_base::home::Home;
use leoflow_base::home::backup_names::HISTORY_PREFIX;
use leoflow_base::home::operations::{Operation, Status};
use leoflow_base::home::upkeep;
use leoflow_base::protocol::task_log;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{blocking, checkpoint, mutex};
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::history::{self, OldRuns, Table};
use leoflow_engine::store::{StoreError, notifications};
use plan::{Plan, PlanError, Request};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Duration of a removal that the number of runs in it is adapted to, and the pause after it.
const BATCH_TIME: Duration = Duration::from_millis(80);
const PAUSE: Duration = Duration::from_millis(25);
const FIRST_RUNS: usize = 8;
const MAX_RUNS: usize = 500;
const ROWS: i64 = 10_000;

/// How long notifications and their deliveries are kept.
const NOTIFICATIONS_KEPT: SignedDuration = SignedDuration::from_hours(90 * 24);
/// Time between two archives of scheduled clean-ups.
const ARCHIVE_INTERVAL: SignedDuration = SignedDuration::from_hours(30 * 24);

#[derive(Debug, thiserror::Error)]
pub enum CleanError {
    #[error(transparent)]
    Plan(#[from] PlanError),
    #[error("a clean-up of the history is running already; wait until it is done")]
    Running,
    #[error("nothing was removed, because the archive was not created: {0}")]
    Archive(#[from] ArchiveError),
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    #[error("failed to remove task logs: {0}")]
    Logs(io::Error),
    #[error("cannot write run/upkeep.json: {0}")]
    Record(io::Error),
}

/// Why an archive was not created.
#[derive(Debug, thiserror::Error)]
pub enum ArchiveError {
    #[error("{}: {error}", path.display())]
    File { path: PathBuf, error: io::Error },
    #[error("{0}")]
    Operation(String),
    #[error(
        "the backup {0} is encrypted and cannot be test-restored here: set backup.identity, or history.archive to off"
    )]
    Encrypted(String),
    #[error("the backup {0} is not good: {1}")]
    Damaged(String, Value),
}

impl From<StoreError> for CleanError {
    fn from(error: StoreError) -> Self {
        Self::Datastore(error.into())
    }
}

impl From<CleanError> for ApiError {
    fn from(error: CleanError) -> Self {
        match error {
            CleanError::Plan(PlanError::Datastore(error)) | CleanError::Datastore(error) => error.into(),
            CleanError::Plan(error @ PlanError::UnknownDag(_)) => Self::not_found(error.to_string()),
            CleanError::Plan(error) => Self::bad_request(error.to_string()),
            error @ (CleanError::Running | CleanError::Archive(_)) => Self::conflict(error.to_string()),
            error @ (CleanError::Logs(_) | CleanError::Record(_)) => Self::internal(&error),
        }
    }
}

/// The removed data, or in a preview the data to remove: rows by table, and bytes of task logs.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize)]
pub struct Removed {
    pub rows: BTreeMap<String, u64>,
    pub task_logs_bytes: u64,
}

impl Removed {
    fn add(&mut self, table: &str, count: u64) {
        if count > 0 {
            *self.rows.entry(table.to_owned()).or_default() += count;
        }
    }
}

/// The last clean-up, or the one that runs.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Progress {
    /// When it began; another one after a restart of the server, which ends a clean-up.
    pub started_at: Option<Timestamp>,
    pub is_running: bool,
    /// What it is doing.
    pub step: &'static str,
    /// Number of runs to remove, and of those that are done.
    pub runs: u64,
    pub done: u64,
    pub removed: Removed,
    /// The archive that holds the removed runs.
    pub archive: Option<PathBuf>,
    /// Why it failed.
    pub error: Option<String>,
}

/// A clean-up that runs until this is dropped.
struct Running<'a>(&'a Cleaner);

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.change(|progress| progress.is_running = false);
    }
}

/// Runs one clean-up at a time.
#[derive(Default)]
pub struct Cleaner(Mutex<Progress>);

impl Cleaner {
    pub fn progress(&self) -> Progress {
        mutex::lock(&self.0).clone()
    }

    fn change(&self, edit: impl FnOnce(&mut Progress)) {
        edit(&mut mutex::lock(&self.0));
    }

    /// Reserves the cleaner; fails while another clean-up runs.
    fn begin(&self) -> Result<(), CleanError> {
        let mut progress = mutex::lock(&self.0);
        if progress.is_running {
            return Err(CleanError::Running);
        }
        let started_at = Some(Timestamp::now());
        *progress = Progress { started_at, is_running: true, step: "planning", ..Progress::default() };
        Ok(())
    }

    /// Starts a clean-up; [`Self::progress`] has its outcome. Fails if the request is invalid.
    pub async fn start(self: &Arc<Self>, core: &Arc<Core>, request: Request) -> Result<(), CleanError> {
        let plan = Plan::new(core, &request, Timestamp::now()).await?;
        // Without a date, the settings decide about the archive too.
        let by_settings = request.before.is_none() && core.config().is_some_and(|config| config.history.archive);
        let archive = request.archive || by_settings;
        self.begin()?;
        let (cleaner, core) = (self.clone(), core.clone());
        tokio::task::spawn_local(async move {
            let _ = cleaner.perform(&core, &plan, archive).await;
        });
        Ok(())
    }

    /// Removes the history over the limits of the settings. With archives, which are whole backups, runs are removed once in a while.
    pub async fn clean_on_schedule(&self, core: &Core, settings: &HistorySettings) -> Result<(), CleanError> {
        let (home, now) = (core.home.clone(), Timestamp::now());
        let client = core.database.get().await?;
        let before = now.checked_sub(NOTIFICATIONS_KEPT).unwrap_or(now);
        notifications::remove_old(&*client, before).await?;
        drop(client);
        let archived_at = blocking::run(move || upkeep::read(&home)?.archived_at).await.ok().flatten();
        let is_recent = archived_at.is_some_and(|at| now.duration_since(at) < ARCHIVE_INTERVAL);
        let archive = settings.archive && !is_recent;
        let tables = if settings.archive && is_recent { vec![Table::TaskLogs] } else { Vec::new() };
        let request = Request { tables, ..Request::default() };
        let plan = match Plan::new(core, &request, Timestamp::now()).await {
            Err(PlanError::NoLimit) => return Ok(()),
            plan => plan?,
        };
        self.begin()?;
        self.perform(core, &plan, archive).await?;
        if self.progress().archive.is_some() {
            upkeep::note_archived(&core.home, now).map_err(CleanError::Record)?;
        }
        Ok(())
    }

    async fn perform(&self, core: &Core, plan: &Plan, archive: bool) -> Result<(), CleanError> {
        // Ends also when this task is aborted, or panics.
        let running = Running(self);
        let outcome = self.remove(core, plan, archive).await;
        self.change(|progress| progress.error = outcome.as_ref().err().map(ToString::to_string));
        drop(running);
        outcome
    }

    async fn remove(&self, core: &Core, plan: &Plan, archive: bool) -> Result<(), CleanError> {
        let chosen = choose(core, plan).await?;
        let runs = chosen.iter().map(|chosen| chosen.run_ids.len() as u64).sum();
        self.change(|progress| progress.runs = runs);
        if archive && (runs > 0 || has_old_rows(core, plan).await?) {
            self.change(|progress| progress.step = "creating an archive");
            let path = create_archive(&core.home).await?;
            self.change(|progress| progress.archive = Some(path));
            checkpoint("history.archived");
        }
        self.change(|progress| progress.step = "removing");
        for chosen in &chosen {
            self.remove_runs(core, chosen).await?;
        }
        for old in &plan.old_rows {
            loop {
                let client = core.database.get().await?;
                let removed = history::remove_old_rows(&*client, old, ROWS).await?;
                drop(client);
                self.change(|progress| progress.removed.add(old.table.name(), removed));
                if removed == 0 {
                    break;
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
        self.remove_logs(core, plan).await?;
        self.change(|progress| progress.step = "returning disk space");
        let client = core.database.get().await?;
        if let Some(before) = plan.old_rows.first().map(|rows| rows.before).filter(|_| !plan.is_restricted) {
            history::remove_remains(&*client, before).await?;
        }
        if runs > 0 || !self.progress().removed.rows.is_empty() {
            history::reclaim_space(&client).await?;
        }
        Ok(())
    }

    /// Removes rows of a DAG's runs in batches, whose size is adapted to the time that they take.
    async fn remove_runs(&self, core: &Core, chosen: &Chosen<'_>) -> Result<(), CleanError> {
        let (mut rest, mut size) = (chosen.run_ids.as_slice(), FIRST_RUNS);
        while !rest.is_empty() {
            let (batch, later) = rest.split_at(size.min(rest.len()));
            let (removed, took) = chosen.remove_batch(core, batch).await?;
            self.change(|progress| {
                progress.removed.add(chosen.table.name(), removed);
                progress.done += batch.len() as u64;
            });
            checkpoint("history.batch");
            rest = later;
            size = if took > BATCH_TIME { size / 2 } else { size * 2 }.clamp(1, MAX_RUNS);
            tokio::time::sleep(PAUSE).await;
        }
        Ok(())
    }

    async fn remove_logs(&self, core: &Core, plan: &Plan) -> Result<(), CleanError> {
        let mut excess = old_logs(core, plan).await?;
        if excess.is_empty() {
            return Ok(());
        }
        // Measuring takes a while, in which a run may have been cleared.
        let unfinished = unfinished_logs(core).await?;
        excess.retain(|(folder, _)| !unfinished.contains(folder));
        let freed = blocking::run(move || task_logs::remove(excess)).await.map_err(io::Error::other);
        let freed = freed.and_then(|freed| freed).map_err(CleanError::Logs)?;
        self.change(|progress| progress.removed.task_logs_bytes += freed);
        Ok(())
    }
}

/// What a clean-up of this request would remove.
pub async fn preview(core: &Core, request: &Request) -> Result<Removed, CleanError> {
    let plan = Plan::new(core, request, Timestamp::now()).await?;
    let client = core.database.get().await?;
    let mut removed = Removed::default();
    for old in plan.old_runs.iter().filter(|_| !plan.run_tables.is_empty()) {
        for (table, count) in history::count_old_runs(&*client, old).await? {
            let is_included = plan.run_tables.contains(&Table::DagRun)
                || plan.run_tables.iter().any(|selected| selected.name() == table);
            removed.add(&table, if is_included { count.unsigned_abs() } else { 0 });
        }
    }
    for old in &plan.old_rows {
        let count = history::count_old_rows(&*client, old).await?;
        removed.add(old.table.name(), count.unsigned_abs());
    }
    drop(client);
    removed.task_logs_bytes = old_logs(core, &plan).await?.iter().map(|(_, bytes)| bytes).sum();
    Ok(removed)
}

/// The runs of a DAG to remove rows of.
struct Chosen<'a> {
    table: Table,
    old: &'a OldRuns,
    run_ids: Vec<String>,
}

async fn choose<'a>(core: &Core, plan: &'a Plan) -> Result<Vec<Chosen<'a>>, CleanError> {
    let client = core.database.get().await?;
    let mut chosen = Vec::new();
    for table in &plan.run_tables {
        for old in &plan.old_runs {
            let run_ids = history::old_runs(&*client, old, *table).await?;
            chosen.push(Chosen { table: *table, old, run_ids });
        }
    }
    Ok(chosen)
}

async fn has_old_rows(core: &Core, plan: &Plan) -> Result<bool, CleanError> {
    let client = core.database.get().await?;
    for old in &plan.old_rows {
        if history::count_old_rows(&*client, old).await? > 0 {
            return Ok(true);
        }
    }
    Ok(false)
}

impl Chosen<'_> {
    /// Removes rows of some of the runs in one transaction, and the logs of runs that are removed. Returns the number of
    /// rows, and how long their removal took, without the check of the runs, whose time does not depend on the number.
    async fn remove_batch(&self, core: &Core, run_ids: &[String]) -> Result<(u64, Duration), DatastoreError> {
        let mut client = core.database.get().await?;
        let transaction = client.transaction().await?;
        let locked = history::lock_old_runs(&transaction, self.old, run_ids).await?;
        let started = Instant::now();
        let mut logs = Vec::new();
        if self.table == Table::DagRun {
            for run_id in &locked {
                let folder = task_log::folder_of_run(&core.home, &self.old.dag_id, run_id);
                logs.push(DeletedLogs::quarantine(&core.home, folder).await);
            }
        }
        let removed = history::remove_of_runs(&transaction, self.table, &self.old.dag_id, &locked).await?;
        transaction.commit().await?;
        let took = started.elapsed();
        logs.into_iter().for_each(DeletedLogs::remove);
        Ok((removed, took))
    }
}

/// The folders with the logs of unfinished runs.
async fn unfinished_logs(core: &Core) -> Result<HashSet<PathBuf>, CleanError> {
    let client = core.database.get().await?;
    let unfinished = history::unfinished_runs(&*client).await?;
    let folder = |run: &RunKey| task_log::folder_of_run(&core.home, &run.dag_id, &run.run_id);
    Ok(unfinished.iter().map(folder).collect())
}

async fn old_logs(core: &Core, plan: &Plan) -> Result<Vec<(PathBuf, u64)>, CleanError> {
    let unfinished = unfinished_logs(core).await?;
    let (home, limits) = (core.home.clone(), plan.logs.clone());
    let excess = blocking::run(move || task_logs::excess(&home, &limits, &unfinished)).await.map_err(io::Error::other);
    excess.and_then(|excess| excess).map_err(CleanError::Logs)
}

/// Creates a backup that automatic removals of backups leave alone, and test-restores it.
async fn create_archive(home: &Home) -> Result<PathBuf, ArchiveError> {
    let name = format!("{HISTORY_PREFIX}{}.tar.zst", Timestamp::now().strftime("%Y%m%dT%H%M%SZ"));
    let folder = home.backups();
    files::create_private_dir(&folder).map_err(|error| ArchiveError::File { path: folder.clone(), error })?;
    let path = folder.join(name);
    let output = path.to_string_lossy().into_owned();
    let created = own_program::perform(home, "backup", ["lite", "backup", "--output", &output]).await;
    let created = succeeded(created)?;
    // An encrypted backup has another suffix.
    let path = created["path"].as_str().map_or(path, PathBuf::from);
    let path_text = path.to_string_lossy().into_owned();
    let verified = own_program::perform(home, "verify", ["lite", "backups", "verify", &path_text]).await;
    let verified = succeeded(verified)?;
    let proof = &verified["backups"][0]["last_verified"];
    if proof["ok"] == true && proof["quick"] == false {
        return Ok(path);
    }
    // It takes space and holds nothing that is going to be removed.
    files::remove_any(&path).map_err(|error| ArchiveError::File { path, error })?;
    Err(match proof["unopened"] == true {
        true => ArchiveError::Encrypted(path_text),
        false => ArchiveError::Damaged(path_text, proof["problem"].clone()),
    })
}

/// The result of an operation, or why it failed.
fn succeeded(operation: Result<Operation, ApiError>) -> Result<Value, ArchiveError> {
    let operation = operation.map_err(|error| ArchiveError::Operation(error.message()))?;
    match operation.status {
        Status::Done => Ok(operation.result.unwrap_or_default()),
        _ => {
            let reason = operation.error.unwrap_or_else(|| format!("the {} failed", operation.kind));
            Err(ArchiveError::Operation(reason))
        }
    }
}

//! Brings a run that was removed from the history back from an archive, for reading.

use super::open::datastore::Datastore;
use super::{OperationContext, OperationError};
use crate::backup::encryption::{Input, Keys};
use crate::backup::format::archive_read::Sink;
use crate::backup::format::manifest::{Content, Entry, TASK_LOGS};
use crate::backup::restore::read;
use crate::backup::retain::catalog;
use crate::backup::verify::Rehearsal;
use leoflow_base::home::backup_names;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::task_log;
use leoflow_base::sys::fs::files;
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::restored_run;
use leoflow_postgres::Login;
use std::fs::OpenOptions;
use std::io::{self, Read};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

/// A run that was brought back.
pub struct RestoredRun {
    pub archive: PathBuf,
    /// Number of its task instances.
    pub task_instances: u64,
    /// Number of its log files.
    pub logs: u64,
}

/// Restores the run from `file`, or from the newest archive of removed history that has it. `command` names the holder
/// of the operation lock in other processes' messages.
pub async fn restore_run(
    context: &OperationContext<'_>,
    run: &RunKey,
    file: Option<&Path>,
    keys: &Keys,
    command: &str,
) -> Result<RestoredRun, OperationError> {
    let home = context.home;
    let _operation_lock = OperationLock::take(home, command)?;
    let datastore = Datastore::open(context, command).await?;
    let access = &datastore.access;
    context.clean_up(Some(access)).await?;
    let mut live = datastore.connect().await?;
    if restored_run::exists(&live, run).await? {
        return Err(OperationError::RunExists(run.clone()));
    }
    let archives = match file {
        Some(file) => vec![file.to_owned()],
        None => archives(context)?,
    };
    for archive in archives {
        let input = Input { path: archive.clone(), keys: keys.clone() };
        let rehearsal = match Rehearsal::restore(home, access, &input, context.version, context.reporter).await {
            Ok(rehearsal) => rehearsal,
            Err(error) if file.is_none() && error.is_refusal() => {
                context.warn(format!("{} cannot be restored: {error}", archive.display()));
                continue;
            }
            Err(error) => return Err(datastore.explain(error)),
        };
        let login = Login { database: rehearsal.database(), ..access.application() };
        let copied = async {
            let loaded = access.connect(&login).await?;
            if !restored_run::has_ended(&loaded, run).await? {
                return Ok(None);
            }
            // Before the run, so that a repeated command completes the logs.
            let folder = task_log::folder_of_run(home, &run.dag_id, &run.run_id);
            let mut logs = RunLogs::new(home.task_logs(), &folder);
            read(&input, &mut logs, context.reporter)?;
            let task_instances = restored_run::copy(&loaded, &mut live, run).await?.unwrap_or(0);
            Ok::<_, OperationError>(Some(RestoredRun { archive: archive.clone(), task_instances, logs: logs.count }))
        };
        let copied = copied.await;
        rehearsal.remove(home, access, context.reporter).await;
        if let Some(restored) = copied? {
            return Ok(restored);
        }
    }
    Err(OperationError::RunNotArchived(run.clone()))
}

/// The archives of removed history in the home, newest first.
fn archives(context: &OperationContext<'_>) -> Result<Vec<PathBuf>, OperationError> {
    let home = context.home;
    let listed = catalog::list(home).map_err(OperationError::io("read", &home.backups()))?;
    let paths = listed.into_iter().map(|backup| backup.path);
    Ok(paths.filter(|path| backup_names::is_history_archive(path)).collect())
}

/// Takes the logs of one run out of a backup.
struct RunLogs {
    task_logs: PathBuf,
    /// Beginning of the paths in the backup.
    prefix: String,
    count: u64,
}

impl RunLogs {
    fn new(task_logs: PathBuf, folder: &Path) -> Self {
        let below = folder.strip_prefix(&task_logs).unwrap_or(folder).to_string_lossy().into_owned();
        Self { task_logs, prefix: format!("{TASK_LOGS}/{below}/"), count: 0 }
    }
}

impl Sink for RunLogs {
    fn entry(&mut self, entry: &Entry, _modified: u64, content: &mut dyn Read) -> io::Result<()> {
        let is_log = entry.path.starts_with(&self.prefix) && matches!(entry.content, Content::File { .. });
        // The manifest's check has refused paths that lead elsewhere.
        let Some(below) = entry.path.strip_prefix(TASK_LOGS).filter(|_| is_log) else { return Ok(()) };
        let path = self.task_logs.join(below.trim_start_matches('/'));
        files::create_private_dir(path.parent().unwrap_or(&self.task_logs))?;
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(path)?;
        io::copy(content, &mut file)?;
        self.count += 1;
        Ok(())
    }
}

//! Removes the task logs of deleted DAGs, runs and task instances: otherwise a new run with the same id continues an
//! old log.
//!
//! Before the deletion is committed, the logs move into quarantine: the folder `,deleted/<random>/<their path below the
//! task logs>`. After the commit, the folder `<random>` gets a suffix, and folders with the suffix can be removed.

use crate::state::Core;
use crate::state::database::DatastoreError;
use leoflow_base::home::{DELETED_TASK_LOGS, Home};
use leoflow_base::protocol::task_log;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{blocking, checkpoint, random};
use leoflow_engine::store::dag::dag_facts;
use leoflow_engine::store::run::runs;
use std::collections::HashSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, LazyLock};
use std::time::Duration;
use tracing::warn;

/// Prefix of the quarantine folders of this server process; folders with another prefix are leftovers.
static OWN_PREFIX: LazyLock<String> = LazyLock::new(random::hex_256);
/// Suffix of a quarantine folder whose deletion is committed.
const COMMITTED: &str = ",committed";
/// Retry delay of the query for the existing runs.
const RETRY: Duration = Duration::from_secs(60);

/// A folder of logs in quarantine. Dropping this moves the folder back, so that a deletion that fails or is cancelled
/// loses no log.
#[must_use]
pub struct DeletedLogs {
    /// `None` if there were no logs.
    moved: Option<Moved>,
}

struct Moved {
    /// The original path.
    folder: PathBuf,
    /// Where the logs are now, below `quarantine`.
    place: PathBuf,
    quarantine: PathBuf,
}

impl DeletedLogs {
    /// Moves `folder` into quarantine. Call this before the deletion is committed: after the commit, a new run may
    /// write to `folder` at once.
    pub async fn quarantine(home: &Home, folder: PathBuf) -> Self {
        let logs = home.task_logs();
        let moved = blocking::run(move || move_away(&logs, folder)).await;
        checkpoint("logs.moved");
        match moved {
            Ok(Ok(moved)) => Self { moved },
            Ok(Err(error)) => {
                warn!("failed to remove task logs: {error}");
                Self { moved: None }
            }
            Err(_) => Self { moved: None },
        }
    }

    /// Removes the logs in the background. Call this after the deletion is committed.
    pub fn remove(mut self) {
        checkpoint("logs.deletion-committed");
        if let Some(Moved { quarantine, .. }) = self.moved.take() {
            let quarantine = mark_committed(quarantine);
            drop(tokio::spawn(blocking::run(move || remove(&quarantine))));
        }
    }
}

impl Drop for DeletedLogs {
    fn drop(&mut self) {
        let Some(Moved { folder, place, quarantine }) = self.moved.take() else { return };
        match put_back(&place, &folder) {
            Ok(()) => remove(&quarantine),
            Err(error) => warn!("the task logs in {} stay in {}: {error}", folder.display(), place.display()),
        }
    }
}

fn move_away(logs: &Path, folder: PathBuf) -> io::Result<Option<Moved>> {
    if !files::is_there(&folder)? {
        return Ok(None);
    }
    let quarantine = logs.join(DELETED_TASK_LOGS).join(format!("{}.{}", *OWN_PREFIX, random::hex_256()));
    let place = quarantine.join(folder.strip_prefix(logs).map_err(io::Error::other)?);
    files::create_private_dir(place.parent().unwrap_or(&quarantine))?;
    match fs::rename(&folder, &place) {
        Ok(()) => Ok(Some(Moved { folder, place, quarantine })),
        Err(error) => {
            remove(&quarantine);
            if error.kind() == io::ErrorKind::NotFound { Ok(None) } else { Err(error) }
        }
    }
}

/// Renames the folder, so that no later server moves its logs back. Returns the new path.
fn mark_committed(quarantine: PathBuf) -> PathBuf {
    let mut marked = quarantine.clone().into_os_string();
    marked.push(COMMITTED);
    match fs::rename(&quarantine, &marked) {
        Ok(()) => marked.into(),
        Err(error) => {
            warn!("failed to rename {}: {error}", quarantine.display());
            quarantine
        }
    }
}

/// Moves a file or folder back. Files that exist at the destination are newer and stay.
fn put_back(from: &Path, to: &Path) -> io::Result<()> {
    if let Some(parent) = to.parent() {
        files::create_private_dir(parent)?;
    }
    match files::rename_to_new(from, to) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        done => return done,
    }
    if from.is_dir() && to.is_dir() {
        for entry in fs::read_dir(from)? {
            let name = entry?.file_name();
            put_back(&from.join(&name), &to.join(&name))?;
        }
    }
    Ok(())
}

/// A quarantine folder of an earlier server.
struct Leftover {
    quarantine: PathBuf,
    /// Log folders of runs whose deletion may have been rolled back, each with its original path.
    runs: Vec<(PathBuf, PathBuf)>,
}

/// Completes the deletions that an earlier server did not: moves the logs of runs that still exist back, and removes
/// the rest. Whether the run exists also decides about the logs of a deleted DAG, which are those of its runs, and
/// about the log of a deleted task instance, which does no harm if it comes back.
pub async fn settle_leftovers(core: Arc<Core>) {
    let logs = core.home.task_logs();
    let leftovers = match blocking::run(move || leftovers(&logs)).await {
        Ok(Ok(leftovers)) if !leftovers.is_empty() => leftovers,
        Ok(Err(error)) => return warn!("failed to read the logs of deleted runs: {error}"),
        _ => return,
    };
    let existing = loop {
        match existing_runs(&core, &leftovers).await {
            Ok(existing) => break existing,
            Err(error) => warn!("failed to settle the logs of deleted runs: {error}; retrying"),
        }
        tokio::time::sleep(RETRY).await;
    };
    // `settle` logs failures.
    drop(blocking::run(move || settle(&leftovers, &existing)).await);
}

fn leftovers(logs: &Path) -> io::Result<Vec<Leftover>> {
    let mut leftovers = Vec::new();
    for folder in children(&logs.join(DELETED_TASK_LOGS))? {
        let name = folder.file_name().unwrap_or_default().to_string_lossy();
        if name.starts_with(OWN_PREFIX.as_str()) {
            continue;
        }
        let mut runs = Vec::new();
        if !name.ends_with(COMMITTED) {
            for run in children(&folder)?.iter().map(|dag| children(dag)).collect::<io::Result<Vec<_>>>()?.concat() {
                let original = logs.join(run.strip_prefix(&folder).map_err(io::Error::other)?);
                runs.push((run, original));
            }
        }
        leftovers.push(Leftover { quarantine: folder, runs });
    }
    Ok(leftovers)
}

/// The paths in a folder; none when it does not exist or is no folder.
fn children(folder: &Path) -> io::Result<Vec<PathBuf>> {
    if !folder.is_dir() {
        return Ok(Vec::new());
    }
    fs::read_dir(folder)?.map(|entry| Ok(entry?.path())).collect()
}

/// Returns the original log folders of the runs that exist, for the DAGs of the leftovers.
async fn existing_runs(core: &Core, leftovers: &[Leftover]) -> Result<HashSet<PathBuf>, DatastoreError> {
    let originals = leftovers.iter().flat_map(|leftover| &leftover.runs).map(|(_, original)| original);
    let of_dags: HashSet<&Path> = originals.filter_map(|original| original.parent()).collect();
    let mut existing = HashSet::new();
    if of_dags.is_empty() {
        return Ok(existing);
    }
    let client = core.database.get().await?;
    for dag_id in dag_facts::ids(&*client).await? {
        if of_dags.contains(task_log::folder_of_dag(&core.home, &dag_id).as_path()) {
            let keys = runs::between(&*client, &dag_id, None, None).await?;
            existing.extend(keys.iter().map(|key| task_log::folder_of_run(&core.home, &dag_id, &key.run_id)));
        }
    }
    Ok(existing)
}

fn settle(leftovers: &[Leftover], existing: &HashSet<PathBuf>) {
    for Leftover { quarantine, runs } in leftovers {
        let mut to_restore = runs.iter().filter(|(_, original)| existing.contains(original));
        let restored = to_restore.try_for_each(|(run, original)| put_back(run, original));
        match restored {
            Ok(()) => remove(quarantine),
            Err(error) => warn!("some task logs stay in {}: {error}", quarantine.display()),
        }
    }
}

fn remove(path: &Path) {
    if let Err(error) = files::remove_any(path) {
        warn!("failed to remove {}: {error}", path.display());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn new_home(folder: &Path) -> Home {
        let home = leoflow_base::home::resolve(Some(&folder.join("h"))).unwrap();
        home.create().unwrap();
        home
    }

    #[tokio::test]
    async fn logs_come_back_unless_the_deletion_is_committed() {
        let folder = tempfile::tempdir().unwrap();
        let home = new_home(folder.path());
        let run = home.task_logs().join("dag/run");
        fs::create_dir_all(run.join("task/-1")).unwrap();
        drop(DeletedLogs::quarantine(&home, run.clone()).await);
        assert!(run.join("task/-1").is_dir());
        assert_eq!(children(&home.task_logs().join(DELETED_TASK_LOGS)).unwrap(), Vec::<PathBuf>::new());
        let pending = DeletedLogs::quarantine(&home, run.join("task/-1")).await;
        assert!(leftovers(&home.task_logs()).unwrap().is_empty(), "this server still works on it");
        drop(pending);
        DeletedLogs::quarantine(&home, run.clone()).await.remove();
        assert!(!run.exists());
        DeletedLogs::quarantine(&home, run).await.remove();
    }

    #[test]
    fn logs_of_runs_that_exist_come_back_after_a_kill() {
        let folder = tempfile::tempdir().unwrap();
        let logs = new_home(folder.path()).task_logs();
        let log = |path: &str| {
            fs::create_dir_all(logs.join(path).parent().unwrap()).unwrap();
            fs::write(logs.join(path), "old").unwrap();
        };
        log(",deleted/1/dag/kept/task/-1/1.log");
        log(",deleted/1/dag/gone/task/-1/1.log");
        log(",deleted/2/dag/again/task/-1/1.log");
        log(",deleted/2/dag/again/task/-1/2.log");
        log(",deleted/3,committed/dag/new/task/-1/1.log");
        log("dag/again/task/-1/2.log");
        fs::write(logs.join("dag/again/task/-1/2.log"), "newer").unwrap();
        let existing = ["dag/kept", "dag/again", "dag/new"].map(|run| logs.join(run));
        settle(&leftovers(&logs).unwrap(), &HashSet::from(existing));
        let read = |path: &str| fs::read_to_string(logs.join(path)).ok();
        assert_eq!(read("dag/kept/task/-1/1.log").as_deref(), Some("old"));
        assert_eq!(read("dag/again/task/-1/1.log").as_deref(), Some("old"));
        assert_eq!(read("dag/again/task/-1/2.log").as_deref(), Some("newer"));
        assert!(!logs.join("dag/gone").exists(), "its run does not exist");
        assert!(!logs.join("dag/new").exists(), "a new run has the id of one that was deleted");
        assert_eq!(children(&logs.join(DELETED_TASK_LOGS)).unwrap(), Vec::<PathBuf>::new());
    }
}

//! What sensors see that wait for other runs, or for files.

use crate::engine::dag::{External, Until};
use crate::engine::planner::graph::Graph;
use crate::engine::planner::snapshot::{Instance, Polled};
use crate::engine::store::StoreError;
use crate::engine::store::other_runs::{self, Counted};
use crate::postgres::GenericClient;
use crate::sys::blocking;
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// For all looks of a run at files, which everything else waits for.
const FILES_LIMIT: Duration = Duration::from_millis(200);
/// Looks that may hang at once, each in a thread.
const MOST_HANGING: usize = 32;

/// Looks at files that have not come back: of a mount that hangs nobody knows when they do.
#[derive(Default, Clone)]
pub struct FileLooks(Arc<Mutex<HashSet<PathBuf>>>);

/// Looks for those whose next look is due, once for all instances of a sensor. `date` is the run's own.
pub async fn look(
    client: &impl GenericClient,
    files: &FileLooks,
    graph: &Graph,
    instances: &[Instance],
    date: Timestamp,
    now: Timestamp,
) -> Result<HashMap<usize, Polled>, StoreError> {
    if graph.polled_sensors.is_empty() {
        return Ok(HashMap::new());
    }
    let is_due = |one: &&Instance| one.waits_since.is_some() && one.due_at.is_some_and(|due| due <= now);
    let due: BTreeSet<usize> = instances.iter().filter(is_due).filter_map(|one| one.task_index).collect();
    let mut paths: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    let mut found = HashMap::new();
    for task_index in due {
        match graph.task(task_index).waits.as_ref().map(|wait| &wait.until) {
            Some(Until::External(external)) => {
                found.insert(task_index, other_run(client, external, date).await?);
            }
            Some(Until::File { path, .. }) => paths.entry(path).or_default().push(task_index),
            _ => {}
        }
    }
    let polled = join_all(paths.keys().map(|path| files.look(path))).await;
    for (sensors, polled) in paths.into_values().zip(polled) {
        found.extend(sensors.into_iter().map(|task_index| (task_index, polled)));
    }
    Ok(found)
}

/// As its own code does.
async fn other_run(client: &impl GenericClient, external: &External, date: Timestamp) -> Result<Polled, StoreError> {
    let delta = SignedDuration::try_from_secs_f64(external.execution_delta).ok();
    let Some(date) = delta.and_then(|delta| date.checked_sub(delta).ok()) else { return Ok(Polled::NeedsProcess) };
    let (counted, wanted) = match (&external.task_ids, &external.group_id) {
        (Some(task_ids), _) => (Counted::Tasks(task_ids.clone()), task_ids.len()),
        (None, Some(group_id)) => (Counted::Group(group_id.clone()), 1),
        (None, None) => (Counted::Runs, 1),
    };
    let count = async |states: &[String]| {
        if states.is_empty() {
            return Ok(Some(0));
        }
        match other_runs::count(client, &external.dag_id, &counted, &[date], states).await {
            Ok(count) => Ok(Some(count)),
            // A group of a DAG that is not there.
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let bad = count(&external.failed_or_skipped_states).await?;
    let (Some(0), Some(there)) = (bad, count(&external.allowed_states).await?) else { return Ok(Polled::NeedsProcess) };
    Ok(if usize::try_from(there) == Ok(wanted) { Polled::There } else { Polled::NotYet })
}

impl FileLooks {
    /// Its own code decides on what is neither absent nor a file, and on a file system that does not answer.
    async fn look(&self, path: &Path) -> Polled {
        let hanging = self.0.clone();
        {
            let mut hanging = hanging.lock().unwrap_or_else(PoisonError::into_inner);
            if hanging.len() >= MOST_HANGING || !hanging.insert(path.to_owned()) {
                return Polled::NeedsProcess;
            }
        }
        let path = path.to_owned();
        let look = blocking::run(move || {
            let found = std::fs::metadata(&path);
            hanging.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            found
        });
        match tokio::time::timeout(FILES_LIMIT, look).await {
            Ok(Ok(Ok(found))) if found.is_file() => Polled::There,
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::NotFound => Polled::NotYet,
            _ => Polled::NeedsProcess,
        }
    }
}

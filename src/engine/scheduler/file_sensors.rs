//! Polls the sensors that wait for other runs or for files, without starting their processes.

use crate::model::dag::{External, Until};
use crate::planner::graph::Graph;
use crate::planner::snapshot::{Instance, Polled};
use crate::store::StoreError;
use crate::store::run::other_runs::{self, CountTarget};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::sys::blocking;
use leoflow_postgres::GenericClient;
use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

/// Time limit for all file checks of a run, which block the scheduler.
const FILE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum number of file checks that may hang at once, each in a thread.
const MAX_HANGING: usize = 32;

/// Paths of file checks that have not returned; a check on a mount that hangs may never return.
#[derive(Default, Clone)]
pub struct FileSensors(Arc<Mutex<HashSet<PathBuf>>>);

/// Polls the sensors whose poke is due, once for all instances of a sensor. `date` is the run's logical date or, if it
/// has none, `run_after`. Returns the results by task index.
pub async fn poll(
    client: &impl GenericClient,
    files: &FileSensors,
    graph: &Graph,
    instances: &[Instance],
    date: Timestamp,
    now: Timestamp,
) -> Result<HashMap<usize, Polled>, StoreError> {
    if graph.polled_sensors.is_empty() {
        return Ok(HashMap::new());
    }
    let is_due = |instance: &&Instance| instance.waits_since.is_some() && instance.due_at.is_some_and(|due| due <= now);
    let due: BTreeSet<usize> = instances.iter().filter(is_due).filter_map(|instance| instance.task_index).collect();
    let mut paths: BTreeMap<&Path, Vec<usize>> = BTreeMap::new();
    let mut results = HashMap::new();
    for task_index in due {
        match graph.task(task_index).waits.as_ref().map(|wait| &wait.until) {
            Some(Until::External(external)) => {
                results.insert(task_index, poll_external(client, external, date).await?);
            }
            Some(Until::File { path, .. }) => paths.entry(path).or_default().push(task_index),
            _ => {}
        }
    }
    let polled = join_all(paths.keys().map(|path| files.poll(path))).await;
    for (sensors, polled) in paths.into_values().zip(polled) {
        results.extend(sensors.into_iter().map(|task_index| (task_index, polled)));
    }
    Ok(results)
}

/// Evaluates the condition of an ExternalTaskSensor as its own code does.
async fn poll_external(
    client: &impl GenericClient,
    external: &External,
    date: Timestamp,
) -> Result<Polled, StoreError> {
    let delta = SignedDuration::try_from_secs_f64(external.execution_delta).ok();
    let Some(date) = delta.and_then(|delta| date.checked_sub(delta).ok()) else { return Ok(Polled::NeedsProcess) };
    let (target, expected) = match (&external.task_ids, &external.group_id) {
        (Some(task_ids), _) => (CountTarget::Tasks(task_ids.clone()), task_ids.len()),
        (None, Some(group_id)) => (CountTarget::Group(group_id.clone()), 1),
        (None, None) => (CountTarget::Runs, 1),
    };
    let count = async |states: &[String]| {
        if states.is_empty() {
            return Ok(Some(0));
        }
        match other_runs::count(client, &external.dag_id, &target, &[date], states).await {
            Ok(count) => Ok(Some(count)),
            // The DAG of the task group does not exist.
            Err(StoreError::NotFound { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    };
    let failed = count(&external.failed_or_skipped_states).await?;
    let (Some(0), Some(allowed)) = (failed, count(&external.allowed_states).await?) else {
        return Ok(Polled::NeedsProcess);
    };
    Ok(if usize::try_from(allowed) == Ok(expected) { Polled::Met } else { Polled::NotYet })
}

impl FileSensors {
    /// Checks whether the file exists. The sensor's own code decides if the path is no regular file, or if the file
    /// system does not answer in time.
    async fn poll(&self, path: &Path) -> Polled {
        let hanging = self.0.clone();
        {
            let mut hanging = hanging.lock().unwrap_or_else(PoisonError::into_inner);
            if hanging.len() >= MAX_HANGING || !hanging.insert(path.to_owned()) {
                return Polled::NeedsProcess;
            }
        }
        let path = path.to_owned();
        let check = blocking::run(move || {
            let metadata = std::fs::metadata(&path);
            hanging.lock().unwrap_or_else(PoisonError::into_inner).remove(&path);
            metadata
        });
        match tokio::time::timeout(FILE_TIMEOUT, check).await {
            Ok(Ok(Ok(metadata))) if metadata.is_file() => Polled::Met,
            Ok(Ok(Err(error))) if error.kind() == ErrorKind::NotFound => Polled::NotYet,
            _ => Polled::NeedsProcess,
        }
    }
}

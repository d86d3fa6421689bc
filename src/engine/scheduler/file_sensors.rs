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
use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time limit for all file checks of a run, which block the scheduler.
const FILE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum number of file checks that run at once, each in a thread.
const MAX_RUNNING: usize = 32;
/// A file check that takes this long hangs; on a mount that hangs, it may never return.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// How long a late answer waits for the next poke of its sensor.
const KEEP_ANSWERS: Duration = Duration::from_secs(3600);

/// File checks that run, or whose answer came after `FILE_TIMEOUT`.
#[derive(Default, Clone)]
pub struct FileSensors(Arc<Mutex<HashMap<PathBuf, Check>>>);

enum Check {
    Running { since: Instant },
    Answered { at: Instant, answer: Polled },
}

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
    /// Checks whether the file exists.
    async fn poll(&self, path: &Path) -> Polled {
        self.poll_with(path, |path| std::fs::metadata(path)).await
    }

    /// Checks a file with `check`. An answer after `FILE_TIMEOUT` counts at the next poke. The sensor's own code decides
    /// if the path is no regular file, or if the file system does not answer.
    async fn poll_with(
        &self,
        path: &Path,
        check: impl FnOnce(&Path) -> io::Result<Metadata> + Send + 'static,
    ) -> Polled {
        if let Some(polled) = self.begin(path) {
            return polled;
        }
        let (checks, owned) = (self.0.clone(), path.to_owned());
        let answer = blocking::run(move || {
            let answer = polled(check(&owned));
            lock(&checks).insert(owned, Check::Answered { at: Instant::now(), answer });
        });
        // Without an answer in time, it counts at the next poke.
        let _ = tokio::time::timeout(FILE_TIMEOUT, answer).await;
        self.answer(path).unwrap_or(Polled::NotYet)
    }

    /// Records the start of a check. Returns the result instead if an earlier check decides, or has not returned.
    fn begin(&self, path: &Path) -> Option<Polled> {
        let mut checks = lock(&self.0);
        // Answers that no sensor has asked for again.
        checks.retain(|_, check| !matches!(check, Check::Answered { at, .. } if at.elapsed() > KEEP_ANSWERS));
        let running = checks.values().filter(|check| matches!(check, Check::Running { .. })).count();
        match checks.get(path) {
            Some(Check::Running { since }) if since.elapsed() < HANGS_AFTER => return Some(Polled::NotYet),
            Some(Check::Running { .. }) => return Some(Polled::NeedsProcess),
            // The file may have appeared since.
            Some(Check::Answered { answer: Polled::NotYet, .. }) | None => {}
            Some(Check::Answered { answer, .. }) => {
                let answer = *answer;
                checks.remove(path);
                return Some(answer);
            }
        }
        if running >= MAX_RUNNING {
            return Some(Polled::NeedsProcess);
        }
        checks.insert(path.to_owned(), Check::Running { since: Instant::now() });
        None
    }

    /// Takes the answer of the check of `path`, if it has returned.
    fn answer(&self, path: &Path) -> Option<Polled> {
        let mut checks = lock(&self.0);
        let Some(Check::Answered { answer, .. }) = checks.get(path) else { return None };
        let answer = *answer;
        checks.remove(path);
        Some(answer)
    }
}

fn lock(checks: &Mutex<HashMap<PathBuf, Check>>) -> MutexGuard<'_, HashMap<PathBuf, Check>> {
    checks.lock().unwrap_or_else(PoisonError::into_inner)
}

fn polled(metadata: io::Result<Metadata>) -> Polled {
    match metadata {
        Ok(metadata) if metadata.is_file() => Polled::Met,
        Err(error) if error.kind() == ErrorKind::NotFound => Polled::NotYet,
        _ => Polled::NeedsProcess,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    const PATH: &str = "/slow/file";

    /// Begins a check that returns once the sender is dropped, with the metadata of `found`.
    async fn poll_slowly(sensors: &FileSensors, found: &'static str) -> (Polled, mpsc::Sender<()>) {
        let (sender, receiver) = mpsc::channel::<()>();
        let check = move |_: &Path| {
            let _ = receiver.recv();
            std::fs::metadata(found)
        };
        (sensors.poll_with(Path::new(PATH), check).await, sender)
    }

    async fn wait_answered(sensors: &FileSensors) {
        while !matches!(lock(&sensors.0).get(Path::new(PATH)), Some(Check::Answered { .. })) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn unexpected(_: &Path) -> io::Result<Metadata> {
        Err(ErrorKind::PermissionDenied.into())
    }

    #[tokio::test]
    async fn an_answer_in_time_decides_at_once() {
        let sensors = FileSensors::default();
        assert_eq!(sensors.poll(Path::new("/proc/self/status")).await, Polled::Met);
        assert_eq!(sensors.poll(Path::new("/proc/self/none")).await, Polled::NotYet);
        assert_eq!(sensors.poll(Path::new("/proc/self")).await, Polled::NeedsProcess);
        assert!(lock(&sensors.0).is_empty());
    }

    #[tokio::test]
    async fn a_late_answer_decides_at_the_next_poke() {
        let sensors = FileSensors::default();
        for (found, expected) in [("/proc/self/status", Polled::Met), ("/proc/self", Polled::NeedsProcess)] {
            let (polled, sender) = poll_slowly(&sensors, found).await;
            assert_eq!(polled, Polled::NotYet);
            assert_eq!(sensors.poll_with(Path::new(PATH), unexpected).await, Polled::NotYet, "still running");
            drop(sender);
            wait_answered(&sensors).await;
            assert_eq!(sensors.poll_with(Path::new(PATH), unexpected).await, expected);
            assert!(lock(&sensors.0).is_empty());
        }
        // The file may appear after a late answer that it does not exist.
        let (_, sender) = poll_slowly(&sensors, "/proc/self/none").await;
        drop(sender);
        wait_answered(&sensors).await;
        let appeared = |_: &Path| std::fs::metadata("/proc/self/status");
        assert_eq!(sensors.poll_with(Path::new(PATH), appeared).await, Polled::Met);
    }

    #[tokio::test]
    async fn a_hanging_check_needs_a_process() {
        let sensors = FileSensors::default();
        let long_ago = Instant::now().checked_sub(HANGS_AFTER).unwrap();
        lock(&sensors.0).insert(PATH.into(), Check::Running { since: long_ago });
        assert_eq!(sensors.poll_with(Path::new(PATH), unexpected).await, Polled::NeedsProcess);
        for index in 1..MAX_RUNNING {
            lock(&sensors.0).insert(format!("/slow/{index}").into(), Check::Running { since: Instant::now() });
        }
        assert_eq!(sensors.poll(Path::new("/proc/self/status")).await, Polled::NeedsProcess);
    }
}

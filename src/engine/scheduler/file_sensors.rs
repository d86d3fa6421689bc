//! Polls the sensors that wait for other runs or for files, without starting their processes.

use crate::model::dag::{External, Until};
use crate::planner::graph::Graph;
use crate::planner::snapshot::{Instance, Polled};
use crate::store::instance::sdk_queries::{self, CountTarget};
use crate::store::{Result, StoreError};
use futures_util::future::join_all;
use jiff::{SignedDuration, Timestamp};
use leoflow_base::sys::blocking;
use leoflow_postgres::GenericClient;
use std::collections::{BTreeMap, HashMap};
use std::fs::Metadata;
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

/// Time limit for all file checks of a run, which block the scheduler. A slower answer counts at the next poke.
const FILE_TIMEOUT: Duration = Duration::from_millis(200);
/// Maximum number of file checks that run at once, each in a thread.
const MAX_RUNNING: usize = 32;
/// A file check that takes this long hangs; on a mount that hangs, it may never return.
const HANGS_AFTER: Duration = Duration::from_secs(10);
/// Maximum number of late answers that wait for the next poke of their sensors.
const MAX_KEPT: usize = 1000;

/// File checks that run, and late answers.
#[derive(Clone)]
pub struct FileSensors {
    checks: Arc<Mutex<Checks>>,
    /// `FILE_TIMEOUT`, except in tests.
    timeout: Duration,
}

impl Default for FileSensors {
    fn default() -> Self {
        Self { checks: Arc::default(), timeout: FILE_TIMEOUT }
    }
}

#[derive(Default)]
struct Checks {
    /// Since when the check of each path runs; there is one at a time.
    running: HashMap<PathBuf, Instant>,
    answers: HashMap<Sensor, Answer>,
}

/// The path of a sensor's file, and since when the first of its due instances waits: a late answer counts for no other
/// run, and for no other try of a sensor that is not mapped.
type Sensor = (PathBuf, Timestamp);

#[derive(Clone, Copy)]
struct Answer {
    polled: Polled,
    is_slow: bool,
}

/// What a poke does.
enum Poke {
    /// An earlier check decides.
    Decided(Polled),
    /// Begins a check and waits for its answer.
    AwaitCheck,
    /// Begins a check whose answer counts at the next poke, because the last one was slow.
    BeginCheck,
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
) -> Result<HashMap<usize, Polled>> {
    if graph.polled_sensors.is_empty() {
        return Ok(HashMap::new());
    }
    let is_due = |instance: &&Instance| instance.waits_since.is_some() && instance.due_at.is_some_and(|due| due <= now);
    // The instances of a sensor, each with the time since which the first of them waits.
    let mut due: BTreeMap<usize, Timestamp> = BTreeMap::new();
    for instance in instances.iter().filter(is_due) {
        if let (Some(task_index), Some(since)) = (instance.task_index, instance.waits_since) {
            due.entry(task_index).and_modify(|first| *first = since.min(*first)).or_insert(since);
        }
    }
    let mut paths: BTreeMap<Sensor, Vec<usize>> = BTreeMap::new();
    let mut results = HashMap::new();
    for (task_index, since) in due {
        match graph.task(task_index).waits.as_ref().map(|wait| &wait.until) {
            Some(Until::External(external)) => {
                results.insert(task_index, poll_external(client, external, date).await?);
            }
            Some(Until::File { path, .. }) => paths.entry((path.clone(), since)).or_default().push(task_index),
            _ => {}
        }
    }
    let polled = join_all(paths.keys().map(|sensor| files.poll(sensor))).await;
    for (sensors, polled) in paths.into_values().zip(polled) {
        results.extend(sensors.into_iter().map(|task_index| (task_index, polled)));
    }
    Ok(results)
}

/// Evaluates the condition of an ExternalTaskSensor as its own code does.
async fn poll_external(client: &impl GenericClient, external: &External, date: Timestamp) -> Result<Polled> {
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
        match sdk_queries::count(client, &external.dag_id, &target, &[date], states).await {
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
    async fn poll(&self, sensor: &Sensor) -> Polled {
        self.poll_with(sensor, |path| std::fs::metadata(path)).await
    }

    /// Checks a file with `check`. The sensor's own code decides if the path is no regular file, or if the file system
    /// does not answer.
    async fn poll_with(
        &self,
        sensor: &Sensor,
        check: impl FnOnce(&Path) -> io::Result<Metadata> + Send + 'static,
    ) -> Polled {
        let poke = self.begin(sensor);
        if let Poke::Decided(polled) = poke {
            return polled;
        }
        let (checks, sensor_of_check, timeout) = (self.checks.clone(), sensor.clone(), self.timeout);
        let answer = blocking::begin(move || {
            let begun = Instant::now();
            let polled = polled(check(&sensor_of_check.0));
            let is_slow = begun.elapsed() > timeout;
            let mut checks = lock(&checks);
            checks.running.remove(&sensor_of_check.0);
            checks.answers.insert(sensor_of_check, Answer { polled, is_slow });
        });
        if let Poke::BeginCheck = poke {
            return Polled::NotYet;
        }
        // Without an answer in time, it counts at the next poke.
        let _ = tokio::time::timeout(timeout, answer).await;
        let mut checks = lock(&self.checks);
        match checks.answers.get(sensor).copied() {
            Some(Answer { polled, is_slow: false }) => {
                checks.answers.remove(sensor);
                polled
            }
            _ => Polled::NotYet,
        }
    }

    /// Decides what a poke does, and records the check that it begins.
    fn begin(&self, sensor: &Sensor) -> Poke {
        let mut checks = lock(&self.checks);
        let poke = match checks.answers.get(sensor).copied() {
            // The file may have appeared since.
            Some(Answer { polled: Polled::NotYet, is_slow: true }) => Poke::BeginCheck,
            Some(Answer { polled: Polled::NotYet, .. }) | None => Poke::AwaitCheck,
            Some(Answer { polled, .. }) => {
                checks.answers.remove(sensor);
                return Poke::Decided(polled);
            }
        };
        match checks.running.get(&sensor.0) {
            Some(since) if since.elapsed() < HANGS_AFTER => return Poke::Decided(Polled::NotYet),
            Some(_) => return Poke::Decided(Polled::NeedsProcess),
            None if checks.running.len() >= MAX_RUNNING => return Poke::Decided(Polled::NeedsProcess),
            None => {}
        }
        if checks.answers.len() > MAX_KEPT {
            // Those of sensors that have ended otherwise; a sensor that still waits checks again.
            checks.answers.clear();
        }
        checks.running.insert(sensor.0.clone(), Instant::now());
        poke
    }
}

fn lock(checks: &Mutex<Checks>) -> MutexGuard<'_, Checks> {
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

    fn sensor(path: &str) -> Sensor {
        (path.into(), Timestamp::UNIX_EPOCH)
    }

    /// Begins a check that returns once the sender is dropped, with the metadata of `found`.
    async fn poll_slowly(sensors: &FileSensors, found: &'static str) -> (Polled, mpsc::Sender<()>) {
        let (sender, receiver) = mpsc::channel::<()>();
        let check = move |_: &Path| {
            let _ = receiver.recv();
            std::fs::metadata(found)
        };
        (sensors.poll_with(&sensor("/slow"), check).await, sender)
    }

    async fn wait_answered(sensors: &FileSensors) {
        while !lock(&sensors.checks).answers.contains_key(&sensor("/slow")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }

    fn is_empty(sensors: &FileSensors) -> bool {
        let checks = lock(&sensors.checks);
        checks.running.is_empty() && checks.answers.is_empty()
    }

    fn unexpected(_: &Path) -> io::Result<Metadata> {
        Err(ErrorKind::PermissionDenied.into())
    }

    fn with_timeout(timeout: Duration) -> FileSensors {
        FileSensors { timeout, ..FileSensors::default() }
    }

    #[tokio::test]
    async fn an_answer_in_time_decides_at_once() {
        let sensors = with_timeout(Duration::from_secs(60));
        assert_eq!(sensors.poll(&sensor("/proc/self/status")).await, Polled::Met);
        assert_eq!(sensors.poll(&sensor("/proc/self/none")).await, Polled::NotYet);
        assert_eq!(sensors.poll(&sensor("/proc/self")).await, Polled::NeedsProcess);
        assert!(is_empty(&sensors));
    }

    #[tokio::test]
    async fn a_late_answer_decides_at_the_next_poke() {
        let sensors = with_timeout(Duration::from_millis(20));
        for (found, expected) in [("/proc/self/status", Polled::Met), ("/proc/self", Polled::NeedsProcess)] {
            let (polled, sender) = poll_slowly(&sensors, found).await;
            assert_eq!(polled, Polled::NotYet);
            assert_eq!(sensors.poll_with(&sensor("/slow"), unexpected).await, Polled::NotYet, "still running");
            drop(sender);
            wait_answered(&sensors).await;
            // Another try of the sensor checks for itself.
            let other_try = ("/slow".into(), Timestamp::now());
            assert!(matches!(sensors.begin(&other_try), Poke::AwaitCheck));
            lock(&sensors.checks).running.clear();
            assert_eq!(sensors.poll_with(&sensor("/slow"), unexpected).await, expected);
            assert!(is_empty(&sensors));
        }
    }

    #[tokio::test]
    async fn a_check_after_a_slow_one_does_not_delay_the_scheduler() {
        // With this limit, waiting for the check would never end.
        let sensors = with_timeout(Duration::MAX);
        let slow = Answer { polled: Polled::NotYet, is_slow: true };
        lock(&sensors.checks).answers.insert(sensor("/slow"), slow);
        let (polled, sender) = poll_slowly(&sensors, "/proc/self/status").await;
        assert_eq!(polled, Polled::NotYet);
        lock(&sensors.checks).answers.clear();
        drop(sender);
        wait_answered(&sensors).await;
        assert_eq!(sensors.poll_with(&sensor("/slow"), unexpected).await, Polled::Met);
    }

    #[tokio::test]
    async fn a_hanging_check_needs_a_process() {
        let sensors = FileSensors::default();
        let long_ago = Instant::now().checked_sub(HANGS_AFTER).unwrap();
        lock(&sensors.checks).running.insert("/slow".into(), long_ago);
        // Each further try of a sensor of this path would take another thread.
        for since in [Timestamp::UNIX_EPOCH, Timestamp::now()] {
            assert_eq!(sensors.poll_with(&("/slow".into(), since), unexpected).await, Polled::NeedsProcess);
        }
        for index in 1..MAX_RUNNING {
            lock(&sensors.checks).running.insert(format!("/slow/{index}").into(), Instant::now());
        }
        assert_eq!(sensors.poll(&sensor("/proc/self/status")).await, Polled::NeedsProcess);
    }
}

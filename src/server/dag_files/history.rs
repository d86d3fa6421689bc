//! Remembers for each DAG file whether its last parse was slow, and when to retry a parse that failed transiently.
//! Pure: time is passed as a value.

use crate::dag_code::slot_policy::Pace;
use leoflow_python::Stamp;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// Delay of the retry after the first transient failure. It doubles with each further failure in a row.
fn first_delay() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_IMPORT_RETRY", Duration::from_secs(10))
}
const MAX_DELAY: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct ParseHistory {
    files: HashMap<PathBuf, FileHistory>,
}

struct FileHistory {
    /// The pace of the last parse.
    pace: Pace,
    /// Set if the last parse failed transiently.
    retry: Option<Retry>,
}

struct Retry {
    /// Stamp of the DAG file at the failure. With another stamp, the next failure counts as the first one.
    stamp: Option<Stamp>,
    /// Number of consecutive failures, from which the delay is computed.
    failures: u32,
    due: Instant,
    /// True until the next parse of the file starts.
    is_waiting: bool,
}

fn retry_delay(failures: u32) -> Duration {
    first_delay().saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(MAX_DELAY)
}

impl ParseHistory {
    /// Returns the pace of the file's last parse; `Quick` for a file that was not parsed yet.
    pub fn pace(&self, path: &Path) -> Pace {
        self.files.get(path).map_or(Pace::Quick, |history| history.pace)
    }

    /// Records that a parse started, for any reason.
    pub fn started(&mut self, path: &Path) {
        if let Some(retry) = self.files.get_mut(path).and_then(|history| history.retry.as_mut()) {
            retry.is_waiting = false;
        }
    }

    /// Records a success or a permanent failure; neither is retried.
    pub fn finished(&mut self, path: &Path, pace: Pace) {
        self.files.insert(path.to_owned(), FileHistory { pace, retry: None });
    }

    /// Records a transient failure; returns the delay until the retry. Another failure before the retry is due, for
    /// example of a parse after an imported module changed, is not counted, and the due time stays. If the DAG file
    /// itself changed, the failure counts as the first one.
    pub fn failed(&mut self, path: &Path, pace: Pace, stamp: Option<Stamp>, now: Instant) -> Duration {
        let previous = self.files.remove(path).and_then(|history| history.retry).filter(|retry| retry.stamp == stamp);
        let failures = previous.as_ref().map_or(1, |retry| retry.failures + u32::from(retry.due <= now));
        let due = previous.filter(|retry| retry.due > now).map_or(now + retry_delay(failures), |retry| retry.due);
        let retry = Some(Retry { stamp, failures, due, is_waiting: true });
        self.files.insert(path.to_owned(), FileHistory { pace, retry });
        due - now
    }

    /// Returns when the next retry is due; `None` when none is waiting.
    pub fn next_due(&self) -> Option<Instant> {
        self.waiting().map(|(_, retry)| retry.due).min()
    }

    /// Returns the files whose retry is due.
    pub fn due(&self, now: Instant) -> Vec<PathBuf> {
        self.waiting().filter(|(_, retry)| retry.due <= now).map(|(path, _)| path.clone()).collect()
    }

    /// Forgets the files for which `is_known` returns false.
    pub fn keep_only(&mut self, is_known: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| is_known(path));
    }

    /// Returns the files with a retry that has not started.
    fn waiting(&self) -> impl Iterator<Item = (&PathBuf, &Retry)> {
        let retries = self.files.iter().filter_map(|(path, history)| Some((path, history.retry.as_ref()?)));
        retries.filter(|(_, retry)| retry.is_waiting)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn retry_delays_grow_up_to_an_hour() {
        let (mut history, path, mut now) = (ParseHistory::default(), PathBuf::from("/w/dag.py"), Instant::now());
        let mut delays = Vec::new();
        for _ in 0..12 {
            let delay = history.failed(&path, Pace::Slow, None, now);
            assert_eq!((history.next_due(), history.due(now)), (Some(now + delay), Vec::new()));
            now += delay;
            assert_eq!(history.due(now), std::slice::from_ref(&path));
            history.started(&path);
            assert_eq!((history.next_due(), history.due(now)), (None, Vec::new()), "it is running");
            delays.push(delay.as_secs());
        }
        assert_eq!(delays, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
        assert_eq!(retry_delay(u32::MAX), MAX_DELAY);
        history.finished(&path, Pace::Quick);
        assert_eq!(history.failed(&path, Pace::Quick, None, now), first_delay(), "after a success");
    }

    #[test]
    fn an_early_retry_keeps_the_next_due_time() {
        let (mut history, path, now) = (ParseHistory::default(), PathBuf::from("/w/dag.py"), Instant::now());
        history.failed(&path, Pace::Slow, None, now);
        let early = now + Duration::from_secs(4);
        history.started(&path);
        assert_eq!(history.failed(&path, Pace::Slow, None, early), Duration::from_secs(6));
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of_path(file.path());
        assert_eq!(history.failed(&path, Pace::Slow, stamp, early), first_delay(), "after a change");
        history.keep_only(|_| false);
        assert_eq!(history.next_due(), None);
    }

    #[test]
    fn remembers_the_pace_of_the_last_parse() {
        let (mut history, path) = (ParseHistory::default(), Path::new("/w/dag.py"));
        assert_eq!(history.pace(path), Pace::Quick);
        history.finished(path, Pace::Slow);
        assert_eq!(history.pace(path), Pace::Slow);
        history.failed(path, Pace::Quick, None, Instant::now());
        assert_eq!(history.pace(path), Pace::Quick);
    }
}

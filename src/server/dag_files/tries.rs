//! What earlier parses of each file say about the next one: whether it is slow, and when it is tried again after a
//! failure that may pass. Pure: the time comes as a value.

use super::super::slot_policy::Pace;
use crate::python::Stamp;
use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::time::Instant;

/// After the first failure in a row; doubled with each more.
fn first_pause() -> Duration {
    crate::sys::limit("LEOFLOW_IMPORT_RETRY", Duration::from_secs(10))
}
const LONGEST_PAUSE: Duration = Duration::from_secs(3600);

#[derive(Default)]
pub struct Tries {
    files: HashMap<PathBuf, Tried>,
}

struct Tried {
    pace: Pace,
    retry: Option<Retry>,
}

struct Retry {
    /// How the file was: after a change the pauses begin with the first one.
    stamp: Option<Stamp>,
    failures: u32,
    due: Instant,
    /// No parse has begun since.
    waits: bool,
}

fn pause(failures: u32) -> Duration {
    first_pause().saturating_mul(1_u32.checked_shl(failures.saturating_sub(1)).unwrap_or(u32::MAX)).min(LONGEST_PAUSE)
}

impl Tries {
    pub fn pace(&self, path: &Path) -> Pace {
        self.files.get(path).map_or(Pace::Quick, |tried| tried.pace)
    }

    /// For whatever reason.
    pub fn begins(&mut self, path: &Path) {
        if let Some(retry) = self.files.get_mut(path).and_then(|tried| tried.retry.as_mut()) {
            retry.waits = false;
        }
    }

    /// It has given something, or failed for a reason that lasts.
    pub fn ended(&mut self, path: &Path, pace: Pace) {
        self.files.insert(path.to_owned(), Tried { pace, retry: None });
    }

    /// It has failed for a reason that may pass; how long the pause is until it is tried again. One that began before its
    /// time, because something else had changed, does not make the pauses longer.
    pub fn failed(&mut self, path: &Path, pace: Pace, stamp: Option<Stamp>, now: Instant) -> Duration {
        let before = self.files.remove(path).and_then(|tried| tried.retry).filter(|retry| retry.stamp == stamp);
        let failures = before.as_ref().map_or(1, |retry| retry.failures + u32::from(retry.due <= now));
        let due = before.filter(|retry| retry.due > now).map_or(now + pause(failures), |retry| retry.due);
        let retry = Some(Retry { stamp, failures, due, waits: true });
        self.files.insert(path.to_owned(), Tried { pace, retry });
        due - now
    }

    /// When the next one is due.
    pub fn next(&self) -> Option<Instant> {
        self.waiting().map(|(_, retry)| retry.due).min()
    }

    pub fn due(&self, now: Instant) -> Vec<PathBuf> {
        self.waiting().filter(|(_, retry)| retry.due <= now).map(|(path, _)| path.clone()).collect()
    }

    pub fn keep_only(&mut self, is_known: impl Fn(&Path) -> bool) {
        self.files.retain(|path, _| is_known(path));
    }

    fn waiting(&self) -> impl Iterator<Item = (&PathBuf, &Retry)> {
        let retries = self.files.iter().filter_map(|(path, tried)| Some((path, tried.retry.as_ref()?)));
        retries.filter(|(_, retry)| retry.waits)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_up_to_an_hour() {
        let (mut tries, path, mut now) = (Tries::default(), PathBuf::from("/w/dag.py"), Instant::now());
        let mut pauses = Vec::new();
        for _ in 0..12 {
            let pause = tries.failed(&path, Pace::Slow, None, now);
            assert_eq!((tries.next(), tries.due(now)), (Some(now + pause), Vec::new()));
            now += pause;
            assert_eq!(tries.due(now), std::slice::from_ref(&path));
            tries.begins(&path);
            assert_eq!((tries.next(), tries.due(now)), (None, Vec::new()), "it is under way");
            pauses.push(pause.as_secs());
        }
        assert_eq!(pauses, [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]);
        assert_eq!(pause(u32::MAX), LONGEST_PAUSE);
        tries.ended(&path, Pace::Quick);
        assert_eq!(tries.failed(&path, Pace::Quick, None, now), first_pause(), "after a success");
    }

    #[test]
    fn a_try_before_its_time_keeps_the_time_of_the_next() {
        let (mut tries, path, now) = (Tries::default(), PathBuf::from("/w/dag.py"), Instant::now());
        tries.failed(&path, Pace::Slow, None, now);
        let early = now + Duration::from_secs(4);
        tries.begins(&path);
        assert_eq!(tries.failed(&path, Pace::Slow, None, early), Duration::from_secs(6));
        let file = tempfile::NamedTempFile::new().unwrap();
        let stamp = Stamp::of_path(file.path());
        assert_eq!(tries.failed(&path, Pace::Slow, stamp, early), first_pause(), "after a change");
        tries.keep_only(|_| false);
        assert_eq!(tries.next(), None);
    }

    #[test]
    fn a_file_is_as_slow_as_it_was_the_last_time() {
        let (mut tries, path) = (Tries::default(), Path::new("/w/dag.py"));
        assert_eq!(tries.pace(path), Pace::Quick);
        tries.ended(path, Pace::Slow);
        assert_eq!(tries.pace(path), Pace::Slow);
        tries.failed(path, Pace::Quick, None, Instant::now());
        assert_eq!(tries.pace(path), Pace::Quick);
    }
}

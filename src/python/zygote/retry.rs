//! Decides after failures when the next zygote (a warm Python) starts, and with which libraries. Retries never stop;
//! the pauses between them grow to `LONGEST_PAUSE`.

use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// Pause after the second failure in a row; each further failure doubles it. The first failure is retried at once.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// Failures of the zygotes of one slot of the pool.
#[derive(Default, PartialEq)]
pub struct RetryState {
    /// Failures that happened without any library.
    without_libraries: Option<Failure>,
    /// Failures by library. A library is left out until its pause is over.
    libraries: BTreeMap<String, Failure>,
}

/// Failures in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Failure {
    failures: u32,
    pub since: Timestamp,
    pub reason: String,
    retry_at: Instant,
    /// `retry_at` as wall-clock time.
    pub next_try: Timestamp,
}

impl Failure {
    /// Adds a failure to `before`. If it is certain to recur (`is_certain`), the first failure counts as the second.
    fn add(before: Option<&Self>, reason: &str, is_certain: bool, now: Instant) -> Self {
        let failures = before.map_or(u32::from(is_certain), |before| before.failures).saturating_add(1);
        let since = before.map_or_else(Timestamp::now, |before| before.since);
        let pause = pause_after(failures);
        let next_try = Timestamp::now() + SignedDuration::try_from(pause).unwrap_or_default();
        Self { failures, since, reason: reason.to_owned(), retry_at: now + pause, next_try }
    }

    fn is_pending(&self, now: Instant) -> bool {
        self.retry_at > now
    }

    /// True after more than one failure: a single failure may have been chance.
    fn is_repeated(&self) -> bool {
        self.failures > 1
    }
}

fn pause_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        several => FIRST_PAUSE.saturating_mul(1 << (several - 2).min(16)).min(LONGEST_PAUSE),
    }
}

impl RetryState {
    /// The libraries to start a zygote with now.
    pub fn usable(&self, libraries: &BTreeSet<String>, now: Instant) -> BTreeSet<String> {
        let is_usable = |name: &&String| !self.libraries.get(*name).is_some_and(|failure| failure.is_pending(now));
        libraries.iter().filter(is_usable).cloned().collect()
    }

    /// True while no zygote may be started, not even without libraries.
    pub fn is_paused(&self, now: Instant) -> bool {
        self.without_libraries.as_ref().is_some_and(|failure| failure.is_pending(now))
    }

    /// Records the failure of a zygote with these libraries: each of them may be the cause. Without libraries, the
    /// zygote itself is the cause.
    pub fn failed(&mut self, libraries: &BTreeSet<String>, reason: &str, now: Instant) {
        if libraries.is_empty() {
            self.without_libraries = Some(Failure::add(self.without_libraries.as_ref(), reason, false, now));
        }
        for name in libraries {
            self.note(name, reason, false, now);
        }
    }

    /// Records that a zygote is ready but could not preload this library.
    pub fn note_left_out(&mut self, name: &str, reason: &str, now: Instant) {
        self.note(name, reason, true, now);
    }

    fn note(&mut self, name: &str, reason: &str, is_certain: bool, now: Instant) {
        let failure = Failure::add(self.libraries.get(name), reason, is_certain, now);
        self.libraries.insert(name.to_owned(), failure);
    }

    /// Records that a zygote with these libraries worked.
    pub fn succeeded(&mut self, libraries: &BTreeSet<String>) {
        self.without_libraries = None;
        self.libraries.retain(|name, _| !libraries.contains(name));
    }

    /// The repeated failure because of which no zygote starts, if any.
    pub fn failure(&self) -> Option<&Failure> {
        self.without_libraries.as_ref().filter(|failure| failure.is_repeated())
    }

    /// Libraries that failed repeatedly and are left out, each with its failures.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &Failure)> {
        let lasting = self.libraries.iter().filter(|(_, failure)| failure.is_repeated());
        lasting.map(|(name, failure)| (name.as_str(), failure))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> BTreeSet<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn pauses_grow_to_the_longest_and_never_end() {
        let seconds = |failures| pause_after(failures).as_secs();
        assert_eq!([1, 2, 3, 4, 5].map(seconds), [0, 10, 20, 40, 80]);
        assert_eq!([8, 9, 60, u32::MAX].map(seconds), [600; 4]);
    }

    #[test]
    fn a_failure_is_followed_by_a_zygote_without_libraries() {
        let (mut retry_state, now) = (RetryState::default(), Instant::now());
        let all = names(&["numpy", "pandas"]);
        retry_state.failed(&all, "the process ended", now);
        assert_eq!(retry_state.usable(&all, now), all, "one failure may have been chance");
        retry_state.failed(&all, "the process ended", now);
        assert_eq!((retry_state.usable(&all, now), retry_state.is_paused(now)), (names(&[]), false));
        retry_state.succeeded(&names(&[]));
        assert_eq!(retry_state.missing().count(), 2, "a success without libraries does not clear their failures");
        assert_eq!(retry_state.usable(&all, now + FIRST_PAUSE), all, "libraries are tried again later");
        retry_state.succeeded(&all);
        assert_eq!((retry_state.missing().count(), retry_state.usable(&all, now)), (0, all));
    }

    #[test]
    fn retries_without_libraries_never_end() {
        let (mut retry_state, mut now) = (RetryState::default(), Instant::now());
        let since = |retry_state: &RetryState| retry_state.failure().map(|failure| failure.since);
        retry_state.failed(&names(&[]), "killed", now);
        assert!(!retry_state.is_paused(now) && retry_state.failure().is_none());
        retry_state.failed(&names(&[]), "killed", now);
        let begun = since(&retry_state);
        assert!(retry_state.is_paused(now) && begun.is_some());
        for _ in 0..100 {
            now += LONGEST_PAUSE;
            assert!(!retry_state.is_paused(now));
            retry_state.failed(&names(&[]), "killed", now);
        }
        assert_eq!(since(&retry_state), begun);
        retry_state.succeeded(&names(&[]));
        assert!(!retry_state.is_paused(now) && retry_state.failure().is_none());
    }

    #[test]
    fn a_library_that_starts_threads_is_left_out_at_once() {
        let (mut retry_state, now) = (RetryState::default(), Instant::now());
        let all = names(&["numpy", "pandas"]);
        retry_state.note_left_out("pandas", "jemalloc_bg_thd", now);
        assert_eq!(retry_state.usable(&all, now), names(&["numpy"]));
        retry_state.note_left_out("pandas", "jemalloc_bg_thd", now);
        assert_eq!(retry_state.usable(&all, now + FIRST_PAUSE), names(&["numpy"]), "the pause has grown");
    }
}

//! What is expected of a warm Python after failures: what it is made with now, and when what failed is tried again. It is
//! never given up: pauses grow up to the longest, and go on for ever.

use jiff::{SignedDuration, Timestamp};
use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;
use tokio::time::Instant;

/// After the second failure in a row; each further one doubles it. The first is followed by another try at once.
const FIRST_PAUSE: Duration = Duration::from_secs(10);
const LONGEST_PAUSE: Duration = Duration::from_secs(10 * 60);

/// Of one zygote: its own failures, and the libraries that it is made without for a while.
#[derive(Default)]
pub struct Outlook {
    /// Of one without any library.
    bare: Option<Trouble>,
    libraries: BTreeMap<String, Trouble>,
}

/// Failures in a row.
#[derive(Debug, Clone, PartialEq)]
pub struct Trouble {
    failures: u32,
    pub since: Timestamp,
    pub reason: String,
    again_at: Instant,
    /// The same by the wall clock.
    pub next_try: Timestamp,
}

impl Trouble {
    /// One more failure. One that is sure to happen again counts as the second.
    fn add(before: Option<&Self>, reason: &str, is_sure: bool, now: Instant) -> Self {
        let failures = before.map_or(u32::from(is_sure), |before| before.failures).saturating_add(1);
        let since = before.map_or_else(Timestamp::now, |before| before.since);
        let pause = pause_after(failures);
        let next_try = Timestamp::now() + SignedDuration::try_from(pause).unwrap_or_default();
        Self { failures, since, reason: reason.to_owned(), again_at: now + pause, next_try }
    }

    fn lasts(&self, now: Instant) -> bool {
        self.again_at > now
    }

    /// Whether more than one failure, which may have been the machine's, speaks for it.
    fn is_worth_a_word(&self) -> bool {
        self.failures > 1
    }
}

fn pause_after(failures: u32) -> Duration {
    match failures {
        0 | 1 => Duration::ZERO,
        more => FIRST_PAUSE.saturating_mul(1 << (more - 2).min(16)).min(LONGEST_PAUSE),
    }
}

impl Outlook {
    /// Which of the libraries it is made with now.
    pub fn usable(&self, libraries: &BTreeSet<String>, now: Instant) -> BTreeSet<String> {
        let is_usable = |name: &&String| !self.libraries.get(*name).is_some_and(|trouble| trouble.lasts(now));
        libraries.iter().filter(is_usable).cloned().collect()
    }

    /// Whether one is not to be made now, whatever its libraries.
    pub fn rests(&self, now: Instant) -> bool {
        self.bare.as_ref().is_some_and(|trouble| trouble.lasts(now))
    }

    /// One has failed that had these libraries. With any, they are what it is made without next; without, it is itself.
    pub fn failed(&mut self, had: &BTreeSet<String>, reason: &str, now: Instant) {
        if had.is_empty() {
            self.bare = Some(Trouble::add(self.bare.as_ref(), reason, false, now));
        }
        for name in had {
            self.note(name, reason, false, now);
        }
    }

    /// One is ready that could not have this library.
    pub fn left_out(&mut self, name: &str, reason: &str, now: Instant) {
        self.note(name, reason, true, now);
    }

    fn note(&mut self, name: &str, reason: &str, is_sure: bool, now: Instant) {
        let trouble = Trouble::add(self.libraries.get(name), reason, is_sure, now);
        self.libraries.insert(name.to_owned(), trouble);
    }

    /// One with these libraries has done what it is for.
    pub fn worked(&mut self, with: &BTreeSet<String>) {
        self.bare = None;
        self.libraries.retain(|name, _| !with.contains(name));
    }

    /// Why there is none, if that lasts.
    pub fn trouble(&self) -> Option<&Trouble> {
        self.bare.as_ref().filter(|trouble| trouble.is_worth_a_word())
    }

    /// What it does without, with the reason of each.
    pub fn missing(&self) -> impl Iterator<Item = (&str, &Trouble)> {
        let lasting = self.libraries.iter().filter(|(_, trouble)| trouble.is_worth_a_word());
        lasting.map(|(name, trouble)| (name.as_str(), trouble))
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
        let (mut outlook, now) = (Outlook::default(), Instant::now());
        let all = names(&["numpy", "pandas"]);
        outlook.failed(&all, "it has ended", now);
        assert_eq!(outlook.usable(&all, now), all, "one failure may have been chance");
        outlook.failed(&all, "it has ended", now);
        assert_eq!((outlook.usable(&all, now), outlook.rests(now)), (names(&[]), false));
        outlook.worked(&names(&[]));
        assert_eq!(outlook.missing().count(), 2, "it works without them, which says nothing of them");
        assert_eq!(outlook.usable(&all, now + FIRST_PAUSE), all, "they are tried again later");
        outlook.worked(&all);
        assert_eq!((outlook.missing().count(), outlook.usable(&all, now)), (0, all));
    }

    #[test]
    fn without_libraries_it_rests_and_is_tried_again_for_ever() {
        let (mut outlook, mut now) = (Outlook::default(), Instant::now());
        let since = |outlook: &Outlook| outlook.trouble().map(|trouble| trouble.since);
        outlook.failed(&names(&[]), "killed", now);
        assert!(!outlook.rests(now) && outlook.trouble().is_none());
        outlook.failed(&names(&[]), "killed", now);
        let begun = since(&outlook);
        assert!(outlook.rests(now) && begun.is_some());
        for _ in 0..100 {
            now += LONGEST_PAUSE;
            assert!(!outlook.rests(now));
            outlook.failed(&names(&[]), "killed", now);
        }
        assert_eq!(since(&outlook), begun);
        outlook.worked(&names(&[]));
        assert!(!outlook.rests(now) && outlook.trouble().is_none());
    }

    #[test]
    fn a_library_that_starts_threads_is_left_out_at_once() {
        let (mut outlook, now) = (Outlook::default(), Instant::now());
        let all = names(&["numpy", "pandas"]);
        outlook.left_out("pandas", "jemalloc_bg_thd", now);
        assert_eq!(outlook.usable(&all, now), names(&["numpy"]));
        outlook.left_out("pandas", "jemalloc_bg_thd", now);
        assert_eq!(outlook.usable(&all, now + FIRST_PAUSE), names(&["numpy"]), "the pause has grown");
    }
}

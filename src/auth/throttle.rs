//! Slowing down guessing: each source of attempts has a pace of its own, so that one who guesses makes nobody
//! else wait.

use std::time::{Duration, Instant};

/// Wrong passwords that cost nothing but their own hashing.
const FREE_FAILURES: u32 = 5;
/// The pause before the first attempt that does cost; it doubles up to the longest. An attempt is held for it, not
/// refused: a right password gets in after the wait, like each of the wrong ones that wait beside it.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Quiet for this long, all is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// The failures of one source so far.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: u32,
    last_failure: Option<Instant>,
}

impl Throttle {
    /// For how long the next attempt is held.
    pub fn pause(&mut self, now: Instant) -> Duration {
        let Some(last) = self.last_failure else { return Duration::ZERO };
        if now.saturating_duration_since(last) >= FORGET_AFTER {
            *self = Self::default();
        }
        let Some(over) = self.failures.checked_sub(FREE_FAILURES) else { return Duration::ZERO };
        FIRST_PAUSE.saturating_mul(1 << over.min(10)).min(LONGEST_PAUSE)
    }

    pub fn failed(&mut self, now: Instant) {
        self.failures = self.failures.saturating_add(1);
        self.last_failure = Some(now);
    }

    pub fn succeeded(&mut self) {
        *self = Self::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_few_failures_are_free_then_pauses_grow_to_a_limit_and_end() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        for _ in 0..FREE_FAILURES {
            assert_eq!(throttle.pause(start), Duration::ZERO);
            throttle.failed(start);
        }
        assert_eq!(throttle.pause(start), FIRST_PAUSE);
        throttle.failed(start);
        assert_eq!(throttle.pause(start), 2 * FIRST_PAUSE);
        for _ in 0..100 {
            throttle.failed(start);
        }
        assert_eq!(throttle.pause(start), LONGEST_PAUSE);
        assert_eq!(throttle.pause(start + FORGET_AFTER), Duration::ZERO);
        throttle.failed(start);
        throttle.succeeded();
        assert_eq!(throttle.pause(start), Duration::ZERO);
    }
}

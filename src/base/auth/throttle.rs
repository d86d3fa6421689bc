//! Slows down password guessing. Each source of attempts has its own throttle, so one attacker delays no one else.

use std::time::{Duration, Instant};

/// Failures after which attempts are still not delayed.
const FREE_FAILURES: u32 = 5;
/// The pause before the first attempt that is delayed; each failure doubles it, up to `LONGEST_PAUSE`. Attempts are
/// delayed, not refused: the right password succeeds after the pause, even while an attacker's attempts wait too.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
const LONGEST_PAUSE: Duration = Duration::from_secs(1);
/// Failures are forgotten after this time without another one.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// The recent failures of one source.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: u32,
    last_failure: Option<Instant>,
}

impl Throttle {
    /// How long the next attempt is delayed.
    pub fn pause(&mut self, now: Instant) -> Duration {
        let Some(last) = self.last_failure else { return Duration::ZERO };
        if now.saturating_duration_since(last) >= FORGET_AFTER {
            *self = Self::default();
        }
        let Some(excess) = self.failures.checked_sub(FREE_FAILURES) else { return Duration::ZERO };
        FIRST_PAUSE.saturating_mul(1 << excess.min(10)).min(LONGEST_PAUSE)
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
    fn pauses_grow_to_a_limit_after_a_few_failures() {
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

//! Slows down password guessing. Each source of attempts has its own throttle, so one attacker delays no one else.
//! Attempts from this machine are delayed, not refused: the right password succeeds after the pause, even while an
//! attacker's attempts wait too. The `host` setting may allow attempts from the network; they are refused while more
//! than a second of their pause remains.

use std::time::{Duration, Instant};

/// Number of failures before attempts are delayed.
const FREE_FAILURES: u32 = 5;
/// The first pause; each further failure doubles it, up to the limits below.
const FIRST_PAUSE: Duration = Duration::from_millis(250);
/// Longest pause of attempts from this machine. Also the longest delay of a network attempt; one that would wait longer
/// is refused.
const LONGEST_LOCAL_PAUSE: Duration = Duration::from_secs(1);
/// Longest pause of attempts from one network address.
const LONGEST_REMOTE_PAUSE: Duration = Duration::from_secs(5 * 60);
/// Failures are forgotten after this time without another one.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// Where attempts come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Origin {
    ThisMachine,
    Network,
}

/// How the next attempt is treated.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slowdown {
    /// The password is checked after this time.
    Delay(Duration),
    /// The attempt is refused without a check; attempts are accepted again after this time.
    Refuse(Duration),
}

/// The recent failures of one source.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: u32,
    last_failure: Option<Instant>,
}

impl Throttle {
    pub fn slowdown(&mut self, now: Instant, origin: Origin) -> Slowdown {
        if self.is_forgotten(now) {
            *self = Self::default();
        }
        let (Some(last), Some(excess)) = (self.last_failure, self.failures.checked_sub(FREE_FAILURES)) else {
            return Slowdown::Delay(Duration::ZERO);
        };
        let pause = FIRST_PAUSE.saturating_mul(1 << excess.min(16));
        if origin == Origin::ThisMachine {
            return Slowdown::Delay(pause.min(LONGEST_LOCAL_PAUSE));
        }
        let remaining = pause.min(LONGEST_REMOTE_PAUSE).saturating_sub(now.saturating_duration_since(last));
        if remaining > LONGEST_LOCAL_PAUSE { Slowdown::Refuse(remaining) } else { Slowdown::Delay(remaining) }
    }

    /// True when no recent failure is recorded.
    pub fn is_forgotten(&self, now: Instant) -> bool {
        self.last_failure.is_none_or(|last| now.saturating_duration_since(last) >= FORGET_AFTER)
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
        let local = |throttle: &mut Throttle, now| match throttle.slowdown(now, Origin::ThisMachine) {
            Slowdown::Delay(pause) => pause,
            Slowdown::Refuse(pause) => panic!("refused for {pause:?}"),
        };
        for _ in 0..FREE_FAILURES {
            assert_eq!(local(&mut throttle, start), Duration::ZERO);
            throttle.failed(start);
        }
        assert_eq!(local(&mut throttle, start), FIRST_PAUSE);
        throttle.failed(start);
        assert_eq!(local(&mut throttle, start), 2 * FIRST_PAUSE);
        for _ in 0..100 {
            throttle.failed(start);
        }
        assert_eq!(local(&mut throttle, start), LONGEST_LOCAL_PAUSE);
        assert_eq!(local(&mut throttle, start + FORGET_AFTER), Duration::ZERO);
        throttle.failed(start);
        throttle.succeeded();
        assert_eq!(local(&mut throttle, start), Duration::ZERO);
    }

    #[test]
    fn attempts_from_the_network_are_refused_for_minutes() {
        let start = Instant::now();
        let mut throttle = Throttle::default();
        let refused_for = |throttle: &mut Throttle, now| match throttle.slowdown(now, Origin::Network) {
            Slowdown::Refuse(pause) => pause,
            Slowdown::Delay(_) => Duration::ZERO,
        };
        for _ in 0..FREE_FAILURES + 4 {
            throttle.failed(start);
        }
        assert_eq!(refused_for(&mut throttle, start), Duration::from_secs(4));
        assert_eq!(
            throttle.slowdown(start + Duration::from_secs(3), Origin::Network),
            Slowdown::Delay(Duration::from_secs(1))
        );
        for _ in 0..100 {
            throttle.failed(start);
        }
        assert_eq!(refused_for(&mut throttle, start), LONGEST_REMOTE_PAUSE);
        assert_eq!(refused_for(&mut throttle, start + LONGEST_REMOTE_PAUSE), Duration::ZERO);
        throttle.succeeded();
        assert_eq!(refused_for(&mut throttle, start), Duration::ZERO);
    }
}

//! Slowing down guessing. There is one account, so failures count for the instance, not for an
//! address: everybody comes from 127.0.0.1.

use std::time::{Duration, Instant};

/// Wrong passwords that cost nothing but their own hashing.
const FREE_FAILURES: u32 = 5;
/// The pause after the first one that does cost; it doubles up to the longest.
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(30);
/// Quiet for this long, all is forgotten.
const FORGET_AFTER: Duration = Duration::from_secs(15 * 60);

/// Decides from the failures so far whether another attempt may be made. A right password is not
/// tried during a pause either, otherwise the pause would mean nothing.
#[derive(Debug, Default)]
pub struct Throttle {
    failures: u32,
    last_failure: Option<Instant>,
}

impl Throttle {
    /// `Err` is how long to wait.
    pub fn permit(&mut self, now: Instant) -> Result<(), Duration> {
        let Some(last) = self.last_failure else { return Ok(()) };
        let since = now.saturating_duration_since(last);
        if since >= FORGET_AFTER {
            *self = Self::default();
            return Ok(());
        }
        let Some(over) = self.failures.checked_sub(FREE_FAILURES) else { return Ok(()) };
        let pause = FIRST_PAUSE.saturating_mul(1 << over.min(10)).min(LONGEST_PAUSE);
        if since >= pause { Ok(()) } else { Err(pause - since) }
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
            assert_eq!(throttle.permit(start), Ok(()));
            throttle.failed(start);
        }
        assert_eq!(throttle.permit(start), Err(FIRST_PAUSE));
        let later = start + FIRST_PAUSE;
        assert_eq!(throttle.permit(later), Ok(()));
        throttle.failed(later);
        assert_eq!(throttle.permit(later), Err(2 * FIRST_PAUSE));
        for _ in 0..100 {
            throttle.failed(later);
        }
        assert_eq!(throttle.permit(later), Err(LONGEST_PAUSE));
        assert_eq!(throttle.permit(later + FORGET_AFTER), Ok(()));
        throttle.failed(later);
        throttle.succeeded();
        assert_eq!(throttle.permit(later), Ok(()));
    }
}

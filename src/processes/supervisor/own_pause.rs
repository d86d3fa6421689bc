//! Detects that this process did not run for a while: it was stopped by a signal, or the machine was suspended.

use std::time::{Duration, Instant};

/// An instant later than expected by more than this means that this process was paused, not its children.
const OWN_PAUSE: Duration = Duration::from_secs(3);

/// Compares the time with when this process expected to run.
#[derive(Debug)]
pub struct OwnPause {
    expected: Instant,
}

impl OwnPause {
    pub fn new(now: Instant) -> Self {
        Self { expected: now }
    }

    /// This process is about to wait, at most until `wake_up`.
    pub fn wait_until(&mut self, wake_up: Instant) {
        self.expected = wake_up;
    }

    /// Returns how long this process was paused until `now`, if it was. Call this with each instant that deadlines are
    /// compared with: a pause may begin between any two instructions.
    pub fn ended(&mut self, now: Instant) -> Option<Duration> {
        let late = now.saturating_duration_since(self.expected);
        self.expected = now;
        (late > OWN_PAUSE).then_some(late)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pause_is_found_while_waiting_and_between_two_steps() {
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        let mut own_pause = OwnPause::new(start);
        own_pause.wait_until(at(10));
        assert_eq!(own_pause.ended(at(4)), None, "an event ended the wait");
        assert_eq!(own_pause.ended(at(24)), Some(Duration::from_secs(20)), "after the wait, before the next step");
        own_pause.wait_until(at(30));
        assert_eq!(own_pause.ended(at(32)), None, "a busy machine");
        own_pause.wait_until(at(40));
        assert_eq!(own_pause.ended(at(50)), Some(Duration::from_secs(10)));
        assert_eq!(own_pause.ended(at(50)), None, "reported once");
    }
}

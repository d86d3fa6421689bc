//! The wall clock: formats the current time, and detects that the clock was set back.

use super::env_vars;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::time::{Duration, Instant};

/// The current time as RFC 3339 in UTC with whole seconds: `2026-01-31T08:15:00Z`.
pub fn now_rfc3339() -> String {
    rfc3339_in(Duration::ZERO)
}

/// The current time plus `pause`, in the same format.
pub fn rfc3339_in(pause: Duration) -> String {
    whole_second(time_in(pause)).to_string()
}

/// The current time plus `pause`.
pub fn time_in(pause: Duration) -> Timestamp {
    let now = Timestamp::now();
    SignedDuration::try_from(pause).ok().and_then(|pause| now.checked_add(pause).ok()).unwrap_or(now)
}

/// The time without its fraction of a second, as printed times show it.
pub fn whole_second(time: Timestamp) -> Timestamp {
    let rounding = jiff::TimestampRound::new().smallest(jiff::Unit::Second).mode(jiff::RoundMode::Trunc);
    time.round(rounding).unwrap_or(time)
}

/// A sentence about a `TZ` that names no time zone. Times are then in UTC, as with tzset(3).
pub fn unknown_time_zone() -> Option<String> {
    let name = env_vars::text("TZ").filter(|_| TimeZone::try_system().is_err())?;
    Some(format!("TZ is {name:?}, which is no known time zone: times and backup schedules are in UTC"))
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

/// Smaller differences are not steps: time synchronization adjusts the clock by small amounts.
const TOLERANCE: SignedDuration = SignedDuration::from_secs(1);

/// Detects that the wall clock was set back, by comparing it with the monotonic clock.
#[derive(Debug, Default)]
pub struct ClockWatch {
    last: Option<(Timestamp, Instant)>,
}

impl ClockWatch {
    /// Returns by how much the wall clock was set back since the last call. The monotonic clock stops while the machine
    /// sleeps, so a sleep is not a step back.
    pub fn set_back(&mut self, wall: Timestamp, monotonic: Instant) -> Option<SignedDuration> {
        let (last_wall, last_monotonic) = self.last.replace((wall, monotonic))?;
        let passed = SignedDuration::try_from(monotonic.saturating_duration_since(last_monotonic)).ok()?;
        let behind = passed - wall.duration_since(last_wall);
        (behind > TOLERANCE).then_some(behind)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_recorded_time_is_never_in_the_future() {
        let time: Timestamp = "2026-01-31T08:15:00.9Z".parse().unwrap();
        assert_eq!(whole_second(time).to_string(), "2026-01-31T08:15:00Z");
    }

    #[test]
    fn a_step_back_of_the_wall_clock_is_detected_once() {
        let (mut watch, start) = (ClockWatch::default(), Instant::now());
        let wall = |seconds: i64| Timestamp::from_second(1_800_000_000 + seconds).unwrap();
        let monotonic_at = |seconds: u64| start + Duration::from_secs(seconds);
        assert_eq!(watch.set_back(wall(0), monotonic_at(0)), None);
        assert_eq!(watch.set_back(wall(60), monotonic_at(60)), None);
        assert_eq!(watch.set_back(wall(10_000), monotonic_at(61)), None, "after a sleep, or a step forward");
        assert_eq!(watch.set_back(wall(-800), monotonic_at(121)), Some(SignedDuration::from_secs(10_860)));
        assert_eq!(watch.set_back(wall(-740), monotonic_at(181)), None);
    }
}

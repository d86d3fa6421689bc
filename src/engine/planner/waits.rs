//! Sensors whose condition the scheduler evaluates itself; they occupy no process while they wait.

use super::snapshot::Dates;
use crate::model::dag::{Until, Wait};
use crate::schedule::zone;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Minimum time between two pokes, in seconds.
const MIN_POKE_INTERVAL: f64 = 0.1;

/// Returns when the condition is met; `None` when only the sensor's own code can decide. `base` defines "today": it is
/// the time at which the sensor started, or the due time that was computed then.
pub fn due(wait: &Wait, dates: &Dates, base: Timestamp) -> Option<Timestamp> {
    match &wait.until {
        Until::Delta { seconds } => {
            let delta = SignedDuration::try_from_secs_f64(*seconds).ok()?;
            dates.interval_end.unwrap_or(dates.run_after).checked_add(delta).ok()
        }
        Until::Moment { at } => Some(*at),
        Until::Time { time, zone } => {
            let zone = zone::zone(zone).ok()?;
            let today = base.to_zoned(zone.clone()).date();
            Some(today.to_datetime(*time).to_zoned(zone).ok()?.timestamp())
        }
        Until::Weekday { days } => {
            let matches_weekday = |day: jiff::civil::Date| days.contains(&day.weekday().to_monday_one_offset());
            let today = base.to_zoned(TimeZone::UTC).date();
            if matches_weekday(today) {
                return Some(base);
            }
            let next =
                (1..7).filter_map(|offset| today.checked_add(offset.days()).ok()).find(|day| matches_weekday(*day))?;
            Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }
        Until::External(_) | Until::File { .. } => None,
    }
}

/// Returns when to poke next, at the latest when the timeout is reached; `None` after the timeout, which the sensor's
/// own code must handle. `interval` and `timeout` are in seconds; `since` is when the sensor started.
pub fn next_poke(interval: f64, timeout: f64, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let remaining = timeout - now.duration_since(since).as_secs_f64();
    let pause = SignedDuration::try_from_secs_f64(interval.max(MIN_POKE_INTERVAL).min(remaining)).ok()?;
    if remaining > 0.0 { now.checked_add(pause).ok() } else { None }
}

/// True when a sensor that starts now reaches `due` within its timeout; otherwise its own code must handle the timeout.
pub fn is_in_time(wait: &Wait, due: Timestamp, now: Timestamp) -> bool {
    due.duration_since(now).as_secs_f64() <= wait.timeout
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn wait(until: serde_json::Value) -> Wait {
        serde_json::from_value(json!({"until": until, "timeout": 3600.0, "is_all": true})).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due_at(until: serde_json::Value, base: &str) -> Option<Timestamp> {
        let dates = Dates { interval_end: None, run_after: time("2026-03-01T00:00:00Z") };
        due(&wait(until), &dates, time(base))
    }

    #[test]
    fn a_delta_counts_from_the_end_of_the_data_interval() {
        let until = wait(json!({"kind": "delta", "seconds": 90.5}));
        let run_after = time("2026-03-01T00:00:00Z");
        let mut dates = Dates { interval_end: None, run_after };
        assert_eq!(due(&until, &dates, run_after), Some(time("2026-03-01T00:01:30.5Z")));
        dates.interval_end = Some(time("2026-02-01T00:00:00Z"));
        assert_eq!(due(&until, &dates, run_after), Some(time("2026-02-01T00:01:30.5Z")));
    }

    #[test]
    fn a_time_of_day_is_on_the_day_the_sensor_started() {
        let until = json!({"kind": "time", "time": "23:30:00", "zone": "Europe/Berlin"});
        assert_eq!(due_at(until.clone(), "2026-07-01T12:00:00Z"), Some(time("2026-07-01T21:30:00Z")));
        // It is already the next day in Berlin.
        assert_eq!(due_at(until, "2026-07-01T22:30:00Z"), Some(time("2026-07-02T21:30:00Z")));
        assert_eq!(
            due_at(json!({"kind": "time", "time": "23:30:00", "zone": "Nowhere/Else"}), "2026-07-01T22:30:00Z"),
            None
        );
    }

    #[test]
    fn a_weekday_is_today_or_begins_at_midnight() {
        // 2026-11-22 is a Sunday.
        let until = |days: &[i8]| json!({"kind": "weekday", "days": days});
        assert_eq!(due_at(until(&[7]), "2026-11-22T13:00:00Z"), Some(time("2026-11-22T13:00:00Z")));
        assert_eq!(due_at(until(&[2, 5]), "2026-11-22T13:00:00Z"), Some(time("2026-11-24T00:00:00Z")));
        assert_eq!(due_at(until(&[]), "2026-11-22T13:00:00Z"), None);
    }

    #[test]
    fn pokes_until_the_timeout() {
        let since = time("2026-03-01T00:00:00Z");
        let next = |now| next_poke(60.0, 90.0, since, time(now));
        assert_eq!(next("2026-03-01T00:00:00Z"), Some(time("2026-03-01T00:01:00Z")));
        assert_eq!(next("2026-03-01T00:01:00Z"), Some(time("2026-03-01T00:01:30Z")));
        assert_eq!(next("2026-03-01T00:01:30Z"), None);
    }

    #[test]
    fn a_due_time_after_the_timeout_is_not_in_time() {
        let until = wait(json!({"kind": "moment", "at": "2026-03-01T01:00:00Z"}));
        assert!(is_in_time(&until, time("2026-03-01T01:00:00Z"), time("2026-03-01T00:00:00Z")));
        assert!(!is_in_time(&until, time("2026-03-01T01:00:01Z"), time("2026-03-01T00:00:00Z")));
    }
}

//! Sensors that wait for a time, or for what the scheduler sees by itself: nothing of them runs until then.

use super::snapshot::Dates;
use crate::engine::dag::{Until, Wait};
use crate::engine::schedule::run_dates;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp, ToSpan};

/// Between two looks: seconds.
const SHORTEST_PAUSE: f64 = 0.1;

/// When what it waits for has come. `base` is when it began, or a moment that was worked out then: what is meant by
/// today depends on it. `None` when only its own code can say.
pub fn due(wait: &Wait, dates: &Dates, base: Timestamp) -> Option<Timestamp> {
    match &wait.until {
        Until::Delta { seconds } => {
            let delta = SignedDuration::try_from_secs_f64(*seconds).ok()?;
            dates.interval_end.unwrap_or(dates.run_after).checked_add(delta).ok()
        }
        Until::Moment { at } => Some(*at),
        Until::Time { time, zone } => {
            let zone = run_dates::zone(zone).ok()?;
            let today = base.to_zoned(zone.clone()).date();
            Some(today.to_datetime(*time).to_zoned(zone).ok()?.timestamp())
        }
        Until::Weekday { days } => {
            let is_wanted = |day: jiff::civil::Date| days.contains(&day.weekday().to_monday_one_offset());
            let today = base.to_zoned(TimeZone::UTC).date();
            if is_wanted(today) {
                return Some(base);
            }
            let next = (1..7).filter_map(|later| today.checked_add(later.days()).ok()).find(|day| is_wanted(*day))?;
            Some(next.to_zoned(TimeZone::UTC).ok()?.timestamp())
        }
        Until::External(_) | Until::File { .. } => None,
    }
}

/// When one that has to look looks again: at its end at the latest. `None` after that: then its own code gives
/// up.
pub fn next_look(interval: f64, timeout: f64, since: Timestamp, now: Timestamp) -> Option<Timestamp> {
    let left = timeout - now.duration_since(since).as_secs_f64();
    let pause = SignedDuration::try_from_secs_f64(interval.max(SHORTEST_PAUSE).min(left)).ok()?;
    if left > 0.0 { now.checked_add(pause).ok() } else { None }
}

/// Whether a sensor that begins now would give up before that time; then its own code does so.
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

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn due_at(until: serde_json::Value, base: &str) -> Option<Timestamp> {
        let dates = Dates { interval_end: None, run_after: at("2026-03-01T00:00:00Z") };
        due(&wait(until), &dates, at(base))
    }

    #[test]
    fn a_time_after_the_run_is_counted_from_the_end_of_its_interval() {
        let until = wait(json!({"kind": "delta", "seconds": 90.5}));
        let run_after = at("2026-03-01T00:00:00Z");
        let mut dates = Dates { interval_end: None, run_after };
        assert_eq!(due(&until, &dates, run_after), Some(at("2026-03-01T00:01:30.5Z")));
        dates.interval_end = Some(at("2026-02-01T00:00:00Z"));
        assert_eq!(due(&until, &dates, run_after), Some(at("2026-02-01T00:01:30.5Z")));
    }

    #[test]
    fn a_time_of_the_day_is_of_the_day_on_which_it_began() {
        let until = json!({"kind": "time", "time": "23:30:00", "zone": "Europe/Berlin"});
        assert_eq!(due_at(until.clone(), "2026-07-01T12:00:00Z"), Some(at("2026-07-01T21:30:00Z")));
        // In Berlin the next day has begun.
        assert_eq!(due_at(until, "2026-07-01T22:30:00Z"), Some(at("2026-07-02T21:30:00Z")));
        assert_eq!(
            due_at(json!({"kind": "time", "time": "23:30:00", "zone": "Nowhere/Else"}), "2026-07-01T22:30:00Z"),
            None
        );
    }

    #[test]
    fn a_day_of_the_week_is_today_or_begins_at_midnight() {
        // 2026-11-22 is a Sunday.
        let until = |days: &[i8]| json!({"kind": "weekday", "days": days});
        assert_eq!(due_at(until(&[7]), "2026-11-22T13:00:00Z"), Some(at("2026-11-22T13:00:00Z")));
        assert_eq!(due_at(until(&[2, 5]), "2026-11-22T13:00:00Z"), Some(at("2026-11-24T00:00:00Z")));
        assert_eq!(due_at(until(&[]), "2026-11-22T13:00:00Z"), None);
    }

    #[test]
    fn what_it_looks_for_is_looked_for_until_the_time_is_over() {
        let since = at("2026-03-01T00:00:00Z");
        let next = |now| next_look(60.0, 90.0, since, at(now));
        assert_eq!(next("2026-03-01T00:00:00Z"), Some(at("2026-03-01T00:01:00Z")));
        assert_eq!(next("2026-03-01T00:01:00Z"), Some(at("2026-03-01T00:01:30Z")));
        assert_eq!(next("2026-03-01T00:01:30Z"), None);
    }

    #[test]
    fn one_that_would_give_up_before_is_left_to_its_own_code() {
        let until = wait(json!({"kind": "moment", "at": "2026-03-01T01:00:00Z"}));
        assert!(is_in_time(&until, at("2026-03-01T01:00:00Z"), at("2026-03-01T00:00:00Z")));
        assert!(!is_in_time(&until, at("2026-03-01T01:00:01Z"), at("2026-03-01T00:00:00Z")));
    }
}

//! The dates that a schedule has, one after another. Pure.

use super::timetable::{Info, Interval, Restriction, Timetable, TimetableProblem};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// When the next runs are due, with their logical dates: `first`, which is known, and those after it, as long as they
/// can be counted up.
pub fn upcoming(
    timetable: Option<&Timetable>,
    restriction: Restriction,
    first: (Timestamp, Option<Interval>),
    count: usize,
    now: Timestamp,
) -> Vec<(Timestamp, Option<Timestamp>)> {
    let (run_after, mut last) = first;
    let mut all = vec![(run_after, last.map(|interval| interval.start))];
    let timetable = timetable.filter(|timetable| timetable.is_periodic());
    // One after the other, whether they are made for the past or not.
    let restriction = Restriction { catchup: true, ..restriction };
    while let (true, Some(timetable), Some(_)) = (all.len() < count, timetable, last) {
        let Ok(Some(info)) = timetable.next(last, restriction, now) else { break };
        all.push((info.run_after, info.logical_date()));
        last = info.interval;
    }
    all.truncate(count);
    all
}

/// Why the dates of a range are not given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum RangeProblem {
    /// There are more than were asked for: `count` of them, or more than that where `is_exact` is false.
    TooMany {
        count: usize,
        is_exact: bool,
    },
    Timetable(TimetableProblem),
}

/// The runs of a schedule in a range that has passed, oldest first, `most` at most. Beyond those it is only counted,
/// for as long as `patience`.
pub fn in_range(
    timetable: &Timetable,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
    most: usize,
    patience: Duration,
) -> Result<Vec<Info>, RangeProblem> {
    let restriction = Restriction { earliest: Some(from), latest: Some(to), catchup: true };
    let mut found = Vec::new();
    let mut last = None;
    let mut count = 0_usize;
    let began = Instant::now();
    loop {
        match timetable.next(last, restriction, now) {
            Ok(Some(info)) if info.interval.is_some_and(|interval| interval.end < now) => {
                last = info.interval;
                count += 1;
                if found.len() < most {
                    found.push(info);
                } else if began.elapsed() > patience {
                    return Err(RangeProblem::TooMany { count, is_exact: false });
                }
            }
            Ok(_) | Err(TimetableProblem::Cron(_)) if count > most => {
                return Err(RangeProblem::TooMany { count, is_exact: true });
            }
            Ok(_) | Err(TimetableProblem::Cron(_)) => return Ok(found),
            Err(error) => return Err(RangeProblem::Timetable(error)),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn hourly() -> Timetable {
        let cron = json!({"kind": "cron_interval", "expression": "0 * * * *", "timezone": "UTC"});
        serde_json::from_value(cron).unwrap()
    }

    fn day(hours: &str) -> (Timestamp, Timestamp) {
        ("2026-01-01T00:00:00Z".parse().unwrap(), format!("2026-01-01T{hours}:00:00Z").parse().unwrap())
    }

    fn range(hours: &str, most: usize, patience: Duration) -> Result<usize, RangeProblem> {
        let now = "2026-02-01T00:00:00Z".parse().unwrap();
        in_range(&hourly(), day(hours), now, most, patience).map(|found| found.len())
    }

    #[test]
    fn what_is_too_much_is_counted_for_a_while() {
        let long = Duration::from_secs(60);
        assert_eq!(range("09", 10, long), Ok(10));
        assert_eq!(range("10", 10, long), Err(RangeProblem::TooMany { count: 11, is_exact: true }));
        assert_eq!(range("23", 10, Duration::ZERO), Err(RangeProblem::TooMany { count: 11, is_exact: false }));
    }

    #[test]
    fn what_has_not_passed_is_not_of_the_range() {
        let now = "2026-01-01T03:30:00Z".parse().unwrap();
        let found = in_range(&hourly(), day("23"), now, 10, Duration::ZERO).unwrap();
        assert_eq!(found.len(), 3);
    }

    #[test]
    fn the_known_one_comes_first() {
        let at = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = Interval { start: at("2026-01-01T00:00:00Z"), end: at("2026-01-01T01:00:00Z") };
        let known = (first.end, Some(first));
        let all = upcoming(Some(&hourly()), Restriction::default(), known, 3, at("2026-01-05T00:00:00Z"));
        let ends: Vec<String> = all.iter().map(|(run_after, _)| run_after.to_string()).collect();
        assert_eq!(ends, ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"]);
        assert_eq!(upcoming(None, Restriction::default(), known, 3, first.end).len(), 1);
        assert_eq!(upcoming(None, Restriction::default(), known, 0, first.end).len(), 0);
    }
}

//! Enumerates the dates of a schedule. Pure.

use super::timetable::{Info, Interval, Restriction, Timetable, TimetableProblem};
use jiff::Timestamp;
use std::time::{Duration, Instant};

/// The next due dates with their logical dates, at most `count`. The due date and data interval of the first run are
/// given; later runs are enumerated if the timetable is periodic.
pub fn upcoming(
    timetable: Option<&Timetable>,
    restriction: Restriction,
    first: (Timestamp, Option<Interval>),
    count: usize,
    now: Timestamp,
) -> Vec<(Timestamp, Option<Timestamp>)> {
    let (run_after, mut last) = first;
    let mut dates = vec![(run_after, last.map(|interval| interval.start))];
    let timetable = timetable.filter(|timetable| timetable.is_periodic());
    // With catchup, the timetable enumerates every date.
    let restriction = Restriction { catchup: true, ..restriction };
    while let (true, Some(timetable), Some(_)) = (dates.len() < count, timetable, last) {
        let Ok(Some(info)) = timetable.next(last, restriction, now) else { break };
        dates.push((info.run_after, info.logical_date()));
        last = info.interval;
    }
    dates.truncate(count);
    dates
}

/// Why the dates of a range cannot be returned.
#[derive(Debug)]
pub enum RangeProblem {
    /// More runs than the limit: exactly `count`, or at least that many if `is_exact` is false.
    TooMany {
        count: usize,
        is_exact: bool,
    },
    Timetable(TimetableProblem),
}

/// The runs of a schedule between two dates, oldest first: those whose data interval has ended or, of a cron partition,
/// those with a partition date in the range. If there are more than `limit`, the rest is counted for up to `time_limit`,
/// and the error is `RangeProblem::TooMany`.
pub fn in_range(
    timetable: &Timetable,
    (from, to): (Timestamp, Timestamp),
    now: Timestamp,
    limit: usize,
    time_limit: Duration,
) -> Result<Vec<Info>, RangeProblem> {
    let restriction = Restriction { earliest: Some(from), latest: Some(to), catchup: true };
    let next = |last: Option<&Info>| match timetable {
        Timetable::CronPartition { ticks } => ticks.next_in((from, to), last),
        _ => {
            let info = timetable.next(last.and_then(|last| last.interval), restriction, now)?;
            Ok(info.filter(|info| info.interval.is_some_and(|interval| interval.end < now)))
        }
    };
    let mut runs = Vec::new();
    let mut last = None;
    let mut count = 0_usize;
    let start = Instant::now();
    loop {
        match next(last.as_ref()) {
            Ok(Some(info)) => {
                last = Some(info.clone());
                count += 1;
                if runs.len() < limit {
                    runs.push(info);
                } else if start.elapsed() > time_limit {
                    return Err(RangeProblem::TooMany { count, is_exact: false });
                }
            }
            Ok(None) | Err(TimetableProblem::Cron(_)) if count > limit => {
                return Err(RangeProblem::TooMany { count, is_exact: true });
            }
            Ok(None) | Err(TimetableProblem::Cron(_)) => return Ok(runs),
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

    fn range(hours: &str, limit: usize, time_limit: Duration) -> Result<usize, RangeProblem> {
        let now = "2026-02-01T00:00:00Z".parse().unwrap();
        in_range(&hourly(), day(hours), now, limit, time_limit).map(|runs| runs.len())
    }

    #[test]
    fn counts_runs_over_the_limit_for_a_while() {
        let long = Duration::from_secs(60);
        assert!(matches!(range("09", 10, long), Ok(10)));
        assert!(matches!(range("10", 10, long), Err(RangeProblem::TooMany { count: 11, is_exact: true })));
        assert!(matches!(range("23", 10, Duration::ZERO), Err(RangeProblem::TooMany { count: 11, is_exact: false })));
    }

    #[test]
    fn excludes_intervals_that_have_not_ended() {
        let now = "2026-01-01T03:30:00Z".parse().unwrap();
        let runs = in_range(&hourly(), day("23"), now, 10, Duration::ZERO).unwrap();
        assert_eq!(runs.len(), 3);
    }

    #[test]
    fn bounds_of_partitions_are_times_in_their_zone() {
        let runs = |expression: &str, zone: &str, from: &str, to: &str| {
            let ticks = json!({"kind": "cron_partition", "expression": expression, "timezone": zone,
                "run_immediately": true, "run_offset": -1, "key_format": "%Y-%m-%dT%H"});
            let timetable = serde_json::from_value(ticks).unwrap();
            let range = (from.parse().unwrap(), to.parse().unwrap());
            // Dates after now too.
            let now = "2026-01-01T00:30:00Z".parse().unwrap();
            let runs = in_range(&timetable, range, now, 10, Duration::ZERO).unwrap();
            let view = |run: &Info| (run.partition.as_ref().unwrap().key.clone(), run.run_after.to_string());
            runs.iter().map(view).collect::<Vec<_>>()
        };
        let hours = runs("0 * * * *", "Europe/Berlin", "2026-01-01T00:00:00Z", "2026-01-01T02:00:00Z");
        let keys: Vec<&str> = hours.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["2026-01-01T00", "2026-01-01T01", "2026-01-01T02"]);
        // Each is due at the tick whose partition it is.
        assert_eq!(hours[0].1, "2026-01-01T00:00:00Z");
        // A bound at a time that occurs twice.
        let days = runs("0 0 * * *", "Atlantic/Azores", "2026-10-25T00:00:00Z", "2026-10-26T00:00:00Z");
        let keys: Vec<&str> = days.iter().map(|(key, _)| key.as_str()).collect();
        assert_eq!(keys, ["2026-10-25T00", "2026-10-26T00"]);
    }

    #[test]
    fn the_known_run_comes_first() {
        let time = |text: &str| text.parse::<Timestamp>().unwrap();
        let first = Interval { start: time("2026-01-01T00:00:00Z"), end: time("2026-01-01T01:00:00Z") };
        let known = (first.end, Some(first));
        let all = upcoming(Some(&hourly()), Restriction::default(), known, 3, time("2026-01-05T00:00:00Z"));
        let ends: Vec<String> = all.iter().map(|(run_after, _)| run_after.to_string()).collect();
        assert_eq!(ends, ["2026-01-01T01:00:00Z", "2026-01-01T02:00:00Z", "2026-01-01T03:00:00Z"]);
        assert_eq!(upcoming(None, Restriction::default(), known, 3, first.end).len(), 1);
        assert_eq!(upcoming(None, Restriction::default(), known, 0, first.end).len(), 0);
    }
}

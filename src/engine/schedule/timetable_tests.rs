//! Compares the dates of timetables with dates computed by hand.

use super::*;
use serde_json::json;

fn timetable(value: Value) -> Timetable {
    serde_json::from_value(value).unwrap()
}

fn daily() -> Timetable {
    timetable(json!({
        "kind": "cron_trigger", "expression": "0 0 * * *", "timezone": "UTC", "interval": 0.0,
        "run_immediately": false,
    }))
}

fn time(text: &str) -> Timestamp {
    text.parse().unwrap()
}

/// The due dates of the next runs, each computed from the previous one.
fn runs(timetable: &Timetable, restriction: Restriction, now: &str, limit: usize) -> Vec<String> {
    let mut last = None;
    let mut dates = Vec::new();
    while dates.len() < limit {
        let Some(info) = timetable.next(last, restriction, time(now)).unwrap() else { break };
        dates.push(info.run_after.to_string());
        last = info.interval;
    }
    dates
}

#[test]
fn catchup_runs_every_tick_otherwise_only_the_newest() {
    let restriction = |catchup| Restriction { earliest: Some(time("2024-01-01T00:00:00Z")), latest: None, catchup };
    let now = "2024-01-04T08:00:00Z";
    let all = runs(&daily(), restriction(true), now, 5);
    assert_eq!(all[..2], ["2024-01-01T00:00:00Z", "2024-01-02T00:00:00Z"]);
    assert_eq!(all[4], "2024-01-05T00:00:00Z", "includes a run that is not due yet");
    let newest = runs(&daily(), restriction(false), now, 2);
    assert_eq!(newest, ["2024-01-04T00:00:00Z", "2024-01-05T00:00:00Z"]);
}

/// When a laptop wakes up after a night, catchup decides between one run and all of them.
#[test]
fn after_a_long_sleep_one_run_or_all_of_them() {
    let hourly = timetable(json!({
        "kind": "cron_trigger", "expression": "0 * * * *", "timezone": "UTC", "interval": 0.0,
        "run_immediately": false,
    }));
    let evening = time("2024-01-01T22:00:00Z");
    let last = Some(Interval { start: evening, end: evening });
    let next = |catchup, now: &str| {
        let restriction = Restriction { catchup, ..Restriction::default() };
        hourly.next(last, restriction, time(now)).unwrap().unwrap().run_after.to_string()
    };
    assert_eq!(next(true, "2024-01-02T06:30:00Z"), "2024-01-01T23:00:00Z");
    assert_eq!(next(false, "2024-01-02T06:30:00Z"), "2024-01-02T06:00:00Z");
    // After the clock is set back, no run is repeated.
    assert_eq!(next(false, "2024-01-01T20:30:00Z"), "2024-01-01T23:00:00Z");
}

#[test]
fn a_dag_without_start_date_takes_a_tick_that_just_passed() {
    let unrestricted = Restriction::default();
    assert_eq!(runs(&daily(), unrestricted, "2024-01-04T08:00:00Z", 1), ["2024-01-05T00:00:00Z"]);
    assert_eq!(runs(&daily(), unrestricted, "2024-01-04T02:00:00Z", 1), ["2024-01-04T00:00:00Z"], "a tenth of the day");
}

#[test]
fn the_end_date_is_included() {
    let restriction = Restriction {
        earliest: Some(time("2024-01-01T00:00:00Z")),
        latest: Some(time("2024-01-02T00:00:00Z")),
        catchup: true,
    };
    assert_eq!(runs(&daily(), restriction, "2024-02-01T00:00:00Z", 9).len(), 2);
    let once = timetable(json!({"kind": "once"}));
    assert_eq!(runs(&once, restriction, "2024-02-01T00:00:00Z", 9), ["2024-01-01T00:00:00Z"]);
    assert!(runs(&timetable(json!({"kind": "null"})), restriction, "2024-02-01T00:00:00Z", 9).is_empty());
}

#[test]
fn interval_runs_are_due_when_the_interval_ends() {
    let weekly = timetable(json!({"kind": "cron_interval", "expression": "0 6 * * 1", "timezone": "UTC"}));
    let restriction = |catchup| Restriction { earliest: Some(time("2024-01-01T00:00:00Z")), latest: None, catchup };
    let first = weekly.next(None, restriction(true), time("2024-03-01T00:00:00Z")).unwrap().unwrap();
    assert_eq!(first.logical_date(), Some(time("2024-01-01T06:00:00Z")));
    assert_eq!(first.run_after, time("2024-01-08T06:00:00Z"));
    let newest = weekly.next(None, restriction(false), time("2024-03-01T00:00:00Z")).unwrap().unwrap();
    assert_eq!(newest.run_after, time("2024-02-26T06:00:00Z"));
    let manual = weekly.manual(time("2024-03-01T00:00:00Z")).unwrap();
    assert_eq!((manual.start, manual.end), (time("2024-02-19T06:00:00Z"), time("2024-02-26T06:00:00Z")));
}

#[test]
fn month_deltas_follow_the_calendar() {
    let monthly = timetable(json!({"kind": "delta_trigger", "delta": {"months": 1, "seconds": 0.0}, "interval": 0.0}));
    let restriction = Restriction { earliest: Some(time("2024-01-31T00:00:00Z")), latest: None, catchup: true };
    let dates = runs(&monthly, restriction, "2024-12-01T00:00:00Z", 2);
    assert_eq!(dates, ["2024-01-31T00:00:00Z", "2024-02-29T00:00:00Z"], "leap day");
}

#[test]
fn a_zone_is_a_name_or_an_offset() {
    assert!(zone(&json!("Europe/Berlin")).is_ok() && zone(&json!(3600)).is_ok() && zone(&Value::Null).is_ok());
    assert!(zone(&json!("Nowhere/At All")).is_err());
    let custom = timetable(json!({"kind": "custom", "class": "x.Y"}));
    assert!(matches!(custom.manual(time("2024-01-01T00:00:00Z")), Err(TimetableProblem::Custom)));
}

/// Each interval must start later than the one before: runs of a DAG differ in their logical date.
#[test]
fn continuous_runs_follow_each_other_from_any_start() {
    let moment = time("2024-01-01T12:00:00Z");
    let starts = ["2024-01-01T11:00:00Z", "2024-01-01T12:00:00Z", "2024-01-01T13:00:00Z"];
    for earliest in [None, Some(starts[0]), Some(starts[1]), Some(starts[2])] {
        let restriction = Restriction { earliest: earliest.map(time), ..Restriction::default() };
        // Without progress of the clock between two runs, too.
        for step in [SignedDuration::ZERO, SignedDuration::from_secs(1)] {
            let (mut last, mut now): (Option<Interval>, _) = (None, moment);
            for _ in 0..5 {
                let info = Timetable::Continuous.next(last, restriction, now).unwrap().unwrap();
                let interval = info.interval.unwrap();
                assert!(interval.start < interval.end, "{earliest:?}: {interval:?}");
                assert!(last.is_none_or(|last| interval.start >= last.end), "{last:?} {interval:?}");
                assert!(earliest.is_none_or(|earliest| interval.start >= time(earliest)));
                last = Some(interval);
                now = now.max(info.run_after) + step;
            }
        }
    }
    // A start date that is moved to the future, after runs.
    let later = Restriction { earliest: Some(time(starts[2])), ..Restriction::default() };
    let last = Some(Interval { start: time(starts[0]), end: moment });
    let next = Timetable::Continuous.next(last, later, moment).unwrap().unwrap();
    assert_eq!(next.logical_date(), later.earliest);
    // After a run of an earlier release, whose interval had length 0.
    let empty = Some(Interval { start: moment, end: moment });
    let next = Timetable::Continuous.next(empty, Restriction::default(), moment).unwrap().unwrap();
    assert!(next.logical_date().unwrap() > moment);
}

/// From the report apache/airflow#70089.
#[test]
fn a_manual_run_at_a_clock_change_gets_a_whole_interval() {
    let manual = |hour: u32, run_after: &str| {
        let timetable = timetable(json!({
            "kind": "cron_interval", "expression": format!("0 {hour} * * *"), "timezone": "America/New_York",
        }));
        let Interval { start, end } = timetable.manual(time(run_after)).unwrap();
        (start.to_string(), end.to_string())
    };
    let interval = |start: &str, end: &str| (start.to_owned(), end.to_owned());
    let spring = interval("2024-03-09T07:00:00Z", "2024-03-10T07:00:00Z");
    assert_eq!(manual(2, "2024-03-10T07:30:00Z"), spring, "two o'clock is skipped");
    assert_eq!(manual(2, "2024-03-10T07:00:00Z"), spring);
    let autumn = interval("2024-11-01T05:00:00Z", "2024-11-02T05:00:00Z");
    assert_eq!(manual(1, "2024-11-03T05:30:00Z"), autumn, "one o'clock is repeated, and the second has not come");
    assert_eq!(manual(1, "2024-11-03T06:30:00Z"), interval("2024-11-02T05:00:00Z", "2024-11-03T06:00:00Z"));
}

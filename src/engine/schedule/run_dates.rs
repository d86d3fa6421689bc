//! The words of every timetable: an interval of data, what a DAG restricts its runs to, and the run that is due.

use super::cron::CronProblem;
use jiff::tz::{Offset, TimeZone};
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// A distance in time: seconds, or months too.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Delta {
    Seconds(f64),
    Calendar { months: i32, seconds: f64 },
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub start: Timestamp,
    pub end: Timestamp,
}

/// What the DAG says about all of its runs. Both ends belong to it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restriction {
    pub earliest: Option<Timestamp>,
    pub latest: Option<Timestamp>,
    pub catchup: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    pub run_after: Timestamp,
    pub interval: Option<Interval>,
    /// Only where a class of the user's own made one up.
    pub run_id: Option<String>,
    pub partition: Option<Partition>,
}

/// The part of an asset that a run makes or reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub key: String,
    /// The beginning of the time that it stands for, where it stands for one.
    pub date: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum TimetableProblem {
    #[error(transparent)]
    Cron(#[from] CronProblem),
    #[error("there is no time zone {0}")]
    Zone(String),
    #[error("only the DAG's own code knows when it is due")]
    Custom,
    #[error("{0}")]
    Partition(String),
}

impl Info {
    pub(super) fn exact(at: Timestamp) -> Self {
        Self::interval(at, at)
    }

    pub fn interval(start: Timestamp, end: Timestamp) -> Self {
        Self { run_after: end, interval: Some(Interval { start, end }), run_id: None, partition: None }
    }

    pub fn logical_date(&self) -> Option<Timestamp> {
        self.interval.map(|interval| interval.start)
    }
}

/// `Europe/Berlin`, or seconds east of Greenwich; nothing is UTC.
pub fn zone(name: &Value) -> Result<TimeZone, TimetableProblem> {
    match name {
        Value::Null => Ok(TimeZone::UTC),
        Value::String(name) => TimeZone::get(name).map_err(|_| TimetableProblem::Zone(name.clone())),
        other => other
            .as_i64()
            .and_then(|seconds| Offset::from_seconds(i32::try_from(seconds).ok()?).ok())
            .map(Offset::to_time_zone)
            .ok_or_else(|| TimetableProblem::Zone(other.to_string())),
    }
}

impl Delta {
    pub fn after(self, at: Timestamp) -> Timestamp {
        self.shift(at, 1)
    }

    pub fn before(self, at: Timestamp) -> Timestamp {
        self.shift(at, -1)
    }

    fn shift(self, at: Timestamp, sign: i32) -> Timestamp {
        let (months, seconds) = match self {
            Self::Seconds(seconds) => (0, seconds),
            Self::Calendar { months, seconds } => (months, seconds),
        };
        let span = Span::new().try_months(i64::from(months) * i64::from(sign));
        let moved = span.and_then(|span| at.to_zoned(TimeZone::UTC).checked_add(span));
        let end = if sign > 0 { Timestamp::MAX } else { Timestamp::MIN };
        let at = moved.map_or(end, |zoned| zoned.timestamp());
        let delay = SignedDuration::try_from_secs_f64(seconds * f64::from(sign)).unwrap_or(SignedDuration::ZERO);
        at.checked_add(delay).unwrap_or(if sign > 0 { Timestamp::MAX } else { Timestamp::MIN })
    }

    /// The newest point of its own grid that is not after `at`.
    pub fn floor(self, at: Timestamp, anchor: Timestamp) -> Timestamp {
        match self {
            Self::Seconds(seconds) | Self::Calendar { months: 0, seconds } => {
                let step = seconds.max(1.0) as i64;
                let rest = at.as_second().rem_euclid(step);
                Timestamp::from_second(at.as_second() - rest).unwrap_or(at)
            }
            Self::Calendar { .. } => {
                let mut point = anchor.min(at);
                while self.after(point) <= at && self.after(point) > point {
                    point = self.after(point);
                }
                point
            }
        }
    }
}

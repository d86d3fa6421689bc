//! Types shared by all timetables: data intervals, restrictions on a DAG's runs, and the next run.

use super::cron::{CronProblem, Schedule};
use super::partition_key::PartitionError;
use super::zone::{UnknownZone, zone};
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Span, Timestamp};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::OnceLock;

/// A time delta in seconds, optionally with calendar months.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Delta {
    Seconds(f64),
    Calendar { months: i32, seconds: f64 },
}

/// A data interval.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Interval {
    pub start: Timestamp,
    pub end: Timestamp,
}

/// Restrictions on the scheduled runs of a DAG. Both bounds are inclusive.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Restriction {
    pub earliest: Option<Timestamp>,
    pub latest: Option<Timestamp>,
    pub catchup: bool,
}

/// A run that a timetable has computed: Airflow's `DagRunInfo`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Info {
    pub run_after: Timestamp,
    pub interval: Option<Interval>,
    /// Set only by custom timetables.
    pub run_id: Option<String>,
    pub partition: Option<Partition>,
}

/// The part of an asset that a run produces or reads.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Partition {
    pub key: String,
    /// Start of the period that the key denotes, if any.
    pub date: Option<Timestamp>,
}

#[derive(Debug, Clone, thiserror::Error)]
pub enum TimetableProblem {
    #[error(transparent)]
    Cron(#[from] CronProblem),
    #[error(transparent)]
    Zone(#[from] UnknownZone),
    #[error("a custom timetable must be evaluated by the DAG's code")]
    Custom,
    #[error(transparent)]
    Partition(#[from] PartitionError),
}

impl Info {
    /// A run whose data interval starts and ends at `date`.
    pub(super) fn exact(date: Timestamp) -> Self {
        Self::interval(date, date)
    }

    /// A run that is due at the end of its data interval.
    pub fn interval(start: Timestamp, end: Timestamp) -> Self {
        Self { run_after: end, interval: Some(Interval { start, end }), run_id: None, partition: None }
    }

    pub fn logical_date(&self) -> Option<Timestamp> {
        self.interval.map(|interval| interval.start)
    }

    /// The date that no other scheduled run of the DAG has.
    pub(crate) fn key_date(&self) -> Timestamp {
        self.logical_date().unwrap_or(self.run_after)
    }
}

impl Delta {
    pub(crate) fn add_to(self, time: Timestamp) -> Timestamp {
        self.shift(time, 1)
    }

    pub(crate) fn subtract_from(self, time: Timestamp) -> Timestamp {
        self.shift(time, -1)
    }

    fn shift(self, time: Timestamp, sign: i32) -> Timestamp {
        let (months, seconds) = match self {
            Self::Seconds(seconds) => (0, seconds),
            Self::Calendar { months, seconds } => (months, seconds),
        };
        let span = Span::new().try_months(i64::from(months) * i64::from(sign));
        let moved = span.and_then(|span| time.to_zoned(TimeZone::UTC).checked_add(span));
        let limit = if sign > 0 { Timestamp::MAX } else { Timestamp::MIN };
        let shifted = moved.map_or(limit, |zoned| zoned.timestamp());
        let delay = SignedDuration::try_from_secs_f64(seconds * f64::from(sign)).unwrap_or(SignedDuration::ZERO);
        shifted.checked_add(delay).unwrap_or(if sign > 0 { Timestamp::MAX } else { Timestamp::MIN })
    }

    /// Rounds `time` down to a multiple of the delta. A delta in seconds is counted from 1970, one with months from
    /// `anchor`.
    pub fn floor(self, time: Timestamp, anchor: Timestamp) -> Timestamp {
        match self {
            Self::Seconds(seconds) | Self::Calendar { months: 0, seconds } => {
                let step = seconds.max(1.0) as i64;
                let remainder = time.as_second().rem_euclid(step);
                Timestamp::from_second(time.as_second() - remainder).unwrap_or(time)
            }
            Self::Calendar { .. } => {
                let mut point = anchor.min(time);
                while self.add_to(point) <= time && self.add_to(point) > point {
                    point = self.add_to(point);
                }
                point
            }
        }
    }
}

/// An expression and its time zone. It is parsed only once, on first use: a backfill may enumerate half a million
/// dates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crontab {
    expression: String,
    timezone: Value,
    #[serde(skip)]
    parsed: OnceLock<Result<Schedule, TimetableProblem>>,
}

impl Crontab {
    pub(crate) fn expression(&self) -> &str {
        &self.expression
    }

    pub fn zone(&self) -> Result<TimeZone, UnknownZone> {
        zone(&self.timezone)
    }

    pub fn schedule(&self) -> Result<&Schedule, TimetableProblem> {
        let parsed = self.parsed.get_or_init(|| Ok(Schedule::new(&self.expression, zone(&self.timezone)?)?));
        parsed.as_ref().map_err(Clone::clone)
    }
}

/// Compares the text and the time zone, whether parsed or not.
impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.timezone == other.timezone
    }
}

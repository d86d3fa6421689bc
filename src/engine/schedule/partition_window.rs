//! The finer partitions that make up a coarser one, and how many of them must have arrived. Pure.

use super::partition_key::PartitionError;
use jiff::civil::DateTime;
use jiff::{Span, ToSpan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// Length of a time partition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Period {
    Hour,
    Day,
    Week,
    Month,
    Quarter,
    Year,
}

impl Period {
    /// Returns the start of the period that contains a time.
    pub fn start(self, time: DateTime) -> DateTime {
        let day = time.date();
        let day = match self {
            Self::Hour => return day.at(time.hour(), 0, 0, 0),
            Self::Day => day,
            Self::Week => {
                let days_past = i64::from(day.weekday().to_monday_zero_offset());
                day.saturating_sub(days_past.days())
            }
            Self::Month => day.first_of_month(),
            Self::Quarter => {
                let months_past = i64::from((day.month() - 1) % 3);
                day.first_of_month().saturating_sub(months_past.months())
            }
            Self::Year => day.first_of_year(),
        };
        day.at(0, 0, 0, 0)
    }
}

/// The parts of a coarser partition.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(untagged)]
pub enum Window {
    /// A fixed set of segments, the same for each coarser partition.
    Segments { segments: BTreeSet<String> },
    /// The minutes of an hour, the hours of a day, the days of a week or a month, or the months of a quarter or a year.
    Time {
        period: Period,
        #[serde(default, rename = "backward")]
        direction: WindowDirection,
    },
}

/// Position of a window relative to the coarser partition's start; serialized as the boolean `backward`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(from = "bool", into = "bool")]
pub enum WindowDirection {
    /// The window begins with the coarser partition's start.
    #[default]
    Forward,
    /// The last part of the window begins at the coarser partition's start.
    Backward,
}

impl From<bool> for WindowDirection {
    fn from(is_backward: bool) -> Self {
        if is_backward { Self::Backward } else { Self::Forward }
    }
}

impl From<WindowDirection> for bool {
    fn from(direction: WindowDirection) -> Self {
        direction == WindowDirection::Backward
    }
}

/// Returns the start times of the parts of a window that begins at `start` or, if it is backward, ends with the part
/// that begins at `start`.
pub fn parts(period: Period, direction: WindowDirection, start: DateTime) -> Result<Vec<DateTime>, PartitionError> {
    if matches!(period, Period::Month | Period::Quarter | Period::Year) && start.day() != 1 {
        return Err(PartitionError::WindowStart(start));
    }
    let step: fn(i64) -> Span = match period {
        Period::Hour => |count| count.minutes(),
        Period::Day => |count| count.hours(),
        Period::Week | Period::Month => |count| count.days(),
        Period::Quarter | Period::Year => |count| count.months(),
    };
    let days = |from: DateTime, to: DateTime| i64::from(from.date().until(to.date()).map_or(0, |span| span.get_days()));
    let count = match (period, direction) {
        (Period::Hour, _) => 60,
        (Period::Day, _) => 24,
        (Period::Week, _) => 7,
        (Period::Month, WindowDirection::Forward) => days(start, start.checked_add(1.months())?),
        (Period::Month, WindowDirection::Backward) => days(start.checked_sub(1.months())?, start),
        (Period::Quarter, _) => 3,
        (Period::Year, _) => 12,
    };
    let first = match direction {
        WindowDirection::Forward => start,
        WindowDirection::Backward => start.checked_add(step(1 - count))?,
    };
    (0..count).map(|index| Ok(first.checked_add(step(index))?)).collect()
}

/// How many of the parts must have arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    #[default]
    All,
    /// This many parts or, if negative, all but this many.
    Minimum(i64),
}

impl Wait {
    /// True if enough of the expected keys have arrived; `None` if that is impossible, because more parts are required
    /// than exist.
    pub fn is_over(self, arrived: &BTreeSet<String>, expected: &BTreeSet<String>) -> Option<bool> {
        let (present, all) = (expected.intersection(arrived).count() as i64, expected.len() as i64);
        match self {
            Self::All => Some(present == all),
            Self::Minimum(minimum) if minimum > all => None,
            Self::Minimum(minimum) if minimum > 0 => Some(present >= minimum),
            // At most `-minimum` parts may be missing.
            Self::Minimum(minimum) => Some(present >= (all + minimum).max(0)),
        }
    }
}

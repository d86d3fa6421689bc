//! Which partitions make up one of a coarser kind, and how many of them have to be there. Pure.

use jiff::civil::DateTime;
use jiff::{Span, ToSpan};
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;

/// A length of time that partitions are cut by.
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
    /// The beginning of the one that a time is in.
    pub fn start(self, at: DateTime) -> DateTime {
        let day = at.date();
        let day = match self {
            Self::Hour => return day.at(at.hour(), 0, 0, 0),
            Self::Day => day,
            Self::Week => {
                let past = i64::from(day.weekday().to_monday_zero_offset());
                day.saturating_sub(past.days())
            }
            Self::Month => day.first_of_month(),
            Self::Quarter => {
                let past = i64::from((day.month() - 1) % 3);
                day.first_of_month().saturating_sub(past.months())
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
    /// Such of a fixed set, whichever the coarser one is.
    Segments { segments: BTreeSet<String> },
    /// The minutes of an hour, the hours of a day, the days of a week or a month, the months of a quarter or a year:
    /// those from its beginning on or, backward, those that end with it.
    Time {
        period: Period,
        #[serde(default)]
        backward: bool,
    },
}

/// The beginnings of the parts of a period that begins at `start`.
pub fn parts(period: Period, backward: bool, start: DateTime) -> Result<Vec<DateTime>, String> {
    if matches!(period, Period::Month | Period::Quarter | Period::Year) && start.day() != 1 {
        return Err(format!("the window of a {period:?} begins on the first day of a month, not on {start}"));
    }
    let step: fn(i64) -> Span = match period {
        Period::Hour => |count| count.minutes(),
        Period::Day => |count| count.hours(),
        Period::Week | Period::Month => |count| count.days(),
        Period::Quarter | Period::Year => |count| count.months(),
    };
    let add = |base: DateTime, span: Span| base.checked_add(span).map_err(|error| error.to_string());
    let days =
        |one: DateTime, other: DateTime| i64::from(one.date().until(other.date()).map_or(0, |span| span.get_days()));
    let (base, count) = match period {
        Period::Month if backward => {
            let previous = add(start, (-1).months())?;
            (add(previous, 1.days())?, days(previous, start))
        }
        Period::Month => (start, days(start, add(start, 1.months())?)),
        _ => {
            let count = match period {
                Period::Hour => 60,
                Period::Day => 24,
                Period::Week => 7,
                Period::Quarter => 3,
                _ => 12,
            };
            (if backward { add(start, step(1 - count))? } else { start }, count)
        }
    };
    (0..count).map(|at| add(base, step(at))).collect()
}

/// How many of the parts have to be there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Wait {
    #[default]
    All,
    /// So many, or, below zero, all but so many.
    Minimum(i64),
}

impl Wait {
    /// `None` where it can never be: more are wanted than there are.
    pub fn is_over(self, arrived: &BTreeSet<String>, expected: &BTreeSet<String>) -> Option<bool> {
        let (there, all) = (expected.intersection(arrived).count() as i64, expected.len() as i64);
        match self {
            Self::All => Some(there == all),
            Self::Minimum(least) if least > all => None,
            Self::Minimum(least) if least > 0 => Some(there >= least),
            Self::Minimum(missing) => Some(there >= (all + missing).max(0)),
        }
    }
}

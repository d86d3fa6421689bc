//! A cron expression as a DAG file writes it.

use super::cron::Schedule;
use super::run_dates::{TimetableProblem, zone};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::OnceLock;

/// An expression and its time zone. They are read when they are first needed, and once: a backfill follows a
/// schedule through half a million dates.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub struct Crontab {
    expression: String,
    timezone: Value,
    #[serde(skip)]
    read: OnceLock<Result<Schedule, TimetableProblem>>,
}

impl Crontab {
    pub fn zone(&self) -> Result<TimeZone, TimetableProblem> {
        zone(&self.timezone)
    }

    pub fn schedule(&self) -> Result<&Schedule, TimetableProblem> {
        let read = self.read.get_or_init(|| Ok(Schedule::new(&self.expression, zone(&self.timezone)?)?));
        read.as_ref().map_err(Clone::clone)
    }
}

/// Two are equal when they are written alike, whether they have been read or not.
impl PartialEq for Crontab {
    fn eq(&self, other: &Self) -> bool {
        self.expression == other.expression && self.timezone == other.timezone
    }
}

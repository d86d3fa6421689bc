//! A cron expression as it appears in a DAG file.

use super::cron::Schedule;
use super::run_dates::{TimetableProblem, UnknownZone, zone};
use jiff::tz::TimeZone;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::sync::OnceLock;

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

//! What a run is started with, as it is written on the command line.

use super::transfer_file;
use crate::error::Error;
use serde_json::{Map, Value};

/// A time, or a day, which is its first moment in UTC.
pub fn read_date(text: &str) -> Result<jiff::Timestamp, Error> {
    let day =
        || text.parse::<jiff::civil::Date>().ok()?.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp());
    text.parse::<jiff::Timestamp>().ok().or_else(day).ok_or_else(|| {
        Error::usage(format!("--logical-date: {text:?} is no date")).hint("2026-01-31, or 2026-01-31T08:00:00Z")
    })
}

/// An object, or why it is none.
pub fn read_conf(given: Option<&str>) -> Result<Map<String, Value>, Error> {
    let Some(given) = given else { return Ok(Map::new()) };
    let text = transfer_file::value_or_stdin(given)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(conf)) => Ok(conf),
        Ok(_) => Err(Error::usage("--conf is not a JSON object").hint("--conf '{\"name\": \"Ada\"}'")),
        Err(error) => Err(Error::usage(format!("--conf is not JSON: {error}")).hint("--conf '{\"name\": \"Ada\"}'")),
    }
}

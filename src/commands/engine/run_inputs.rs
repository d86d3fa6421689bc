//! What a run is started with, as it is written on the command line.

use crate::commands::data::transfer_file;
use crate::error::Error;
use serde_json::{Map, Value};

/// A time, in UTC where it names no zone, or a day, which is its first moment there. `option` is what it was
/// given as.
pub fn read_date(option: &str, text: &str) -> Result<jiff::Timestamp, Error> {
    // A day is one too. What names its zone in brackets would be taken for UTC.
    let without_zone = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok().filter(|_| !text.contains('['))?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|at| at.timestamp())
    };
    text.parse::<jiff::Timestamp>()
        .ok()
        .or_else(without_zone)
        .ok_or_else(|| Error::usage(format!("{option}: {text:?} is no date")).hint("2026-01-31, or 2026-01-31T08:00"))
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_in_utc_where_they_name_no_zone() {
        let read = |text: &str| read_date("--from-date", text).map(|at| at.to_string()).map_err(|error| error.message);
        assert_eq!(read("2026-01-31").unwrap(), "2026-01-31T00:00:00Z");
        assert_eq!(read("2026-01-31T08:30").unwrap(), "2026-01-31T08:30:00Z");
        assert_eq!(read("2026-01-31T08:30:00+02:00").unwrap(), "2026-01-31T06:30:00Z");
        assert!(read("2026-01-31T08:30[Europe/Paris]").is_err());
        assert!(read("31.1.2026").unwrap_err().contains("--from-date"));
    }
}

//! Reads a run's dates and conf from the command line.

use crate::airflow::data_files::transfer_file;
use crate::error::Error;
use serde_json::{Map, Value};

/// Reads a time, in UTC unless it has an offset, or a date, which means its midnight. `option` names the argument in
/// errors.
pub fn read_date(option: &str, text: &str) -> Result<jiff::Timestamp, Error> {
    // `DateTime` also parses a date. It ignores a time zone in brackets, so such a text is rejected, not read as UTC.
    let civil_in_utc = || {
        let civil = text.parse::<jiff::civil::DateTime>().ok().filter(|_| !text.contains('['))?;
        civil.to_zoned(jiff::tz::TimeZone::UTC).ok().map(|time| time.timestamp())
    };
    text.parse::<jiff::Timestamp>().ok().or_else(civil_in_utc).ok_or_else(|| {
        Error::usage(format!("{option}: {text:?} is not a date")).hint("for example 2026-01-31 or 2026-01-31T08:00")
    })
}

/// Reads a JSON object; `None` is an empty one.
pub fn read_conf(argument: Option<&str>) -> Result<Map<String, Value>, Error> {
    let Some(argument) = argument else { return Ok(Map::new()) };
    let text = transfer_file::value_or_stdin(argument)?;
    match serde_json::from_str(&text) {
        Ok(Value::Object(conf)) => Ok(conf),
        Ok(_) => Err(Error::usage("the conf is not a JSON object").hint("for example '{\"name\": \"Ada\"}'")),
        Err(error) => {
            Err(Error::usage(format!("the conf is not JSON: {error}")).hint("for example '{\"name\": \"Ada\"}'"))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_without_an_offset_are_in_utc() {
        let read =
            |text: &str| read_date("--from-date", text).map(|time| time.to_string()).map_err(|error| error.message);
        assert_eq!(read("2026-01-31").unwrap(), "2026-01-31T00:00:00Z");
        assert_eq!(read("2026-01-31T08:30").unwrap(), "2026-01-31T08:30:00Z");
        assert_eq!(read("2026-01-31T08:30:00+02:00").unwrap(), "2026-01-31T06:30:00Z");
        assert!(read("2026-01-31T08:30[Europe/Paris]").is_err());
        assert!(read("31.1.2026").unwrap_err().contains("--from-date"));
    }
}

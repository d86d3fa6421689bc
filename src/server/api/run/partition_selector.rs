//! Parses which partitions a request to clear runs selects.

use crate::api::instance::clear::invalid;
use crate::http::api_error::ApiError;
use jiff::civil::DateTime;
use jiff::fmt::temporal::DateTimeParser;
use jiff::tz::TimeZone;
use leoflow_engine::schedule::timetable::Timetable;
use leoflow_engine::store::asset::partitions::RunSelector;

/// The request's selector besides partition key and window.
pub(super) struct OtherSelector {
    /// Its name in an error.
    pub name: &'static str,
    pub is_given: bool,
}

/// Selects runs by partition key, or by a window of partition dates, which includes both ends and is in the timezone of
/// the DAG's timetable.
pub(super) struct Partitions {
    key: Option<String>,
    from: Option<DateTime>,
    to: Option<DateTime>,
}

impl Partitions {
    pub(super) fn parse(key: Option<String>, from: Option<String>, to: Option<String>) -> Result<Self, ApiError> {
        let parse_date = |name: &str, text: Option<String>| {
            let read = |text: String| -> Result<DateTime, jiff::Error> {
                let pieces = DateTimeParser::new().parse_pieces(&text)?;
                Ok(pieces.date().to_datetime(pieces.time().unwrap_or_default()))
            };
            let refuse = |error: jiff::Error| ApiError::unprocessable(&["body", name], "datetime_parsing", error);
            text.map(read).transpose().map_err(refuse)
        };
        let (from, to) = (parse_date("partition_date_start", from)?, parse_date("partition_date_end", to)?);
        if from.zip(to).is_some_and(|(from, to)| from > to) {
            return Err(invalid("partition_date_start must be on or before partition_date_end."));
        }
        Ok(Self { key, from, to })
    }

    /// Requires exactly one selector: the key, the window, or the request's other selector.
    pub(super) fn check(&self, other: &OtherSelector) -> Result<(), ApiError> {
        let selectors = [other.is_given, self.key.is_some(), self.from.or(self.to).is_some()];
        if selectors.into_iter().filter(|is_given| *is_given).count() == 1 {
            return Ok(());
        }
        let name = other.name;
        Err(invalid(&format!(
            "Exactly one of {name}, partition_key, or a partition date window (partition_date_start / \
             partition_date_end) must be provided."
        )))
    }

    /// Returns the selector, with dates in the timezone of the timetable.
    pub(super) fn run_selector(&self, timetable: Option<&Timetable>) -> Result<RunSelector, ApiError> {
        if let Some(key) = &self.key {
            return Ok(RunSelector::Key(key.clone()));
        }
        let zone = timetable.map_or(TimeZone::UTC, Timetable::zone_of_partitions);
        // An unrepresentable date must not become `None`: that would select every run.
        let in_zone = |name: &str, date: Option<DateTime>| {
            let zoned = date.map(|date| date.to_zoned(zone.clone())).transpose();
            let refuse = |error| ApiError::unprocessable(&["body", name], "datetime_parsing", error);
            zoned.map(|zoned| zoned.map(|zoned| zoned.timestamp())).map_err(refuse)
        };
        Ok(RunSelector::Window(in_zone("partition_date_start", self.from)?, in_zone("partition_date_end", self.to)?))
    }
}

//! Dates in partition keys, formatted and parsed like Python's `strftime` and `strptime`. Pure.

use super::zone::UnknownZone;
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// Length of Airflow's database column for partition keys, in characters.
pub(crate) const LONGEST_KEY: usize = 250;

/// Limit on `run_offset`, because each due run counts the ticks one by one.
pub(super) const MAX_TICKS: u32 = 10_000;

/// Why a partition key is refused, or cannot be mapped. The texts of `OtherFormat`, `Empty`, `TooLong`, `NotAllowed` and
/// `Segments` are Airflow's or Python's.
#[derive(Debug, Clone, thiserror::Error)]
pub enum PartitionError {
    #[error("time data {key:?} does not match format {format:?}{reason}")]
    OtherFormat { key: String, format: String, reason: &'static str },
    #[error("cannot format {date} as {format:?}")]
    Format { date: DateTime, format: String, source: jiff::Error },
    #[error(transparent)]
    Date(#[from] jiff::Error),
    #[error(transparent)]
    Zone(#[from] UnknownZone),
    #[error("{key:?} cannot be read with output_format {format:?}, which must include {required}")]
    Unreadable { key: String, format: String, required: &'static str },
    #[error("partition_key must not be empty or whitespace-only.")]
    Empty,
    #[error("partition_key must be at most {LONGEST_KEY} characters; got {0}.")]
    TooLong(usize),
    #[error("partition_key must not contain the NUL character.")]
    Nul,
    #[error("key {key:?} maps to {count} runs, more than the limit of {limit}")]
    TooManyRuns { key: String, count: usize, limit: usize },
    #[error("Key {key:?} not in allowed keys {allowed:?}")]
    NotAllowed { key: String, allowed: Vec<String> },
    #[error("Expected {expected} segments in key, got {actual}")]
    Segments { expected: usize, actual: usize },
    #[error("a nested mapper must map {0:?} to exactly one key")]
    Nested(String),
    #[error("the window needs a date, but the key is {0:?}")]
    NoDate(String),
    #[error(
        "a window of a month, quarter or year needs a partition that begins on the first day of a month, not on {0}"
    )]
    WindowStart(DateTime),
    #[error("Partition key {key:?} does not match the timetable's key_format {format:?}: {source}")]
    KeyFormat { key: String, format: String, source: Box<Self> },
    #[error("Partition key {key:?} is invalid for this timetable's mappers: {source}")]
    Mappers { key: String, source: Box<Self> },
    #[error("Dag '{0}' is not a partitioned Dag and does not accept a partition_key.")]
    NotPartitioned(String),
    #[error("run_offset {0} is more than {max} ticks", max = MAX_TICKS)]
    RunOffset(i32),
}

/// Parses a key to a local date and time in the given zone. The error is Python's text.
pub fn read(key: &str, format: &str, zone: &TimeZone) -> Result<DateTime, PartitionError> {
    let reject = |reason| PartitionError::OtherFormat { key: key.to_owned(), format: format.to_owned(), reason };
    if format.contains("%V") && !format.contains("%G") {
        return Err(reject(": %V (ISO week) requires %G (ISO year)"));
    }
    let normalized = if format.contains("%z") { normalize_offset(key) } else { key.to_owned() };
    let mut parts = BrokenDownTime::parse(format, &normalized).map_err(|_| reject(""))?;
    // As in Python, fields that the format lacks default to the start of 1900.
    let completed = (|| {
        parts.set_year(parts.year().or(parts.iso_week_year().is_none().then_some(1900)))?;
        if parts.day_of_year().is_none() && parts.iso_week().is_none() {
            parts.set_month(parts.month().or(Some(1)))?;
            parts.set_day(parts.day().or(Some(1)))?;
        }
        parts.set_hour(parts.hour().or(Some(0)))?;
        parts.set_minute(parts.minute().or(Some(0)))?;
        parts.set_second(parts.second().or(Some(0)))?;
        parts.to_datetime()
    })();
    let civil = completed.map_err(|_| reject(""))?;
    match parts.offset() {
        // A local time that is skipped in spring is one hour later.
        None => Ok(to_timestamp(civil, zone).map_or(civil, |timestamp| zone.to_datetime(timestamp))),
        Some(offset) => {
            let timestamp = offset.to_timestamp(civil).map_err(|_| reject(""))?;
            Ok(zone.to_datetime(timestamp))
        }
    }
}

/// Rewrites the offsets `Z` and `+01:00` at the end of a key as `+0000` and `+0100`, since Python parses all of them.
fn normalize_offset(key: &str) -> String {
    if let Some(local) = key.strip_suffix('Z') {
        return format!("{local}+0000");
    }
    let colon = key.len().checked_sub(3).filter(|position| key.as_bytes().get(*position) == Some(&b':'));
    let sign = key.len().checked_sub(6).and_then(|position| key.as_bytes().get(position));
    match (colon, sign) {
        (Some(position), Some(b'+' | b'-')) => format!("{}{}", &key[..position], &key[position + 1..]),
        _ => key.to_owned(),
    }
}

/// Converts a local time to a timestamp. If the local time is skipped in spring, the result is one hour later; if it is
/// repeated in autumn, the result is the second occurrence.
pub(crate) fn to_timestamp(civil: DateTime, zone: &TimeZone) -> Result<Timestamp, PartitionError> {
    Ok(zone.to_ambiguous_zoned(civil).later()?.timestamp())
}

/// Formats a local date and time as a key.
pub fn write(civil: DateTime, format: &str, zone: &TimeZone) -> Result<String, PartitionError> {
    let reject = |source| PartitionError::Format { date: civil, format: format.to_owned(), source };
    let zoned = zone.to_ambiguous_zoned(civil).later().map_err(reject)?;
    // Python writes all six digits.
    BrokenDownTime::from(&zoned).to_string(format.replace("%f", "%6f")).map_err(reject)
}

/// Extracts the fields of a key whose format `strptime` cannot parse, such as `%Y-%m-%d (W%V)` or `%Y-Q{quarter}`. A
/// field is the directive letter, or the name in braces, with its digits. Returns `None` if the key does not match the
/// format.
pub fn fields<'a>(key: &'a str, format: &str) -> Option<Vec<(String, &'a str)>> {
    let mut fields = Vec::new();
    let (mut key, mut format) = (key, format);
    while let Some(first) = format.chars().next() {
        let directive = format.strip_prefix('%').and_then(|remainder| remainder.chars().next());
        let (name, length, rest) = match directive {
            Some('Y') => ("Y".to_owned(), 4, &format[2..]),
            Some(letter @ ('m' | 'd' | 'H' | 'M' | 'S' | 'V' | 'U' | 'W')) => (letter.to_string(), 2, &format[2..]),
            _ => match format.strip_prefix("{quarter}") {
                Some(rest) => ("quarter".to_owned(), 1, rest),
                None => {
                    key = key.strip_prefix(first)?;
                    format = &format[first.len_utf8()..];
                    continue;
                }
            },
        };
        let value = key.get(..length).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))?;
        fields.push((name, value));
        (key, format) = (&key[length..], rest);
    }
    key.is_empty().then_some(fields)
}

/// Validates a partition key.
pub fn check(key: &str) -> Result<(), PartitionError> {
    match key.chars().count() {
        _ if key.trim().is_empty() => Err(PartitionError::Empty),
        length if length > LONGEST_KEY => Err(PartitionError::TooLong(length)),
        _ if key.contains('\0') => Err(PartitionError::Nul),
        _ => Ok(()),
    }
}

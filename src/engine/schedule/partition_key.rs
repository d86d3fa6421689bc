//! Dates in partition keys, formatted and parsed like Python's `strftime` and `strptime`. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// Length of Airflow's database column for partition keys, in characters.
pub(crate) const LONGEST_KEY: usize = 250;

/// Parses a key to a local date and time in the given zone. The error is Python's text.
pub fn read(key: &str, format: &str, zone: &TimeZone) -> Result<DateTime, String> {
    let reject = |reason: &str| format!("time data {key:?} does not match format {format:?}{reason}");
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
        None => Ok(adjust_for_gap(civil, zone)),
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
pub(crate) fn to_timestamp(civil: DateTime, zone: &TimeZone) -> Result<Timestamp, String> {
    zone.to_ambiguous_zoned(civil).later().map(|zoned| zoned.timestamp()).map_err(|error| error.to_string())
}

/// Moves a local time that is skipped in spring one hour later.
fn adjust_for_gap(civil: DateTime, zone: &TimeZone) -> DateTime {
    to_timestamp(civil, zone).map_or(civil, |timestamp| zone.to_datetime(timestamp))
}

/// Formats a local date and time as a key.
pub fn write(civil: DateTime, format: &str, zone: &TimeZone) -> Result<String, String> {
    let reject = |_| format!("cannot format {civil} as {format:?}");
    let zoned = zone.to_ambiguous_zoned(civil).later().map_err(reject)?;
    // Python writes all six digits.
    let format = format.replace("%f", "%6f");
    BrokenDownTime::from(&zoned).to_string(&format).map_err(reject)
}

/// Extracts the fields of a key whose format `strptime` cannot parse, such as `%Y-%m-%d (W%V)` or `%Y-Q{quarter}`. A
/// field is the directive letter, or the name in braces, with its digits. Returns `None` if the key does not match the
/// format.
pub fn fields<'a>(key: &'a str, format: &str) -> Option<Vec<(String, &'a str)>> {
    let mut fields = Vec::new();
    let (mut key, mut format) = (key, format);
    while let Some(first) = format.chars().next() {
        let directive = format.strip_prefix('%').and_then(|remainder| remainder.chars().next());
        let digits = match directive {
            Some('Y') => 4,
            Some('m' | 'd' | 'H' | 'M' | 'S' | 'V' | 'U' | 'W') => 2,
            _ => 0,
        };
        let name = match format.strip_prefix("{quarter}") {
            Some(remainder) => {
                format = remainder;
                Some(("quarter".to_owned(), 1))
            }
            None if digits > 0 => {
                format = &format[2..];
                directive.map(|letter| (letter.to_string(), digits))
            }
            None => None,
        };
        match name {
            Some((name, length)) => {
                let value = key.get(..length).filter(|value| value.bytes().all(|byte| byte.is_ascii_digit()))?;
                fields.push((name, value));
                key = &key[length..];
            }
            None => {
                key = key.strip_prefix(first)?;
                format = &format[first.len_utf8()..];
            }
        }
    }
    key.is_empty().then_some(fields)
}

/// Validates a partition key. Errors are Airflow's texts.
pub fn check(key: &str) -> Result<(), String> {
    if key.trim().is_empty() {
        return Err("partition_key must not be empty or whitespace-only.".to_owned());
    }
    match key.chars().count() {
        length if length > LONGEST_KEY => {
            Err(format!("partition_key must be at most {LONGEST_KEY} characters; got {length}."))
        }
        _ if key.contains('\0') => Err("partition_key must not contain the NUL character.".to_owned()),
        _ => Ok(()),
    }
}

//! The dates in the keys of partitions, written and read as Python's `strftime` and `strptime` do. Pure.

use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::fmt::strtime::BrokenDownTime;
use jiff::tz::TimeZone;

/// What Airflow's column for a key holds.
pub const LONGEST_KEY: usize = 250;

/// What a key says: a date as a clock shows it, in the zone that it is meant in.
pub fn read(key: &str, format: &str, zone: &TimeZone) -> Result<DateTime, String> {
    let refuse = |why: &str| format!("time data {key:?} does not match format {format:?}{why}");
    if format.contains("%V") && !format.contains("%G") {
        return Err(refuse(": the ISO week %V is of no use without the ISO year %G"));
    }
    let plain = if format.contains("%z") { plain_offset(key) } else { key.to_owned() };
    let mut parts = BrokenDownTime::parse(format, &plain).map_err(|_| refuse(""))?;
    // What a format leaves out is as at the beginning of 1900.
    let filled = (|| {
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
    let civil = filled.map_err(|_| refuse(""))?;
    match parts.offset() {
        None => Ok(existing(civil, zone)),
        Some(offset) => {
            let at = offset.to_timestamp(civil).map_err(|_| refuse(""))?;
            Ok(zone.to_datetime(at))
        }
    }
}

/// `Z` and `+01:00` as `+0000` and `+0100`: Python reads all of them.
fn plain_offset(key: &str) -> String {
    if let Some(rest) = key.strip_suffix('Z') {
        return format!("{rest}+0000");
    }
    let colon = key.len().checked_sub(3).filter(|at| key.as_bytes().get(*at) == Some(&b':'));
    let sign = key.len().checked_sub(6).and_then(|at| key.as_bytes().get(at));
    match (colon, sign) {
        (Some(at), Some(b'+' | b'-')) => format!("{}{}", &key[..at], &key[at + 1..]),
        _ => key.to_owned(),
    }
}

/// A clock's time in a zone: what the spring leaves out is an hour later, of what the autumn has twice the second counts.
pub fn at(civil: DateTime, zone: &TimeZone) -> Result<Timestamp, String> {
    zone.to_ambiguous_zoned(civil).later().map(|zoned| zoned.timestamp()).map_err(|error| error.to_string())
}

fn existing(civil: DateTime, zone: &TimeZone) -> DateTime {
    at(civil, zone).map_or(civil, |at| zone.to_datetime(at))
}

pub fn write(civil: DateTime, format: &str, zone: &TimeZone) -> Result<String, String> {
    let refuse = |_| format!("{civil} cannot be written as {format:?}");
    let zoned = zone.to_ambiguous_zoned(civil).later().map_err(refuse)?;
    // Python writes all six digits.
    let format = format.replace("%f", "%6f");
    BrokenDownTime::from(&zoned).to_string(&format).map_err(refuse)
}

/// The fields of a key that a format wrote: by each directive's letter, or the name in braces. For formats that
/// `strptime` does not read, such as `%Y-%m-%d (W%V)` or `%Y-Q{quarter}`.
pub fn fields<'a>(key: &'a str, format: &str) -> Option<Vec<(String, &'a str)>> {
    let mut found = Vec::new();
    let (mut key, mut format) = (key, format);
    while let Some(first) = format.chars().next() {
        let directive = format.strip_prefix('%').and_then(|rest| rest.chars().next());
        let digits = match directive {
            Some('Y') => 4,
            Some('m' | 'd' | 'H' | 'M' | 'S' | 'V' | 'U' | 'W') => 2,
            _ => 0,
        };
        let name = match format.strip_prefix("{quarter}") {
            Some(rest) => {
                format = rest;
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
                found.push((name, value));
                key = &key[length..];
            }
            None => {
                key = key.strip_prefix(first)?;
                format = &format[first.len_utf8()..];
            }
        }
    }
    key.is_empty().then_some(found)
}

/// Why a text can be no key; Airflow's words.
pub fn check(key: &str) -> Result<(), String> {
    if key.trim().is_empty() {
        return Err("partition_key must not be empty or whitespace-only.".to_owned());
    }
    match key.chars().count() {
        length if length > LONGEST_KEY => {
            Err(format!("partition_key must be at most {LONGEST_KEY} characters; got {length}."))
        }
        _ if key.contains('\0') => Err("partition_key cannot hold the character NUL.".to_owned()),
        _ => Ok(()),
    }
}

//! Time zones of schedules.

use jiff::tz::{Offset, TimeZone};
use serde_json::Value;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("unknown time zone {0}")]
pub struct UnknownZone(String);

/// Parses a zone name such as `Europe/Berlin`, or seconds east of Greenwich; null is UTC.
pub fn zone(name: &Value) -> Result<TimeZone, UnknownZone> {
    match name {
        Value::Null => Ok(TimeZone::UTC),
        Value::String(name) => TimeZone::get(name).map_err(|_| UnknownZone(name.clone())),
        other => other
            .as_i64()
            .and_then(|seconds| Offset::from_seconds(i32::try_from(seconds).ok()?).ok())
            .map(Offset::to_time_zone)
            .ok_or_else(|| UnknownZone(other.to_string())),
    }
}

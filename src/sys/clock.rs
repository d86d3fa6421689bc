//! The wall clock, in one place so that it can be found.

/// Now, as RFC 3339 in UTC with whole seconds: `2026-01-31T08:15:00Z`.
pub fn now_rfc3339() -> String {
    let now = jiff::Timestamp::now();
    now.round(jiff::Unit::Second).unwrap_or(now).to_string()
}

/// The same with milliseconds: `2026-01-31T08:15:00.042Z`.
pub fn now_with_milliseconds() -> String {
    format!("{:.3}", jiff::Timestamp::now())
}

/// Seconds since the Unix epoch.
pub fn unix_seconds() -> i64 {
    jiff::Timestamp::now().as_second()
}

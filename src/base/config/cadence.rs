//! Schedule of an automatic job: a cron expression or an interval of time awake.

use croner::parser::{CronParser, Seconds};
use jiff::{SignedDuration, Timestamp, Zoned};
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cadence {
    Off,
    /// In the local time zone. If the machine slept or was off at a due time, the job runs once after it wakes.
    Cron(String),
    /// Time while the machine is awake and Leoflow runs, for laptops that are never awake at a fixed hour.
    Awake(Duration),
}

impl Cadence {
    /// Parses a schedule such as `off`, `24h`, `0 3 * * *` or `@daily`; `None` if it is invalid or never due.
    pub fn parse(text: &str) -> Option<Self> {
        match (text, duration(text)) {
            ("off", _) => Some(Self::Off),
            (_, Some(awake)) => (!awake.is_zero()).then_some(Self::Awake(awake)),
            // Rejects expressions that never match, such as the 30th of February.
            _ => cron(text)?.find_next_occurrence(&Zoned::now(), false).ok().map(|_| Self::Cron(text.to_owned())),
        }
    }

    /// Returns the next due time, given the last run at `done` and the time awake since; `None` for never.
    pub fn due(&self, done: &Zoned, awake: Duration, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Off => None,
            Self::Cron(text) => {
                let next = cron(text)?.find_next_occurrence(done, false).ok()?;
                Some(next.timestamp())
            }
            Self::Awake(interval) => {
                let remaining = SignedDuration::try_from(interval.saturating_sub(awake)).ok()?;
                now.checked_add(remaining).ok()
            }
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Cron(text) => f.write_str(text),
            Self::Awake(time) if time.as_secs() % 60 != 0 => write!(f, "after {} s awake", time.as_secs()),
            Self::Awake(time) => write!(f, "after {} min awake", time.as_secs() / 60),
        }
    }
}

/// Parses a cron expression; `None` if it is invalid.
fn cron(text: &str) -> Option<croner::Cron> {
    // Seconds are optional; day of month and day of week combine as in cron.
    CronParser::builder().seconds(Seconds::Optional).build().parse(text).ok()
}

/// Parses a duration such as `30s`, `90m`, `24h` or `2d`; `None` for other text.
pub fn duration(text: &str) -> Option<Duration> {
    let (number, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
    let seconds = match unit {
        "s" => 1,
        "m" => 60,
        "h" => 3600,
        "d" => 86_400,
        _ => return None,
    };
    Some(Duration::from_secs(number.parse::<u32>().ok()?.into()).saturating_mul(seconds))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HOUR: Duration = Duration::from_secs(3600);

    fn due(text: &str, done: &str, awake: Duration) -> Option<String> {
        let done: Zoned = done.parse().unwrap();
        let now = done.timestamp();
        Cadence::parse(text).unwrap().due(&done, awake, now).map(|due| due.to_string())
    }

    #[test]
    fn cron_uses_the_local_time_zone() {
        let done = "2026-03-28T12:00:00[Europe/Zurich]";
        assert_eq!(due("0 3 * * *", done, HOUR).as_deref(), Some("2026-03-29T01:00:00Z"), "the clock goes forward");
        assert_eq!(due("@daily", done, HOUR).as_deref(), Some("2026-03-28T23:00:00Z"));
        // A local time that the clock change skips runs at the next existing time, not a day later.
        assert_eq!(due("30 2 * * *", done, HOUR).as_deref(), Some("2026-03-29T01:00:00Z"));
        assert_eq!(due("off", done, HOUR), None);
    }

    #[test]
    fn time_asleep_does_not_count() {
        let done = "2026-01-01T00:00:00[UTC]";
        assert_eq!(due("24h", done, Duration::ZERO).as_deref(), Some("2026-01-02T00:00:00Z"));
        assert_eq!(due("24h", done, 23 * HOUR).as_deref(), Some("2026-01-01T01:00:00Z"));
        assert_eq!(due("24h", done, 30 * HOUR).as_deref(), Some("2026-01-01T00:00:00Z"));
    }

    #[test]
    fn rejects_invalid_schedules() {
        for wrong in
            ["", "daily", "0h", "1w", "* * *", "61 * * * *", "0 3 * * * * * *", "@sometimes", "5", "off ", "0 0 30 2 *"]
        {
            assert_eq!(Cadence::parse(wrong), None, "{wrong}");
        }
    }
}

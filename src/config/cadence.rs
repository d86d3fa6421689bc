//! How often something is done by itself: by a cron expression, or after so long a time awake.

use croner::parser::{CronParser, Seconds};
use jiff::{SignedDuration, Timestamp, Zoned};
use std::fmt;
use std::time::Duration;

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cadence {
    Off,
    /// In the time zone of this machine. What was missed while it slept or was off is done once, when it is awake again.
    Cron(String),
    /// Counted while this machine is awake and Leoflow runs, for a laptop that is never awake at a certain hour.
    Awake(Duration),
}

impl Cadence {
    /// `off`, `24h`, `0 3 * * *`, `@daily`.
    pub fn parse(text: &str) -> Option<Self> {
        match (text, duration(text)) {
            ("off", _) => Some(Self::Off),
            (_, Some(awake)) => (!awake.is_zero()).then_some(Self::Awake(awake)),
            // One that never comes, as the 30th of February, is none.
            _ => cron(text)?.find_next_occurrence(&Zoned::now(), false).ok().map(|_| Self::Cron(text.to_owned())),
        }
    }

    /// When it is due, if it was done last at `done`, and if this machine has been awake for `awake` since. `None` for never.
    pub fn due(&self, done: &Zoned, awake: Duration, now: Timestamp) -> Option<Timestamp> {
        match self {
            Self::Off => None,
            Self::Cron(text) => {
                let next = cron(text)?.find_next_occurrence(done, false).ok()?;
                Some(next.timestamp())
            }
            Self::Awake(wanted) => {
                let left = SignedDuration::try_from(wanted.saturating_sub(awake)).ok()?;
                now.checked_add(left).ok()
            }
        }
    }
}

impl fmt::Display for Cadence {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Off => f.write_str("off"),
            Self::Cron(text) => f.write_str(text),
            Self::Awake(time) => write!(f, "after {} min awake", time.as_secs() / 60),
        }
    }
}

fn cron(text: &str) -> Option<croner::Cron> {
    // With seconds where somebody wants them; a day of the month and of the week both count, as in cron.
    CronParser::builder().seconds(Seconds::Optional).build().parse(text).ok()
}

/// `30s`, `90m`, `24h`, `2d`.
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
        Cadence::parse(text).unwrap().due(&done, awake, now).map(|at| at.to_string())
    }

    #[test]
    fn an_expression_counts_in_the_zone_of_the_machine() {
        let done = "2026-03-28T12:00:00[Europe/Zurich]";
        assert_eq!(due("0 3 * * *", done, HOUR).as_deref(), Some("2026-03-29T01:00:00Z"), "the clock goes forward");
        assert_eq!(due("@daily", done, HOUR).as_deref(), Some("2026-03-28T23:00:00Z"));
        // An hour that is not there is not waited for until the next day.
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
    fn what_is_no_schedule_is_refused() {
        for wrong in
            ["", "daily", "0h", "1w", "* * *", "61 * * * *", "0 3 * * * * * *", "@sometimes", "5", "off ", "0 0 30 2 *"]
        {
            assert_eq!(Cadence::parse(wrong), None, "{wrong}");
        }
    }
}

//! Cron expressions as Airflow understands them: those of croniter, its library, with its rules about
//! time zones (`airflow.timetables._cron`).

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

/// An expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    cron: Cron,
    zone: TimeZone,
    /// Whether it runs in each hour: then the hour that comes twice in autumn counts twice.
    every_hour: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronProblem {
    #[error("Exactly 5, 6 or 7 columns has to be specified for iterator expression.")]
    Columns,
    #[error("[{0}] is not acceptable{1}")]
    Field(String, String),
    #[error("there is no time zone {0:?}")]
    Zone(String),
    /// Such as the 31st of February.
    #[error("failed to find next date")]
    Never,
}

struct Field {
    least: u32,
    most: u32,
    names: &'static [&'static str],
    first_name: u32,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
const FIELDS: [Field; 6] = [
    Field { least: 0, most: 59, names: &[], first_name: 0 },
    Field { least: 0, most: 23, names: &[], first_name: 0 },
    Field { least: 1, most: 31, names: &[], first_name: 0 },
    Field { least: 1, most: 12, names: MONTHS, first_name: 1 },
    Field { least: 0, most: 7, names: DAYS, first_name: 0 },
    Field { least: 0, most: 59, names: &[], first_name: 0 },
];
const DAY_OF_MONTH: usize = 2;
const DAY_OF_WEEK: usize = 4;

impl Schedule {
    pub fn new(expression: &str, zone: TimeZone) -> Result<Self, CronProblem> {
        let lower = expression.trim().to_lowercase();
        let columns: Vec<&str> = lower.split_whitespace().collect();
        if !(5..=7).contains(&columns.len()) {
            return Err(CronProblem::Columns);
        }
        let plain: Result<Vec<String>, CronProblem> = columns
            .iter()
            .take(6)
            .enumerate()
            .map(|(at, column)| {
                let parts: Result<Vec<String>, CronProblem> =
                    column.split(',').map(|part| FIELDS[at].plain(at, part, &lower)).collect();
                parts.map(|parts| parts.join(","))
            })
            .collect();
        let mut plain = plain?;
        // Airflow's seconds come last, those of the library first.
        let second = if plain.len() > 5 { plain.remove(5) } else { "0".to_owned() };
        let year = columns.get(6).map_or(String::new(), |year| format!(" {year}"));
        let text = format!("{second} {}{year}", plain.join(" "));
        let parser = CronParser::builder().seconds(Seconds::Required).year(Year::Optional).build();
        let cron = parser.parse(&text).map_err(|_| refusal(&lower, &columns))?;
        Ok(Self { cron, zone, every_hour: columns[1] == "*" })
    }

    /// The first tick after `at`.
    pub fn next(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(at);
        let next = self.cron.find_next_occurrence(&local, false).map_err(|_| CronProblem::Never)?;
        Ok(self.absolute(at, local, next))
    }

    /// The last tick before `at`.
    pub fn previous(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(at);
        let previous = self.cron.find_previous_occurrence(&local, false).map_err(|_| CronProblem::Never)?;
        Ok(self.absolute(at, local, previous))
    }

    /// `at` if it is a tick, or the first one after it.
    pub fn align_next(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let next = self.next(at)?;
        Ok(if self.previous(next)? == at { at } else { next })
    }

    /// `at` if it is a tick, or the last one before it.
    pub fn align_previous(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let previous = self.previous(at)?;
        Ok(if self.next(previous)? == at { at } else { previous })
    }

    fn absolute(&self, at: Timestamp, local: DateTime, found: DateTime) -> Timestamp {
        if self.every_hour {
            let distance: SignedDuration = found.duration_since(local);
            return at.checked_add(distance).unwrap_or(Timestamp::MAX);
        }
        // What the spring leaves out is an hour later; of what the autumn has twice, the second counts.
        self.zone.to_ambiguous_timestamp(found).later_or_after_gap()
    }
}

trait Ambiguous {
    fn later_or_after_gap(self) -> Timestamp;
}

impl Ambiguous for jiff::tz::AmbiguousTimestamp {
    fn later_or_after_gap(self) -> Timestamp {
        use jiff::tz::AmbiguousOffset;
        let found = match self.offset() {
            AmbiguousOffset::Gap { .. } => self.compatible(),
            _ => self.later(),
        };
        found.unwrap_or(Timestamp::MAX)
    }
}

/// Years that the library counts in. The other columns' numbers are looked at before it sees them.
const YEARS: std::ops::RangeInclusive<u32> = 1..=5000;

/// What the library refuses, in croniter's words.
fn refusal(expression: &str, columns: &[&str]) -> CronProblem {
    let years = columns.get(6).into_iter().flat_map(|column| column.split([',', '-', '/']));
    let is_outside = years.filter_map(|text| text.parse().ok()).any(|year: u32| !YEARS.contains(&year));
    let why = if is_outside { ", out of range".to_owned() } else { String::new() };
    CronProblem::Field(expression.to_owned(), why)
}

impl Field {
    /// A part of a column in words that the library understands as croniter does.
    fn plain(&self, at: usize, part: &str, whole: &str) -> Result<String, CronProblem> {
        let refuse = |why: &str| CronProblem::Field(whole.to_owned(), why.to_owned());
        let part = if part == "?" && [DAY_OF_MONTH, DAY_OF_WEEK].contains(&at) { "*" } else { part };
        if part == "*" {
            return Ok(part.to_owned());
        }
        if at == DAY_OF_MONTH && part == "l" {
            return Ok("L".to_owned());
        }
        if at == DAY_OF_MONTH
            && let Some(day) = part.strip_suffix('w')
        {
            return self.number(day, whole).map(|day| day.to_string());
        }
        if at == DAY_OF_WEEK
            && let Some(day) = part.strip_prefix('l').filter(|day| !day.is_empty())
        {
            return self.number(day, whole).map(|day| format!("{}#L", day % 7));
        }
        if at == DAY_OF_WEEK
            && let Some((day, nth)) = part.split_once('#')
        {
            return self.number(day, whole).map(|day| format!("{}#{nth}", day % 7));
        }
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        let step: u32 = match step {
            None => 1,
            Some(step) if step.parse() == Ok(0_u32) => {
                let field = whole.split_whitespace().position(|column| column.contains("/0")).unwrap_or(at);
                return Err(refuse(&format!(": step '0' in field {field} is not acceptable")));
            }
            Some(step) => step.parse().map_err(|_| refuse(""))?,
        };
        let (from, to) = match range.split_once('-') {
            Some((from, to)) => (self.number(from, whole)?, self.number(to, whole)?),
            None if range == "*" => (self.least, self.most.min(if at == DAY_OF_WEEK { 6 } else { self.most })),
            None => {
                let from = self.number(range, whole)?;
                (from, if part.contains('/') { self.most } else { from })
            }
        };
        Ok(self.values(at, from, to, step))
    }

    /// As a list: what goes over the end goes on from the beginning.
    fn values(&self, at: usize, from: u32, to: u32, step: u32) -> String {
        let most = if at == DAY_OF_WEEK { 6 } else { self.most };
        let (from, to) = if at == DAY_OF_WEEK && to == 7 && from > 0 { (from, 7) } else { (from, to) };
        let size = most - self.least + 1;
        let end = if to < from { to + size } else { to };
        let wrap = |value: u32| (value - self.least) % size + self.least;
        let values: Vec<String> = (from..=end).step_by(step as usize).map(|value| wrap(value).to_string()).collect();
        values.join(",")
    }

    fn number(&self, text: &str, whole: &str) -> Result<u32, CronProblem> {
        let refuse = |why: &str| CronProblem::Field(whole.to_owned(), why.to_owned());
        let named = self.names.iter().position(|name| text.starts_with(name) && text.len() == name.len());
        let value = match named {
            Some(at) => at as u32 + self.first_name,
            None => text.parse().map_err(|_| refuse(""))?,
        };
        if (self.least..=self.most).contains(&value) { Ok(value) } else { Err(refuse(", out of range")) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::new(expression, TimeZone::get(zone).unwrap()).unwrap()
    }

    fn at(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    /// As croniter 7.0.0 has them.
    #[test]
    fn expressions_mean_what_they_mean_in_airflow() {
        let monday = "2024-01-15T12:00:00Z";
        for (expression, next) in [
            ("0 0 * * *", "2024-01-16T00:00:00Z"),
            ("*/7 * * * *", "2024-01-15T12:07:00Z"),
            ("5/15 * * * *", "2024-01-15T12:05:00Z"),
            ("0 22-2 * * *", "2024-01-15T22:00:00Z"),
            ("0 9 * * fri-mon", "2024-01-19T09:00:00Z"),
            ("0 0 * * 7", "2024-01-21T00:00:00Z"),
            ("0 0 L * *", "2024-01-31T00:00:00Z"),
            ("0 0 1,L * ?", "2024-01-31T00:00:00Z"),
            ("0 0 * * 5#2", "2024-02-09T00:00:00Z"),
            ("0 0 * * L5", "2024-01-26T00:00:00Z"),
            ("0 0 17W * *", "2024-01-17T00:00:00Z"),
            // Either the day of the month or that of the week.
            ("0 0 13 * 5", "2024-01-19T00:00:00Z"),
            ("0 0 */2 * 2", "2024-01-16T00:00:00Z"),
            ("0 0 1 jan *", "2025-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
            ("0 12 * * * 30", "2024-01-15T12:00:30Z"),
        ] {
            assert_eq!(schedule(expression, "UTC").next(at(monday)).unwrap(), at(next), "{expression}");
        }
        let daily = schedule("0 0 * * *", "UTC");
        assert_eq!(daily.previous(at("2024-01-15T00:00:00Z")).unwrap(), at("2024-01-14T00:00:00Z"));
        assert_eq!(daily.align_next(at("2024-01-15T00:00:00Z")).unwrap(), at("2024-01-15T00:00:00Z"));
        assert_eq!(daily.align_previous(at(monday)).unwrap(), at("2024-01-15T00:00:00Z"));
    }

    #[test]
    fn what_is_no_expression_is_said_in_croniters_words() {
        let refusal = |text: &str| Schedule::new(text, TimeZone::UTC).unwrap_err().to_string();
        assert!(refusal("0 0 * *").starts_with("Exactly 5, 6 or 7 columns"));
        assert_eq!(refusal("60 * * * *"), "[60 * * * *] is not acceptable, out of range");
        assert_eq!(refusal("0 0 * FOO *"), "[0 0 * foo *] is not acceptable");
        assert_eq!(refusal("0 0 1 1 * 0 6000"), "[0 0 1 1 * 0 6000] is not acceptable, out of range");
        assert_eq!(refusal("0 0 1 1 * 0 soon"), "[0 0 1 1 * 0 soon] is not acceptable");
        assert!(refusal("*/0 * * * *").contains("step '0' in field 0"));
        assert!(refusal("H * * * *").contains("not acceptable"));
        assert_eq!(schedule("0 0 31 2 *", "UTC").next(at("2024-01-01T00:00:00Z")), Err(CronProblem::Never));
    }

    /// Airflow's own answers for Zurich.
    #[test]
    fn both_nights_in_which_the_clock_changes() {
        let at_half_past_two = schedule("30 2 * * *", "Europe/Zurich");
        assert_eq!(at_half_past_two.next(at("2023-03-25T12:00:00Z")).unwrap(), at("2023-03-26T01:30:00Z"));
        assert_eq!(at_half_past_two.next(at("2023-10-28T12:00:00Z")).unwrap(), at("2023-10-29T01:30:00Z"));
        let hourly = schedule("30 * * * *", "Europe/Zurich");
        let mut tick = at("2023-10-28T23:00:00Z");
        for wanted in ["2023-10-28T23:30:00Z", "2023-10-29T00:30:00Z", "2023-10-29T01:30:00Z", "2023-10-29T02:30:00Z"] {
            tick = hourly.next(tick).unwrap();
            assert_eq!(tick, at(wanted));
        }
        let every_other = schedule("0 */2 * * *", "Europe/Zurich");
        assert_eq!(every_other.next(at("2023-10-28T22:00:00Z")).unwrap(), at("2023-10-29T01:00:00Z"));
        assert_eq!(every_other.next(at("2023-10-29T01:00:00Z")).unwrap(), at("2023-10-29T03:00:00Z"));
    }
}

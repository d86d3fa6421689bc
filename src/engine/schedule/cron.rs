//! Cron expressions as Airflow understands them: those of croniter, its library, with its rules about
//! time zones (`airflow.timetables._cron`).

use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// An expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// A tick of any is a tick: some columns take two patterns of the library.
    crons: Vec<Cron>,
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
const MONTH: usize = 3;
const DAY_OF_WEEK: usize = 4;
const FEBRUARY: u32 = 2;
/// Of the days of the week: 0 is Sunday too.
const SUNDAY_AGAIN: u32 = 7;

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
        spell_all(&mut plain, &columns);
        // Airflow's seconds come last, those of the library first.
        let second = if plain.len() > 5 { plain.remove(5) } else { "0".to_owned() };
        let year = columns.get(6).map_or(String::new(), |year| format!(" {year}"));
        let every_hour = plain[1] == "*";
        let crons: Result<Vec<Cron>, CronProblem> = Days::of(&plain)
            .iter()
            .map(|days| {
                let text = format!(
                    "{second} {} {} {} {} {}{year}",
                    plain[0], plain[1], days.of_month, days.months, days.of_week
                );
                let parser = CronParser::builder()
                    .seconds(Seconds::Required)
                    .year(Year::Optional)
                    .dom_and_dow(days.need_both)
                    .build();
                parser.parse(&text).map_err(|_| refusal(&lower, &columns))
            })
            .collect();
        Ok(Self { crons: crons?, zone, every_hour })
    }

    /// The first tick after `at`.
    pub fn next(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(at);
        let all = self.crons.iter().filter_map(|cron| cron.find_next_occurrence(&local, false).ok());
        let next = all.min().ok_or(CronProblem::Never)?;
        Ok(self.absolute(at, local, next))
    }

    /// The last tick before `at`.
    pub fn previous(&self, at: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(at);
        let all = self.crons.iter().filter_map(|cron| cron.find_previous_occurrence(&local, false).ok());
        let previous = all.max().ok_or(CronProblem::Never)?;
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
const YEARS: RangeInclusive<u32> = 1..=5000;

/// What the library refuses, in croniter's words.
fn refusal(expression: &str, columns: &[&str]) -> CronProblem {
    let years = columns.get(6).into_iter().flat_map(|column| column.split([',', '-', '/']));
    let is_outside = years.filter_map(|text| text.parse().ok()).any(|year: u32| !YEARS.contains(&year));
    let why = if is_outside { ", out of range".to_owned() } else { String::new() };
    CronProblem::Field(expression.to_owned(), why)
}

/// The three columns that say which days, as the library takes them.
struct Days {
    of_month: String,
    months: String,
    of_week: String,
    /// Whether a day has to match both columns; otherwise either is enough, where neither is `*`.
    need_both: bool,
}

impl Days {
    /// What croniter makes of the columns where one changes what another means.
    fn of(columns: &[String]) -> Vec<Self> {
        let [of_month, months, of_week] = [DAY_OF_MONTH, MONTH, DAY_OF_WEEK].map(|at| columns[at].as_str());
        let is_counted = of_week.contains('#');
        let days = |of_month: &str, months: &str, of_week: &str, need_both| Self {
            of_month: of_month.to_owned(),
            months: months.to_owned(),
            of_week: of_week.to_owned(),
            need_both,
        };
        let Some(day) = of_month.strip_suffix('W') else {
            // Of `0 0 13 * 5#2` croniter keeps the second Friday alone.
            return vec![days(if is_counted { "*" } else { of_month }, months, of_week, false)];
        };
        // A nearest weekday counts whatever the day of the week is; the second Friday has to be that day.
        let of_week = if is_counted { of_week } else { "*" };
        match day {
            "31" => vec![days("LW", months, of_week, true)],
            // In a month without that day its last one counts; the library has no such month.
            "29" | "30" => {
                let (short, long): (Vec<u32>, Vec<u32>) =
                    numbers(months, 1..=12).into_iter().partition(|month| *month == FEBRUARY);
                [("LW", short), (of_month, long)]
                    .into_iter()
                    .filter(|(_, months)| !months.is_empty())
                    .map(|(of_month, months)| days(of_month, &list(&months), of_week, true))
                    .collect()
            }
            _ => vec![days(of_month, months, of_week, true)],
        }
    }
}

/// A column that names all there are is `*`, as in croniter: one of the days is only where the other has a `*` in it.
fn spell_all(plain: &mut [String], columns: &[&str]) {
    for (at, field) in FIELDS.iter().enumerate().take(plain.len()) {
        let named: BTreeSet<u32> = numbers(&plain[at], 0..=0).into_iter().collect();
        let is_all = named.len() as u32 == field.last() - field.least + 1;
        let other = match at {
            DAY_OF_MONTH => columns[DAY_OF_WEEK],
            DAY_OF_WEEK => columns[DAY_OF_MONTH],
            _ => "*",
        };
        if is_all && other.contains('*') {
            plain[at] = "*".to_owned();
        }
    }
}

/// The numbers of a column that is plain already.
fn numbers(column: &str, all: RangeInclusive<u32>) -> Vec<u32> {
    let some: Result<Vec<u32>, _> = column.split(',').map(str::parse).collect();
    some.unwrap_or_else(|_| all.collect())
}

fn list(numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    texts.join(",")
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
            && let Some(day) = part.strip_suffix('w').or_else(|| part.strip_prefix('w'))
        {
            return self.nearest_weekday(day, whole);
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
        let step: usize = match step {
            None => 1,
            Some(step) if step.parse() == Ok(0_usize) => {
                let field = whole.split_whitespace().position(|column| column.contains("/0")).unwrap_or(at);
                return Err(refuse(&format!(": step '0' in field {field} is not acceptable")));
            }
            Some(step) => step.parse().map_err(|_| refuse(""))?,
        };
        let values = match range.split_once('-') {
            Some((from, to)) => {
                let to = if at == DAY_OF_MONTH && to == "l" { self.most } else { self.number(to, whole)? };
                self.range(self.number(from, whole)?, to, step)
            }
            None if range == "*" => self.range(self.least, self.last(), step),
            None => {
                let from = self.alias(self.number(range, whole)?);
                let to = if part.contains('/') { self.last() } else { from };
                (from..=to).step_by(step).collect()
            }
        };
        Ok(list(&values))
    }

    /// `15W`: Monday to Friday, the nearest to that day in its month.
    fn nearest_weekday(&self, day: &str, whole: &str) -> Result<String, CronProblem> {
        let refuse = |why: String| CronProblem::Field(whole.to_owned(), why);
        let day: u32 = day.parse().map_err(|_| refuse(String::new()))?;
        if !(self.least..=self.most).contains(&day) {
            return Err(refuse(format!(", nearest weekday day value '{day}' out of range")));
        }
        if whole.split_whitespace().nth(DAY_OF_MONTH).is_some_and(|column| column.contains(',')) {
            let why = ". 'W' can only be used with a single day value, not in a list or range";
            return Err(refuse(why.to_owned()));
        }
        Ok(format!("{day}W"))
    }

    /// `from-to/step` as croniter reads it: a range of one value is the whole cycle, and one that goes over the end goes
    /// on from the beginning, where its first steps are left out.
    fn range(&self, from: u32, to: u32, step: usize) -> Vec<u32> {
        let (from, to) = match (self.alias(from), self.alias(to)) {
            (from, to) if from == to => (self.least, self.last()),
            bounds => bounds,
        };
        if from < to {
            return (from..=to).step_by(step).collect();
        }
        let mut values: Vec<u32> = (from..=self.last()).step_by(step).collect();
        let left = (self.last() - values.last().copied().unwrap_or(from)) as usize;
        let skipped = if step > left + 1 { step - left } else { 0 };
        values.extend((self.least..=to).skip(skipped).step_by(step));
        values
    }

    /// Sunday has two numbers.
    fn alias(&self, value: u32) -> u32 {
        if self.most == SUNDAY_AGAIN { value % SUNDAY_AGAIN } else { value }
    }

    fn last(&self) -> u32 {
        if self.most == SUNDAY_AGAIN { self.most - 1 } else { self.most }
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

    /// As croniter 7.0.0 has them, through 2025: its 1st is a Saturday in February, March and November, a Sunday in June.
    #[test]
    fn nearest_weekdays_are_never_on_a_weekend() {
        for (expression, days) in [
            ("0 0 15W * *", "02-14 03-14 04-15 05-15 06-16 07-15 08-15 09-15"),
            ("0 0 w15 * ?", "02-14 03-14 04-15 05-15 06-16 07-15 08-15 09-15"),
            ("0 0 1W * *", "02-03 03-03 04-01 05-01 06-02 07-01 08-01 09-01"),
            ("0 0 29W * *", "02-28 03-28 04-29 05-29 06-30 07-29 08-29 09-29"),
            ("0 0 30W * *", "02-28 03-31 04-30 05-30 06-30 07-30 08-29 09-30"),
            ("0 0 31W * *", "02-28 03-31 04-30 05-30 06-30 07-31 08-29 09-30"),
            ("0 0 30W 2,6 *", "02-28 06-30"),
            ("0 0 30W 2 *", "02-28"),
            ("0 0 15W * 5", "02-14 03-14 04-15 05-15 06-16 07-15 08-15 09-15"),
            ("0 0 15W * 5#2", "02-14 03-14 11-14"),
            ("0 0 */7 * 0-6", "02-01 02-08 02-15 02-22 03-01"),
            ("0 0 13 * 5#2", "02-14 03-14 04-11 05-09 06-13 07-11 08-08 09-12"),
        ] {
            let schedule = schedule(expression, "UTC");
            let (mut later, mut earlier) = (at("2025-01-31T00:00:00Z"), None);
            for day in days.split(' ') {
                let before = later;
                later = schedule.next(later).unwrap();
                assert_eq!(later, at(&format!("2025-{day}T00:00:00Z")), "{expression} after {before}");
                assert!(earlier.is_none_or(|earlier| schedule.previous(later).unwrap() == earlier), "{expression}");
                earlier = Some(later);
            }
        }
        let refusal = |text: &str| Schedule::new(text, TimeZone::UTC).unwrap_err().to_string();
        assert!(refusal("0 0 1,15W * *").contains("'W' can only be used with a single day value"));
        assert_eq!(
            refusal("0 0 32W * *"),
            "[0 0 32w * *] is not acceptable, nearest weekday day value '32' out of range"
        );
        for text in ["0 0 LW * *", "0 0 W * *", "0 0 15W-20 * *", "0 0 15W/2 * *"] {
            assert_eq!(refusal(text), format!("[{}] is not acceptable", text.to_lowercase()));
        }
    }

    /// As croniter 7.0.0 has them.
    #[test]
    fn ranges_with_steps_are_those_of_croniter() {
        for (at, part, values) in [
            (DAY_OF_WEEK, "1/2", "1,3,5"),
            (DAY_OF_WEEK, "fri-7", "5,6,0"),
            (DAY_OF_WEEK, "*/2", "0,2,4,6"),
            (DAY_OF_WEEK, "sun-sun", "0,1,2,3,4,5,6"),
            (1, "22-6/3", "22,2,5"),
            (1, "22-6/2", "22,0,2,4,6"),
            (1, "23/5", "23"),
            (DAY_OF_MONTH, "25-l", "25,26,27,28,29,30,31"),
            (3, "jan-jan/4", "1,5,9"),
        ] {
            assert_eq!(FIELDS[at].plain(at, part, part).unwrap(), values, "{part}");
        }
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

    /// As croniter 7.0.0 has them in 2024: the weekday nearest to the day, without leaving the month.
    #[test]
    fn the_nearest_weekday_is_found_on_weekends_too() {
        let begin = at("2024-01-31T12:00:00Z");
        for (expression, days) in [
            ("0 0 15W * *", ["02-15", "03-15", "04-15", "05-15", "06-14", "07-15", "08-15", "09-16"]),
            ("0 0 1W * *", ["02-01", "03-01", "04-01", "05-01", "06-03", "07-01", "08-01", "09-02"]),
            ("0 0 31W * *", ["02-29", "03-29", "04-30", "05-31", "06-28", "07-31", "08-30", "09-30"]),
            ("0 0 30W * *", ["02-29", "03-29", "04-30", "05-30", "06-28", "07-30", "08-30", "09-30"]),
            ("0 0 15W * 1", ["02-15", "03-15", "04-15", "05-15", "06-14", "07-15", "08-15", "09-16"]),
        ] {
            let schedule = schedule(expression, "UTC");
            let mut tick = begin;
            for day in days {
                let (before, expected) = (tick, at(&format!("2024-{day}T00:00:00Z")));
                tick = schedule.next(tick).unwrap();
                assert_eq!(tick, expected, "{expression}");
                assert!(schedule.previous(tick).unwrap() <= before, "{expression}");
            }
        }
        for expression in ["0 0 1,15W * *", "0 0 0W * *", "0 0 32W * *", "0 0 10-15W * *", "0 0 LW * *"] {
            assert!(Schedule::new(expression, TimeZone::UTC).is_err(), "{expression}");
        }
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
        for hourly in ["30 */1 * * *", "30 0-23 * * *"] {
            let tick = schedule(hourly, "Europe/Zurich").next(at("2023-10-29T00:30:00Z")).unwrap();
            assert_eq!(tick, at("2023-10-29T01:30:00Z"), "{hourly}");
        }
        let every_other = schedule("0 */2 * * *", "Europe/Zurich");
        assert_eq!(every_other.next(at("2023-10-28T22:00:00Z")).unwrap(), at("2023-10-29T01:00:00Z"));
        assert_eq!(every_other.next(at("2023-10-29T01:00:00Z")).unwrap(), at("2023-10-29T03:00:00Z"));
    }
}

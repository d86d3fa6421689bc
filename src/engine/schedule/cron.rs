//! Cron expressions as Airflow interprets them: the syntax of its library croniter, with Airflow's rules for time
//! zones (`airflow.timetables._cron`).

pub use super::cron_field::CronProblem;
use super::cron_field::{DAY_OF_MONTH, DAY_OF_WEEK, FEBRUARY, FIELDS, MONTH, join_numbers, parse_numbers};
use super::cron_random;
use croner::Cron;
use croner::parser::{CronParser, Seconds, Year};
use jiff::civil::DateTime;
use jiff::tz::{AmbiguousOffset, TimeZone};
use jiff::{SignedDuration, Timestamp};
use leoflow_base::config::leoflow_yaml::nearest;
use std::collections::BTreeSet;
use std::ops::RangeInclusive;

/// A cron expression in a time zone.
#[derive(Debug, Clone)]
pub struct Schedule {
    /// Patterns of the library croner. The ticks of the schedule are those of all patterns; some expressions need two.
    crons: Vec<Cron>,
    zone: TimeZone,
    /// True if the hour column allows every hour. If an hour is repeated in autumn, both occurrences then have ticks.
    every_hour: bool,
}

impl Schedule {
    /// Parses an expression of 5 columns, or of 6 or 7 with seconds and years.
    pub fn new(expression: &str, zone: TimeZone) -> Result<Self, CronProblem> {
        let lower = expression.trim().to_lowercase();
        let columns: Vec<&str> = lower.split_whitespace().collect();
        if columns.len() == 1 && lower.starts_with('@') {
            let similar = nearest(&lower, &PRESETS).map(|preset| format!(" (did you mean {preset:?}?)"));
            return Err(CronProblem::Preset(lower.clone(), similar.unwrap_or_default()));
        }
        if !(5..=7).contains(&columns.len()) {
            return Err(CronProblem::Columns(lower.clone(), columns.len()));
        }
        let drawn: Result<Vec<String>, CronProblem> =
            columns.iter().enumerate().map(|(index, column)| cron_random::draw(index, column)).collect();
        let drawn = drawn?;
        let columns: Vec<&str> = drawn.iter().map(String::as_str).collect();
        let normalized: Result<Vec<String>, CronProblem> = columns
            .iter()
            .take(6)
            .enumerate()
            .map(|(index, column)| {
                let parts: Result<Vec<String>, CronProblem> =
                    column.split(',').map(|part| FIELDS[index].normalize(index, part, &lower)).collect();
                parts.map(|parts| parts.join(","))
            })
            .collect();
        let mut normalized = normalized?;
        replace_full_columns(&mut normalized, &columns);
        // Airflow's seconds column is the sixth, the library's the first.
        let second = if normalized.len() > 5 { normalized.remove(5) } else { "0".to_owned() };
        let year = columns.get(6).map_or(String::new(), |year| format!(" {year}"));
        let every_hour = normalized[1] == "*";
        let crons: Result<Vec<Cron>, CronProblem> = Days::interpret(&normalized)
            .iter()
            .map(|days| {
                let text = format!(
                    "{second} {} {} {} {} {}{year}",
                    normalized[0], normalized[1], days.of_month, days.months, days.of_week
                );
                let parser = CronParser::builder()
                    .seconds(Seconds::Required)
                    .year(Year::Optional)
                    .dom_and_dow(days.need_both)
                    .build();
                parser.parse(&text).map_err(|_| rejection(&lower, &columns))
            })
            .collect();
        Ok(Self { crons: crons?, zone, every_hour })
    }

    /// The first tick after `time`.
    pub fn next(&self, time: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(time);
        let ticks = self.crons.iter().filter_map(|cron| cron.find_next_occurrence(&local, false).ok());
        let next = ticks.min().ok_or(CronProblem::Never)?;
        Ok(self.tick_timestamp(time, local, next))
    }

    /// The last tick before `time`.
    pub fn previous(&self, time: Timestamp) -> Result<Timestamp, CronProblem> {
        let local = self.zone.to_datetime(time);
        let mut before = local;
        loop {
            let ticks = self.crons.iter().filter_map(|cron| cron.find_previous_occurrence(&before, false).ok());
            let previous = ticks.max().ok_or(CronProblem::Never)?;
            let tick = self.tick_timestamp(time, local, previous);
            if tick < time {
                return Ok(tick);
            }
            // A local time that is skipped or repeated at a change of the clock stands for this time or a later one.
            before = previous;
        }
    }

    /// Returns `time` if it is a tick, otherwise the next tick.
    pub(crate) fn align_next(&self, time: Timestamp) -> Result<Timestamp, CronProblem> {
        let next = self.next(time)?;
        Ok(if self.previous(next)? == time { time } else { next })
    }

    /// Returns `time` if it is a tick, otherwise the previous tick.
    pub(crate) fn align_previous(&self, time: Timestamp) -> Result<Timestamp, CronProblem> {
        let previous = self.previous(time)?;
        Ok(if self.next(previous)? == time { time } else { previous })
    }

    /// Converts a local tick to a timestamp. `local` is the local time of `time`, from which the tick was computed.
    fn tick_timestamp(&self, time: Timestamp, local: DateTime, tick: DateTime) -> Timestamp {
        if self.every_hour {
            let distance: SignedDuration = tick.duration_since(local);
            return time.checked_add(distance).unwrap_or(Timestamp::MAX);
        }
        // If the local time is skipped in spring, the tick is one hour later; if it is repeated in autumn, the tick is
        // the second occurrence.
        let ambiguous = self.zone.to_ambiguous_timestamp(tick);
        let timestamp = match ambiguous.offset() {
            AmbiguousOffset::Gap { .. } => ambiguous.compatible(),
            _ => ambiguous.later(),
        };
        timestamp.unwrap_or(Timestamp::MAX)
    }
}

/// Airflow's presets, for suggestions. The Python package has already replaced valid presets.
const PRESETS: [&str; 10] = [
    "@once",
    "@continuous",
    "@hourly",
    "@daily",
    "@weekly",
    "@monthly",
    "@quarterly",
    "@yearly",
    "@annually",
    "@midnight",
];

/// Range of years that the library supports. The other columns are validated before they reach the library, except the
/// ordinal of a weekday such as `5#2`.
const YEARS: RangeInclusive<u32> = 1..=5000;

/// The error for an expression that the library rejects, with croniter's text.
fn rejection(expression: &str, columns: &[&str]) -> CronProblem {
    let years = columns.get(6).into_iter().flat_map(|column| column.split([',', '-', '/']));
    let is_outside = years.filter_map(|text| text.parse().ok()).any(|year: u32| !YEARS.contains(&year));
    let reason = if is_outside { ", out of range".to_owned() } else { String::new() };
    CronProblem::Field(expression.to_owned(), reason)
}

/// The three columns that select days, in the library's syntax.
struct Days {
    of_month: String,
    months: String,
    of_week: String,
    /// True if a day must match both columns; otherwise a match of one is enough, unless a column is `*`.
    need_both: bool,
}

impl Days {
    /// Applies croniter's rules for day columns that change each other's meaning. Returns one or two patterns.
    fn interpret(columns: &[String]) -> Vec<Self> {
        let [of_month, months, of_week] = [DAY_OF_MONTH, MONTH, DAY_OF_WEEK].map(|index| columns[index].as_str());
        let has_nth_weekday = of_week.contains('#');
        let days = |of_month: &str, months: &str, of_week: &str, need_both| Self {
            of_month: of_month.to_owned(),
            months: months.to_owned(),
            of_week: of_week.to_owned(),
            need_both,
        };
        let Some(day) = of_month.strip_suffix('W') else {
            // For `0 0 13 * 5#2`, croniter uses only the second Friday.
            return vec![days(if has_nth_weekday { "*" } else { of_month }, months, of_week, false)];
        };
        // With a nearest weekday such as `15W`, the day of the week is ignored unless it has an ordinal, such as `5#2`
        // for the second Friday.
        let of_week = if has_nth_weekday { of_week } else { "*" };
        match day {
            "31" => vec![days("LW", months, of_week, true)],
            // In a month without that day, croniter uses the last weekday; the library would skip the month.
            "29" | "30" => {
                let (short, long): (Vec<u32>, Vec<u32>) =
                    parse_numbers(months, 1..=12).into_iter().partition(|month| *month == FEBRUARY);
                [("LW", short), (of_month, long)]
                    .into_iter()
                    .filter(|(_, months)| !months.is_empty())
                    .map(|(of_month, months)| days(of_month, &join_numbers(&months), of_week, true))
                    .collect()
            }
            _ => vec![days(of_month, months, of_week, true)],
        }
    }
}

/// If a column lists all its values, writes `*` instead, as croniter does; for a day column only if the other one
/// contains a `*`.
fn replace_full_columns(normalized: &mut [String], columns: &[&str]) {
    for (index, field) in FIELDS.iter().enumerate().take(normalized.len()) {
        let values: BTreeSet<u32> = parse_numbers(&normalized[index], 0..=0).into_iter().collect();
        let is_all = values.len() as u32 == field.max_value() - field.min + 1;
        let other = match index {
            DAY_OF_MONTH => columns[DAY_OF_WEEK],
            DAY_OF_WEEK => columns[DAY_OF_MONTH],
            _ => "*",
        };
        if is_all && other.contains('*') {
            normalized[index] = "*".to_owned();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn schedule(expression: &str, zone: &str) -> Schedule {
        Schedule::new(expression, TimeZone::get(zone).unwrap()).unwrap()
    }

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    #[test]
    fn a_random_expression_has_ticks_in_its_range() {
        let next = schedule("R R(3-5) * * *", "UTC").next(time("2024-01-15T12:00:00Z")).unwrap();
        let range = time("2024-01-16T03:00:00Z")..time("2024-01-16T06:00:00Z");
        assert!(range.contains(&next), "{next}");
        let error = Schedule::new("H * * * *", TimeZone::UTC).unwrap_err();
        assert_eq!(error.to_string(), "Hashed definitions must include hash_id");
    }

    /// Expected values are those of croniter 7.0.0.
    #[test]
    fn ticks_are_those_of_croniter() {
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
            // Either the day of the month or the day of the week.
            ("0 0 13 * 5", "2024-01-19T00:00:00Z"),
            ("0 0 */2 * 2", "2024-01-16T00:00:00Z"),
            ("0 0 1 jan *", "2025-01-01T00:00:00Z"),
            ("0 0 29 2 *", "2024-02-29T00:00:00Z"),
            ("0 12 * * * 30", "2024-01-15T12:00:30Z"),
        ] {
            assert_eq!(schedule(expression, "UTC").next(time(monday)).unwrap(), time(next), "{expression}");
        }
        let daily = schedule("0 0 * * *", "UTC");
        assert_eq!(daily.previous(time("2024-01-15T00:00:00Z")).unwrap(), time("2024-01-14T00:00:00Z"));
        assert_eq!(daily.align_next(time("2024-01-15T00:00:00Z")).unwrap(), time("2024-01-15T00:00:00Z"));
        assert_eq!(daily.align_previous(time(monday)).unwrap(), time("2024-01-15T00:00:00Z"));
    }

    /// Expected values are those of croniter 7.0.0 for 2025. In that year February, March and November begin on a
    /// Saturday, June on a Sunday.
    #[test]
    fn day_columns_combine_as_in_croniter() {
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
            let (mut later, mut earlier) = (time("2025-01-31T00:00:00Z"), None);
            for day in days.split(' ') {
                let before = later;
                later = schedule.next(later).unwrap();
                assert_eq!(later, time(&format!("2025-{day}T00:00:00Z")), "{expression} after {before}");
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

    #[test]
    fn rejects_invalid_expressions_with_croniters_text() {
        let refusal = |text: &str| Schedule::new(text, TimeZone::UTC).unwrap_err().to_string();
        let columns = "Exactly 5, 6 or 7 columns has to be specified for iterator expression";
        assert_eq!(refusal("0 0 * *"), format!("{columns}; \"0 0 * *\" has 4"));
        assert_eq!(refusal("@daly"), "\"@daly\" is not a preset such as @daily (did you mean \"@daily\"?)");
        assert_eq!(refusal("@fortnightly-ish"), "\"@fortnightly-ish\" is not a preset such as @daily");
        assert_eq!(refusal("60 * * * *"), "[60 * * * *] is not acceptable, out of range");
        assert_eq!(refusal("0 0 * FOO *"), "[0 0 * foo *] is not acceptable");
        assert_eq!(refusal("0 0 1 1 * 0 6000"), "[0 0 1 1 * 0 6000] is not acceptable, out of range");
        assert_eq!(refusal("0 0 1 1 * 0 soon"), "[0 0 1 1 * 0 soon] is not acceptable");
        assert!(refusal("*/0 * * * *").contains("step '0' in field 0"));
        assert_eq!(schedule("0 0 31 2 *", "UTC").next(time("2024-01-01T00:00:00Z")), Err(CronProblem::Never));
    }

    /// Expected values are those of croniter 7.0.0 for 2024: the weekday nearest to the day, within the month.
    #[test]
    fn a_day_on_a_weekend_moves_to_the_nearest_weekday() {
        let begin = time("2024-01-31T12:00:00Z");
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
                let (before, expected) = (tick, time(&format!("2024-{day}T00:00:00Z")));
                tick = schedule.next(tick).unwrap();
                assert_eq!(tick, expected, "{expression}");
                assert!(schedule.previous(tick).unwrap() <= before, "{expression}");
            }
        }
        for expression in ["0 0 1,15W * *", "0 0 0W * *", "0 0 32W * *", "0 0 10-15W * *", "0 0 LW * *"] {
            assert!(Schedule::new(expression, TimeZone::UTC).is_err(), "{expression}");
        }
    }

    /// Expected values are those of Airflow for Zurich.
    #[test]
    fn ticks_around_both_clock_changes() {
        let at_half_past_two = schedule("30 2 * * *", "Europe/Zurich");
        assert_eq!(at_half_past_two.next(time("2023-03-25T12:00:00Z")).unwrap(), time("2023-03-26T01:30:00Z"));
        assert_eq!(at_half_past_two.next(time("2023-10-28T12:00:00Z")).unwrap(), time("2023-10-29T01:30:00Z"));
        let hourly = schedule("30 * * * *", "Europe/Zurich");
        let mut tick = time("2023-10-28T23:00:00Z");
        for expected in ["2023-10-28T23:30:00Z", "2023-10-29T00:30:00Z", "2023-10-29T01:30:00Z", "2023-10-29T02:30:00Z"]
        {
            tick = hourly.next(tick).unwrap();
            assert_eq!(tick, time(expected));
        }
        for hourly in ["30 */1 * * *", "30 0-23 * * *"] {
            let tick = schedule(hourly, "Europe/Zurich").next(time("2023-10-29T00:30:00Z")).unwrap();
            assert_eq!(tick, time("2023-10-29T01:30:00Z"), "{hourly}");
        }
        let every_other = schedule("0 */2 * * *", "Europe/Zurich");
        assert_eq!(every_other.next(time("2023-10-28T22:00:00Z")).unwrap(), time("2023-10-29T01:00:00Z"));
        assert_eq!(every_other.next(time("2023-10-29T01:00:00Z")).unwrap(), time("2023-10-29T03:00:00Z"));
    }
}

//! Describes cron expressions in English, such as "At 00:00", with the words of the package `cron-descriptor`, which
//! Airflow uses: <https://github.com/Salamek/cron-descriptor>. `tests/airflow/cron_descriptions.json` records its texts.

use std::fmt::Write;

/// Describes an expression of five fields; returns an empty text, as Airflow does, for one that the package does not
/// describe. If days of the month and of the week are both restricted, a match of either is enough.
pub fn describe(expression: &str) -> String {
    let fields: Vec<&str> = expression.split_whitespace().collect();
    let [minute, hour, day, month, weekday] = fields[..] else { return String::new() };
    let describe = |day, weekday| Fields::new(minute, hour, day, month, weekday).describe();
    let text = if day != "*" && weekday != "*" {
        describe(day, "*").zip(describe("*", weekday)).map(|(days, weekdays)| format!("{days} (or) {weekdays}"))
    } else {
        describe(day, weekday)
    };
    text.unwrap_or_default()
}

const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];
const WEEKDAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
const ORDINALS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];

#[derive(Clone, Copy, PartialEq, Eq)]
enum Column {
    Minute,
    Hour,
    Day,
    Month,
    Weekday,
}

/// The fields in the form that the texts are made from.
struct Fields {
    minute: String,
    hour: String,
    day: String,
    month: String,
    weekday: String,
}

impl Fields {
    fn new(minute: &str, hour: &str, day: &str, month: &str, weekday: &str) -> Self {
        let mut minute = from_start(minute, "0/");
        let mut hour = from_start(hour, "0/");
        let mut day = from_start(&day.replace('?', "*"), "1/");
        let mut month = numbers_of(&from_start(month, "1/"), &MONTHS, 1);
        let mut weekday = numbers_of(&sunday_as_zero(&from_start(&weekday.replace('?', "*"), "1/")), &WEEKDAYS, 0);
        // With steps of minutes, an hour is the range of its minutes.
        if !hour.contains(['*', '-', ',', '/']) && minute.contains(['*', '/']) {
            hour = format!("{hour}-{hour}");
        }
        for field in [&mut minute, &mut hour, &mut day, &mut month, &mut weekday] {
            if field == "*/1" {
                "*".clone_into(field);
            }
        }
        Self { minute, hour, day, month: to_end(month, "12"), weekday: to_end(weekday, "6") }
    }

    /// Returns `None` for fields that the package does not describe.
    fn describe(&self) -> Option<String> {
        let mut text = self.time_of_day()?;
        text += &self.day()?;
        text += &self.weekday()?;
        text += &self.segment(Column::Month, &self.month, "")?;
        for obvious in [", every minute", ", every hour", ", every day"] {
            text = text.replace(obvious, "");
        }
        let text = text.strip_suffix(", ").or(text.strip_suffix(',')).unwrap_or(&text);
        let first = text.chars().next()?;
        Some(first.to_uppercase().chain(text.chars().skip(1)).collect())
    }

    fn time_of_day(&self) -> Option<String> {
        let (minute, hour) = (&self.minute, &self.hour);
        let is_plain = |field: &str| !field.contains(['/', '-', ',', '*']);
        if is_plain(minute) && is_plain(hour) {
            return Some(format!("At {}", time(hour, minute)?));
        }
        if minute.contains('-') && !minute.contains(',') && is_plain(hour) {
            let mut ends = minute.split('-');
            let (first, last) = (time(hour, ends.next()?)?, time(hour, ends.next()?)?);
            return Some(format!("Every minute between {first} and {last}"));
        }
        if hour.contains(',') && !hour.contains('-') && is_plain(minute) {
            let times: Option<Vec<String>> = hour.split(',').map(|hour| time(hour, minute)).collect();
            let times = times?;
            let (last, before) = times.split_last()?;
            return Some(format!("At {} and {last}", before.join(", ")));
        }
        let minutes = self.segment(Column::Minute, minute, "every minute")?;
        let hours = self.segment(Column::Hour, hour, "every hour")?;
        let between = if minutes.is_empty() || hours.is_empty() { "" } else { ", " };
        Some(format!("{minutes}{between}{hours}"))
    }

    fn day(&self) -> Option<String> {
        let day = self.day.as_str();
        let nearest = nearest_weekday(day);
        Some(match day {
            "L" => ", on the last day of the month".to_owned(),
            "LW" | "WL" => ", on the last weekday of the month".to_owned(),
            _ if nearest == Some(1) => ", on the first weekday of the month".to_owned(),
            _ if let Some(number) = nearest => format!(", on the weekday nearest day {number} of the month"),
            "*" if self.weekday != "*" => String::new(),
            _ if let Some(offset) = days_before_last(day) => {
                format!(", {offset} days before the last day of the month")
            }
            _ => self.segment(Column::Day, day, ", every day")?,
        })
    }

    fn weekday(&self) -> Option<String> {
        if self.weekday == "*" {
            return Some(String::new());
        }
        match self.weekday.split_once('/') {
            Some((days, step)) if is_number(step) => match self.weekly(days, step)? {
                Some(days) => Some(format!(", every {step} weeks{days}")),
                None => self.segment(Column::Weekday, &self.weekday, ", every day"),
            },
            _ => self.segment(Column::Weekday, &self.weekday, ", every day"),
        }
    }

    /// The days of a step that is counted in weeks: that of a list, or one as long as its range. `Some(None)` for other
    /// steps.
    #[expect(clippy::option_option, reason = "the outer one is an error")]
    fn weekly(&self, days: &str, step: &str) -> Option<Option<String>> {
        if days.contains(',') {
            return Some(Some(self.list(Column::Weekday, days, ", only on {0}")?));
        }
        if !days.contains('-') {
            return Some(None);
        }
        let (first, last) = days.split_once('-')?;
        let (first_number, last_number) = (first.parse::<u32>().ok()?, last.parse::<u32>().ok()?);
        let length = (if last_number == 0 { 7 } else { last_number } + 1).checked_sub(first_number);
        if length.is_some_and(|length| step.parse::<u32>().is_ok_and(|step| step < length)) {
            return Some(None);
        }
        // A single day with a step has become a range to Saturday.
        Some(Some(if last_number == 6 {
            format!(", only on {}", weekday_name(first)?)
        } else {
            between(Column::Weekday, days, ", {0} through {1}")?
        }))
    }

    fn segment(&self, column: Column, field: &str, every: &str) -> Option<String> {
        if field == "*" {
            return Some(every.to_owned());
        }
        if !field.contains(['/', '-', ',']) {
            return Some(fill(&self.single(column, field), &[&item(column, field)?]));
        }
        if field.contains(',') {
            return self.list(column, field, &self.single(column, field));
        }
        let Some((start, step)) = field.split_once('/') else {
            return between(column, field, range_text(column));
        };
        let step = step.split('/').next().unwrap_or_default();
        let mut text = interval_text(column, step);
        if start.contains('-') {
            let range = between(column, start, range_text(column))?;
            text += if range.starts_with(", ") { "" } else { ", " };
            text += &range;
        } else if !start.contains('*') {
            let start = fill(&self.single(column, start), &[&item(column, start)?]).replace(", ", "");
            let _ = write!(text, ", starting {start}");
        }
        Some(text)
    }

    fn list(&self, column: Column, field: &str, template: &str) -> Option<String> {
        let parts: Vec<&str> = field.split(',').collect();
        let last = parts.len() - 1;
        let mut text = String::new();
        for (position, part) in parts.iter().enumerate() {
            if position > 0 && last > 1 {
                text += if position < last { ", " } else { "," };
            }
            if position > 0 && (position == last || last == 1) {
                text += " and ";
            }
            text += &if part.contains('/') {
                step_in_list(column, part)?
            } else if part.contains('-') {
                between(column, part, ", {0} through {1}")?.replace(", ", "")
            } else {
                item(column, part)?
            };
        }
        Some(fill(template, &[&text]))
    }

    /// The text around one value or a list.
    fn single(&self, column: Column, field: &str) -> String {
        match column {
            Column::Minute => {
                let is_range_of_hours = self.hour.contains('-') && !self.hour.contains(['/', ',']);
                if field == "0" && !is_range_of_hours { "" } else { "at {0} minutes past the hour" }.to_owned()
            }
            Column::Hour => "at {0}".to_owned(),
            Column::Day => ", on day {0} of the month".to_owned(),
            Column::Month => ", only in {0}".to_owned(),
            Column::Weekday => match field.split_once('#') {
                Some((_, number)) => {
                    let number = number.parse::<usize>().ok().and_then(|number| ORDINALS.get(number.wrapping_sub(1)));
                    format!(", on the {} {{0}} of the month", number.unwrap_or(&""))
                }
                None if field.contains('L') => ", on the last {0} of the month".to_owned(),
                None if self.day != "*" => ", or on {0}".to_owned(),
                None => ", only on {0}".to_owned(),
            },
        }
    }
}

/// The text of one value.
fn item(column: Column, value: &str) -> Option<String> {
    match column {
        Column::Minute | Column::Day => Some(value.to_owned()),
        Column::Hour => time(value, "0"),
        Column::Month => Some((*MONTHS.get(value.parse::<usize>().ok()?.checked_sub(1)?)?).to_owned()),
        Column::Weekday => weekday_name(value),
    }
}

fn weekday_name(value: &str) -> Option<String> {
    let number = match value.split_once('#') {
        Some((number, _)) => number.to_owned(),
        None => value.replace('L', ""),
    };
    Some((*WEEKDAYS.get(number.parse::<usize>().ok()?)?).to_owned())
}

fn interval_text(column: Column, step: &str) -> String {
    match column {
        Column::Minute => format!("every {step} minutes"),
        Column::Hour => format!("every {step} hours"),
        Column::Day if step == "1" => ", every day".to_owned(),
        Column::Day => format!(", every {step} days"),
        Column::Month => format!(", every {step} months"),
        Column::Weekday => format!(", every {step} days of the week"),
    }
}

fn range_text(column: Column) -> &'static str {
    match column {
        Column::Minute => "minutes {0} through {1} past the hour",
        Column::Hour => "between {0} and {1}",
        Column::Day => ", between day {0} and {1} of the month",
        Column::Month | Column::Weekday => ", {0} through {1}",
    }
}

fn between(column: Column, range: &str, template: &str) -> Option<String> {
    let mut ends = range.split('-');
    let (first, last) = (item(column, ends.next()?)?, item(column, ends.next()?)?);
    // A range of hours ends with the last minute.
    Some(fill(template, &[&first, &last.replace(":00", ":59")]))
}

fn step_in_list(column: Column, part: &str) -> Option<String> {
    let mut halves = part.split('/');
    let (start, step) = (halves.next()?, halves.next()?);
    let text = interval_text(column, step);
    let text = text.strip_prefix(", ").unwrap_or(&text);
    Some(if start.contains('-') {
        format!("{text}, {}", between(column, start, ", {0} through {1}")?.replace(", ", ""))
    } else if start == "*" {
        text.to_owned()
    } else {
        // The package's English texts lack that of the start.
        item(column, start)?;
        format!("{text}, ")
    })
}

fn fill(template: &str, values: &[&str]) -> String {
    values
        .iter()
        .enumerate()
        .fold(template.to_owned(), |text, (index, value)| text.replace(&format!("{{{index}}}"), value))
}

fn time(hour: &str, minute: &str) -> Option<String> {
    Some(format!("{:02}:{:02}", hour.parse::<u32>().ok()?, minute.parse::<u32>().ok()?))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Writes a step that starts with the field's first value as one of all values.
fn from_start(field: &str, start: &str) -> String {
    if field.starts_with(start) { field.replace(start, "*/") } else { field.to_owned() }
}

/// Writes a step from a value as one of a range.
fn to_end(field: String, last: &str) -> String {
    match field.split_once('/') {
        Some((start, step)) if !field.contains(['*', '-', ',']) => format!("{start}-{last}/{step}"),
        _ => field,
    }
}

/// Replaces short names of months or weekdays by their numbers.
fn numbers_of(field: &str, names: &[&str], first: usize) -> String {
    let mut field = field.to_uppercase();
    for (index, name) in names.iter().enumerate() {
        field = field.replace(&name[..3].to_uppercase(), &(index + first).to_string());
    }
    field
}

/// Writes a Sunday of 7 as 0, except in the numbers after `#` and `/`.
fn sunday_as_zero(field: &str) -> String {
    let characters: Vec<char> = field.chars().collect();
    let mut text = String::new();
    let mut position = 0;
    while let Some(&character) = characters.get(position) {
        let next = characters.get(position + 1).filter(|next| next.is_ascii_digit());
        if position == 0 && character.is_ascii_digit() {
            text.push(if character == '7' { '0' } else { character });
            position += 1;
        } else if let Some(&digit) = next.filter(|_| !matches!(character, '#' | '/')) {
            text.push(character);
            text.push(if digit == '7' && !character.is_ascii_digit() { '0' } else { digit });
            position += 2;
        } else {
            text.push(character);
            position += 1;
        }
    }
    text
}

/// The day of `15W`.
fn nearest_weekday(day: &str) -> Option<u32> {
    let digits = |text: &str| text.chars().take_while(char::is_ascii_digit).take(2).collect::<String>();
    let number = match day.strip_prefix('W') {
        Some(rest) => digits(rest),
        None => digits(day),
    };
    let is_weekday = day.starts_with('W') || day[number.len()..].starts_with('W');
    number.parse().ok().filter(|_| is_weekday)
}

/// The number of `L-5`.
fn days_before_last(day: &str) -> Option<String> {
    let digits: String = day.strip_prefix("L-")?.chars().take_while(char::is_ascii_digit).take(2).collect();
    (!digits.is_empty()).then_some(digits)
}

#[cfg(test)]
mod tests {
    use super::describe;
    use std::collections::BTreeMap;

    const RECORDED: &str = include_str!("../../../tests/airflow/cron_descriptions.json");

    #[test]
    fn texts_are_those_that_airflow_shows() {
        let recorded: BTreeMap<String, String> = serde_json::from_str(RECORDED).unwrap();
        assert!(recorded.len() > 300);
        let wrong: Vec<String> = recorded
            .iter()
            .filter(|(expression, text)| describe(expression) != **text)
            .map(|(expression, text)| format!("{expression}: {text:?}, not {:?}", describe(expression)))
            .collect();
        assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    }
}

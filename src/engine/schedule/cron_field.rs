//! The columns of a cron expression: their values, and their translation from croniter's syntax to that of the library
//! croner.

use std::ops::RangeInclusive;

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum CronProblem {
    #[error("Exactly 5, 6 or 7 columns has to be specified for iterator expression; {0:?} has {1}")]
    Columns(String, usize),
    /// The second text is empty, or names a similar preset.
    #[error("{0:?} is not a preset such as @daily{1}")]
    Preset(String, String),
    /// The second text is the reason, or empty.
    #[error("[{0}] is not acceptable{1}")]
    Field(String, String),
    /// A random or hashed column.
    #[error("{0}")]
    Random(String),
    /// The expression has no tick, for example the 31st of February.
    #[error("failed to find next date")]
    Never,
}

/// The values that a column of an expression may have. `names` are alternatives to the numbers from `first_name` on.
pub struct Field {
    pub min: u32,
    max: u32,
    names: &'static [&'static str],
    first_name: u32,
}

const MONTHS: &[&str] = &["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"];
const DAYS: &[&str] = &["sun", "mon", "tue", "wed", "thu", "fri", "sat"];
/// The columns minute, hour, day of month, month, day of week and second.
pub const FIELDS: [Field; 6] = [
    Field { min: 0, max: 59, names: &[], first_name: 0 },
    Field { min: 0, max: 23, names: &[], first_name: 0 },
    Field { min: 1, max: 31, names: &[], first_name: 0 },
    Field { min: 1, max: 12, names: MONTHS, first_name: 1 },
    Field { min: 0, max: 7, names: DAYS, first_name: 0 },
    Field { min: 0, max: 59, names: &[], first_name: 0 },
];
pub const DAY_OF_MONTH: usize = 2;
pub const MONTH: usize = 3;
pub const DAY_OF_WEEK: usize = 4;
pub const FEBRUARY: u32 = 2;
/// In the day-of-week column, 7 is Sunday like 0.
const SUNDAY_AGAIN: u32 = 7;

impl Field {
    /// Translates a part of a column from croniter's syntax to croner's. `column` is its position; `expression` is for
    /// errors.
    pub fn normalize(&self, column: usize, part: &str, expression: &str) -> Result<String, CronProblem> {
        let reject = |reason: &str| CronProblem::Field(expression.to_owned(), reason.to_owned());
        let part = if part == "?" && [DAY_OF_MONTH, DAY_OF_WEEK].contains(&column) { "*" } else { part };
        if part == "*" {
            return Ok(part.to_owned());
        }
        if column == DAY_OF_MONTH && part == "l" {
            return Ok("L".to_owned());
        }
        if column == DAY_OF_MONTH
            && let Some(day) = part.strip_suffix('w').or_else(|| part.strip_prefix('w'))
        {
            return self.nearest_weekday(day, expression);
        }
        if column == DAY_OF_WEEK
            && let Some(day) = part.strip_prefix('l').filter(|day| !day.is_empty())
        {
            return self.number(day, expression).map(|day| format!("{}#L", day % 7));
        }
        if column == DAY_OF_WEEK
            && let Some((day, nth)) = part.split_once('#')
        {
            return self.number(day, expression).map(|day| format!("{}#{nth}", day % 7));
        }
        let (range, step) = match part.split_once('/') {
            None => (part, None),
            Some((range, step)) => (range, Some(step)),
        };
        let step: usize = match step {
            None => 1,
            Some(step) if step.parse() == Ok(0_usize) => {
                let field = expression.split_whitespace().position(|text| text.contains("/0")).unwrap_or(column);
                return Err(reject(&format!(": step '0' in field {field} is not acceptable")));
            }
            Some(step) => step.parse().map_err(|_| reject(""))?,
        };
        let values = match range.split_once('-') {
            Some((from, to)) => {
                let to = if column == DAY_OF_MONTH && to == "l" { self.max } else { self.number(to, expression)? };
                self.range(self.number(from, expression)?, to, step)
            }
            None if range == "*" => self.range(self.min, self.max_value(), step),
            None => {
                let from = self.normalize_sunday(self.number(range, expression)?);
                let to = if part.contains('/') { self.max_value() } else { from };
                (from..=to).step_by(step).collect()
            }
        };
        Ok(join_numbers(&values))
    }

    /// Normalizes a part such as `15W` or `w15`: the weekday (Monday to Friday) nearest to the 15th in the same month.
    fn nearest_weekday(&self, day: &str, expression: &str) -> Result<String, CronProblem> {
        let reject = |reason: String| CronProblem::Field(expression.to_owned(), reason);
        let day: u32 = day.parse().map_err(|_| reject(String::new()))?;
        if !(self.min..=self.max).contains(&day) {
            return Err(reject(format!(", nearest weekday day value '{day}' out of range")));
        }
        if expression.split_whitespace().nth(DAY_OF_MONTH).is_some_and(|column| column.contains(',')) {
            let reason = ". 'W' can only be used with a single day value, not in a list or range";
            return Err(reject(reason.to_owned()));
        }
        Ok(format!("{day}W"))
    }

    /// Expands `from-to/step` as croniter does: a range from a value to itself is the whole cycle, and a range that
    /// wraps around continues at the minimum, skipping values as the step requires.
    fn range(&self, from: u32, to: u32, step: usize) -> Vec<u32> {
        let (from, to) = match (self.normalize_sunday(from), self.normalize_sunday(to)) {
            (from, to) if from == to => (self.min, self.max_value()),
            bounds => bounds,
        };
        if from < to {
            return (from..=to).step_by(step).collect();
        }
        let mut values: Vec<u32> = (from..=self.max_value()).step_by(step).collect();
        let remainder = (self.max_value() - values.last().copied().unwrap_or(from)) as usize;
        let skipped = if step > remainder + 1 { step - remainder } else { 0 };
        values.extend((self.min..=to).skip(skipped).step_by(step));
        values
    }

    /// Maps 7 to 0 in the day-of-week column.
    fn normalize_sunday(&self, value: u32) -> u32 {
        if self.max == SUNDAY_AGAIN { value % SUNDAY_AGAIN } else { value }
    }

    /// The largest value, without 7 for Sunday.
    pub fn max_value(&self) -> u32 {
        if self.max == SUNDAY_AGAIN { self.max - 1 } else { self.max }
    }

    /// Parses a number or a name.
    fn number(&self, text: &str, expression: &str) -> Result<u32, CronProblem> {
        let reject = |reason: &str| CronProblem::Field(expression.to_owned(), reason.to_owned());
        let name_index = self.names.iter().position(|name| text.starts_with(name) && text.len() == name.len());
        let value = match name_index {
            Some(position) => position as u32 + self.first_name,
            None => text.parse().map_err(|_| reject(""))?,
        };
        if (self.min..=self.max).contains(&value) { Ok(value) } else { Err(reject(", out of range")) }
    }
}

/// The values of a normalized column; `all_values` if the column is not a list of numbers.
pub fn parse_numbers(column: &str, all_values: RangeInclusive<u32>) -> Vec<u32> {
    let parsed: Result<Vec<u32>, _> = column.split(',').map(str::parse).collect();
    parsed.unwrap_or_else(|_| all_values.collect())
}

/// The column that lists these values.
pub fn join_numbers(numbers: &[u32]) -> String {
    let texts: Vec<String> = numbers.iter().map(u32::to_string).collect();
    texts.join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Expected values are those of croniter 7.0.0.
    #[test]
    fn ranges_with_steps_are_those_of_croniter() {
        for (column, part, values) in [
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
            assert_eq!(FIELDS[column].normalize(column, part, part).unwrap(), values, "{part}");
        }
    }
}

//! croniter's random columns: `R`, `R/10`, `R(0-29)` and `R(0-29)/10`. Each parse of an expression draws new values.
//! <https://github.com/pallets-eco/croniter#random-expressions>

use super::cron_field::{CronProblem, FIELDS};
use leoflow_base::sys::random;
use std::ops::RangeInclusive;

/// croniter's range of years.
const YEARS: RangeInclusive<u32> = 1970..=2099;
const YEAR: usize = 6;

/// A random column without its letter: the range from which the first value is drawn, and the step to the next values.
struct RandomColumn {
    bounds: Option<(u32, u32)>,
    step: Option<u32>,
}

/// Replaces a random column by the values that are drawn for it; returns any other column unchanged. `column` is the
/// position, `text` is in lower case.
pub fn draw(column: usize, text: &str) -> Result<String, CronProblem> {
    let Some((letter, random)) = RandomColumn::parse(text) else { return Ok(text.to_owned()) };
    if letter == 'h' {
        return Err(CronProblem::Random("Hashed definitions must include hash_id".to_owned()));
    }
    random.draw(column, text, u32::from_ne_bytes(random::bytes()))
}

impl RandomColumn {
    /// Parses `r`, `r/STEP`, `r(FROM-TO)` and `r(FROM-TO)/STEP`, with `h` as with `r`.
    fn parse(text: &str) -> Option<(char, Self)> {
        let letter = text.chars().next().filter(|letter| ['h', 'r'].contains(letter))?;
        let rest = &text[1..];
        let (bounds, rest) = match rest.strip_prefix('(') {
            None => (None, rest),
            Some(inside) => {
                let (range, rest) = inside.split_once(')')?;
                let (from, to) = range.split_once('-')?;
                (Some((number(from)?, number(to)?)), rest)
            }
        };
        let step = match rest.strip_prefix('/') {
            None if rest.is_empty() => None,
            None => return None,
            Some(step) => Some(number(step)?),
        };
        Some((letter, Self { bounds, step }))
    }

    fn draw(&self, column: usize, text: &str, random: u32) -> Result<String, CronProblem> {
        let range = if column == YEAR { YEARS } else { FIELDS[column].min..=FIELDS[column].max_value() };
        if let Some((from, to)) = self.bounds {
            if from >= to {
                return Err(CronProblem::Random("Range end must be greater than range begin".to_owned()));
            }
            if !range.contains(&from) || !range.contains(&to) {
                return Err(CronProblem::Field(text.to_owned(), ", out of range".to_owned()));
            }
        }
        let (from, to) = self.bounds.unwrap_or((*range.start(), *range.end()));
        let value = |to: u32| from + (random >> column) % (to - from + 1);
        match self.step {
            None => Ok(value(to).to_string()),
            Some(0) => Err(CronProblem::Random(format!("Bad expression: {text}"))),
            Some(step) => match value(to.min(from.saturating_add(step - 1))) {
                // `to-to/step` would mean the whole column.
                first if first == to => Ok(first.to_string()),
                first => Ok(format!("{first}-{to}/{step}")),
            },
        }
    }
}

fn number(text: &str) -> Option<u32> {
    text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The column with `random` in place of a drawn number.
    fn drawn(column: usize, text: &str, random: u32) -> String {
        RandomColumn::parse(text).unwrap().1.draw(column, text, random).unwrap()
    }

    #[test]
    fn random_columns_are_drawn_as_croniter_draws_them() {
        assert_eq!(drawn(0, "r", 61), "1");
        assert_eq!(drawn(1, "r", 2 * 25), "1", "shifted by the column's position");
        assert_eq!(drawn(2, "r", 0), "1", "days count from 1");
        assert_eq!(drawn(4, "r", 7 << 4), "0");
        assert_eq!(drawn(6, "r", 0), "1970");
        assert_eq!(drawn(0, "r(10-19)", 12), "12");
        assert_eq!(drawn(0, "r/15", 16), "1-59/15");
        assert_eq!(drawn(0, "r(30-59)/10", 4), "34-59/10");
        assert_eq!(drawn(0, "r(0-4)/9", 4), "4");
        for _ in 0..100 {
            assert!(draw(1, "r(3-5)").unwrap().parse().is_ok_and(|hour: u32| (3..=5).contains(&hour)));
        }
    }

    #[test]
    fn other_columns_stay_and_bad_ones_are_refused() {
        for text in ["5", "*", "r1", "r(1)", "1,r", "fri", "r/", "r(a-b)"] {
            assert_eq!(draw(0, text).unwrap(), text);
        }
        let error = |column, text: &str| draw(column, text).unwrap_err().to_string();
        assert_eq!(error(0, "h"), "Hashed definitions must include hash_id");
        assert_eq!(error(0, "r(5-5)"), "Range end must be greater than range begin");
        assert_eq!(error(0, "r(0-60)"), "[r(0-60)] is not acceptable, out of range");
        assert_eq!(error(1, "r/0"), "Bad expression: r/0");
    }
}

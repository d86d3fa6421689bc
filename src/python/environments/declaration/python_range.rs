//! The Python versions that a project accepts: a version such as `3.12`, or a version specifier such as `>=3.10`.

use std::fmt;
use std::str::FromStr;

/// A range of released Python versions, which matches if all its clauses match:
/// <https://packaging.python.org/en/latest/specifications/version-specifiers/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonRange {
    text: String,
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    operator: Operator,
    version: Vec<u32>,
    /// True if the clause compares only this prefix of a version: `==3.12.*`.
    is_prefix: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Operator {
    Equal,
    NotEqual,
    AtLeast,
    AtMost,
    Above,
    Below,
    Compatible,
}

const OPERATORS: &[(&str, Operator)] = &[
    ("===", Operator::Equal),
    ("==", Operator::Equal),
    ("!=", Operator::NotEqual),
    (">=", Operator::AtLeast),
    ("<=", Operator::AtMost),
    ("~=", Operator::Compatible),
    (">", Operator::Above),
    ("<", Operator::Below),
];

impl FromStr for PythonRange {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        let list = text.strip_suffix(',').unwrap_or(text);
        let clauses: Option<Vec<Clause>> = list.split(',').map(|clause| parse_clause(clause.trim())).collect();
        match clauses {
            Some(clauses) => Ok(Self { text: text.to_owned(), clauses }),
            None => Err(format!("{text:?} is not a Python version, such as \"3.12\" or \">=3.10,<3.13\"")),
        }
    }
}

/// Parses one clause, such as `>=3.10`; `None` if it is not valid.
fn parse_clause(text: &str) -> Option<Clause> {
    let with_sign =
        OPERATORS.iter().find_map(|(sign, operator)| text.strip_prefix(sign).map(|version| (*operator, version)));
    let (operator, version) = with_sign.unwrap_or((Operator::Equal, text));
    let version = version.trim();
    let (version, has_star) = version.strip_suffix(".*").map_or((version, false), |version| (version, true));
    // A pre-release is read as its release.
    let version = version.split(['a', 'b', 'r']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() <= 3)?;
    let is_exact = matches!(operator, Operator::Equal | Operator::NotEqual);
    if has_star && !is_exact || operator == Operator::Compatible && numbers.len() < 2 {
        return None;
    }
    // A bare `3.12` matches every 3.12, as in uv and pyenv.
    let is_prefix = has_star || with_sign.is_none();
    Some(Clause { operator, version: numbers, is_prefix })
}

impl PythonRange {
    /// True if the range distinguishes patches of a minor version.
    pub fn is_exact(&self) -> bool {
        self.clauses.iter().any(|clause| clause.version.get(2).is_some_and(|patch| *patch > 0))
    }

    /// Formats the range as a version specifier: a bare `3.12` becomes `==3.12.*`.
    pub fn specifiers(&self) -> String {
        let to_specifier = |clause: &Clause| {
            let sign =
                OPERATORS.iter().rev().find(|(_, operator)| *operator == clause.operator).map_or("", |(sign, _)| sign);
            let numbers: Vec<String> = clause.version.iter().map(u32::to_string).collect();
            let is_whole = !clause.is_prefix || numbers.len() == 3;
            format!("{sign}{}{}", numbers.join("."), if is_whole { "" } else { ".*" })
        };
        self.clauses.iter().map(to_specifier).collect::<Vec<_>>().join(",")
    }

    /// True if a version such as `3.12.1` matches.
    pub fn contains(&self, version: &str) -> bool {
        let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        numbers.is_some_and(|numbers| self.clauses.iter().all(|clause| clause.contains(&numbers)))
    }
}

impl Clause {
    fn contains(&self, version: &[u32]) -> bool {
        let has_prefix = |prefix: &[u32]| version.get(..prefix.len()) == Some(prefix);
        let is_equal =
            if self.is_prefix { has_prefix(&self.version) } else { padded(version) == padded(&self.version) };
        let order = padded(version).cmp(&padded(&self.version));
        match self.operator {
            Operator::Equal => is_equal,
            Operator::NotEqual => !is_equal,
            Operator::AtLeast => order.is_ge(),
            Operator::AtMost => order.is_le(),
            Operator::Above => order.is_gt(),
            Operator::Below => order.is_lt(),
            Operator::Compatible => order.is_ge() && has_prefix(&self.version[..self.version.len() - 1]),
        }
    }
}

/// A version with zeros for missing numbers: `3.12` equals `3.12.0`.
fn padded(version: &[u32]) -> [u32; 3] {
    std::array::from_fn(|index| version.get(index).copied().unwrap_or(0))
}

impl fmt::Display for PythonRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_versions() {
        let contains = |range: &str, version: &str| range.parse::<PythonRange>().unwrap().contains(version);
        assert!(contains("3.12", "3.12.4") && !contains("3.12", "3.13.0") && !contains("3.1", "3.12.4"));
        assert!(contains("3.12.4", "3.12.4") && !contains("3.12.4", "3.12.5"));
        assert!(contains(">=3.10,<3.13", "3.12.9") && !contains(">=3.10, <3.13", "3.13.0"));
        assert!(contains(">3.10", "3.10.1") && contains("<=3.12", "3.12.0") && !contains("<=3.12", "3.12.1"));
        assert!(contains("==3.11.*", "3.11.9") && !contains("!=3.11.*", "3.11.9") && contains("!=3.11.8", "3.11.9"));
        assert!(contains(">=3.13.0rc1,", "3.13.0") && !contains(">=3.13.0rc1", "3.12.9"));
        assert!(contains("~=3.10", "3.12.0") && !contains("~=3.10.2", "3.11.0") && contains("~=3.10.2", "3.10.7"));
    }

    #[test]
    fn refuses_invalid_versions() {
        for wrong in ["", "two", "3.x", ">=3.*", "~=3", "3.1.2.3", ">=3.10 <3.12"] {
            assert!(wrong.parse::<PythonRange>().is_err(), "{wrong}");
        }
    }
}

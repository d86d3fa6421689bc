//! Which versions of Python a project takes: `3.12`, or a range as Python's packages write it.

use std::fmt;
use std::str::FromStr;

/// As in <https://packaging.python.org/en/latest/specifications/version-specifiers/>, for released versions.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonRange {
    text: String,
    clauses: Vec<Clause>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Clause {
    operator: Operator,
    version: Vec<u32>,
    /// Everything that begins so.
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
        let inner = text.strip_suffix(',').unwrap_or(text);
        let clauses: Option<Vec<Clause>> = inner.split(',').map(|clause| clause_of(clause.trim())).collect();
        match clauses {
            Some(clauses) => Ok(Self { text: text.to_owned(), clauses }),
            None => Err(format!("{text:?} is no version of Python, such as \"3.12\" or \">=3.10,<3.13\"")),
        }
    }
}

fn clause_of(text: &str) -> Option<Clause> {
    let found = OPERATORS.iter().find_map(|(sign, operator)| text.strip_prefix(sign).map(|rest| (*operator, rest)));
    let (operator, version) = found.unwrap_or((Operator::Equal, text));
    let version = version.trim();
    let (version, has_star) = version.strip_suffix(".*").map_or((version, false), |version| (version, true));
    // What comes before a release is taken for it.
    let version = version.split(['a', 'b', 'r']).next().unwrap_or_default();
    let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
    let numbers = numbers.filter(|numbers| numbers.len() <= 3)?;
    let is_exact = matches!(operator, Operator::Equal | Operator::NotEqual);
    if has_star && !is_exact || operator == Operator::Compatible && numbers.len() < 2 {
        return None;
    }
    // `3.12` alone is every 3.12, as uv and pyenv take it.
    let is_prefix = has_star || found.is_none();
    Some(Clause { operator, version: numbers, is_prefix })
}

impl PythonRange {
    /// Whether it tells patches of one minor version apart.
    pub fn is_exact(&self) -> bool {
        self.clauses.iter().any(|clause| clause.version.get(2).is_some_and(|patch| *patch > 0))
    }

    /// As Python's packages write it, whoever reads it: `3.12` alone becomes `==3.12.*`.
    pub fn specifiers(&self) -> String {
        let written = |clause: &Clause| {
            let sign =
                OPERATORS.iter().rev().find(|(_, operator)| *operator == clause.operator).map_or("", |(sign, _)| sign);
            let numbers: Vec<String> = clause.version.iter().map(u32::to_string).collect();
            let is_whole = !clause.is_prefix || numbers.len() == 3;
            format!("{sign}{}{}", numbers.join("."), if is_whole { "" } else { ".*" })
        };
        self.clauses.iter().map(written).collect::<Vec<_>>().join(",")
    }

    /// `version` is `3.12.1`.
    pub fn holds(&self, version: &str) -> bool {
        let numbers: Option<Vec<u32>> = version.split('.').map(|part| part.parse().ok()).collect();
        numbers.is_some_and(|numbers| self.clauses.iter().all(|clause| clause.holds(&numbers)))
    }
}

impl Clause {
    fn holds(&self, version: &[u32]) -> bool {
        let begins = |prefix: &[u32]| version.get(..prefix.len()) == Some(prefix);
        let is_it = if self.is_prefix { begins(&self.version) } else { padded(version) == padded(&self.version) };
        let order = padded(version).cmp(&padded(&self.version));
        match self.operator {
            Operator::Equal => is_it,
            Operator::NotEqual => !is_it,
            Operator::AtLeast => order.is_ge(),
            Operator::AtMost => order.is_le(),
            Operator::Above => order.is_gt(),
            Operator::Below => order.is_lt(),
            Operator::Compatible => order.is_ge() && begins(&self.version[..self.version.len() - 1]),
        }
    }
}

fn padded(version: &[u32]) -> [u32; 3] {
    std::array::from_fn(|at| version.get(at).copied().unwrap_or(0))
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
    fn says_which_versions_it_holds() {
        let holds = |range: &str, version: &str| range.parse::<PythonRange>().unwrap().holds(version);
        assert!(holds("3.12", "3.12.4") && !holds("3.12", "3.13.0") && !holds("3.1", "3.12.4"));
        assert!(holds("3.12.4", "3.12.4") && !holds("3.12.4", "3.12.5"));
        assert!(holds(">=3.10,<3.13", "3.12.9") && !holds(">=3.10, <3.13", "3.13.0"));
        assert!(holds(">3.10", "3.10.1") && holds("<=3.12", "3.12.0") && !holds("<=3.12", "3.12.1"));
        assert!(holds("==3.11.*", "3.11.9") && !holds("!=3.11.*", "3.11.9") && holds("!=3.11.8", "3.11.9"));
        assert!(holds(">=3.13.0rc1,", "3.13.0") && !holds(">=3.13.0rc1", "3.12.9"));
        assert!(holds("~=3.10", "3.12.0") && !holds("~=3.10.2", "3.11.0") && holds("~=3.10.2", "3.10.7"));
    }

    #[test]
    fn refuses_what_is_no_version() {
        for wrong in ["", "two", "3.x", ">=3.*", "~=3", "3.1.2.3", ">=3.10 <3.12"] {
            assert!(wrong.parse::<PythonRange>().is_err(), "{wrong}");
        }
    }
}

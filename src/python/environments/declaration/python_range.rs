//! The Python versions that a project accepts: a version such as `3.12`, or a version specifier such as `>=3.10`.

use super::error::LineError;
use pep440_rs::{Version, VersionSpecifiers};
use std::str::FromStr;

/// A range of released Python versions:
/// <https://packaging.python.org/en/latest/specifications/version-specifiers/>.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PythonRange {
    /// As a version specifier: a bare `3.12` is `==3.12.*`, as in uv and pyenv.
    pub specifiers: String,
    parsed: VersionSpecifiers,
}

impl FromStr for PythonRange {
    type Err = LineError;

    fn from_str(text: &str) -> Result<Self, LineError> {
        let text = text.trim();
        let clauses = text.strip_suffix(',').unwrap_or(text).split(',').map(|clause| {
            let clause = clause.trim();
            match (clause.starts_with(|c: char| c.is_ascii_digit()), clause.split('.').count()) {
                (true, 1 | 2) if !clause.ends_with(".*") => format!("=={clause}.*"),
                (true, _) => format!("=={clause}"),
                (false, _) => clause.to_owned(),
            }
        });
        let specifiers = clauses.collect::<Vec<_>>().join(",");
        let invalid = || LineError::PythonVersion(text.to_owned());
        let parsed = VersionSpecifiers::from_str(&specifiers).map_err(|_| invalid())?;
        let is_python = |version: &Version| version.release().len() <= 3;
        let is_valid = !parsed.is_empty() && parsed.iter().all(|specifier| is_python(specifier.version()));
        if is_valid { Ok(Self { specifiers, parsed }) } else { Err(invalid()) }
    }
}

impl PythonRange {
    /// True if the range distinguishes patches of a minor version.
    pub fn is_exact(&self) -> bool {
        self.parsed.iter().any(|specifier| specifier.version().release().get(2).is_some_and(|patch| *patch > 0))
    }

    /// True if a version such as `3.12.1` matches.
    pub fn contains(&self, version: &str) -> bool {
        Version::from_str(version).is_ok_and(|version| self.parsed.contains(&version))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn matches_versions() {
        let contains = |range: &str, version: &str| range.parse::<PythonRange>().unwrap().contains(version);
        assert!(contains("3.*", "3.12.4") && contains("3.12.*", "3.12.4") && !contains("3.11.*", "3.12.4"));
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

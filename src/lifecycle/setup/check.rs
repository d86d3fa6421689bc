//! A finding of `doctor`, with its fix.

use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One line of the report.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: &'static str,
    #[serde(flatten)]
    pub finding: Finding,
}

/// The result of a check.
#[derive(Debug, Clone, Serialize)]
pub struct Finding {
    pub verdict: Verdict,
    pub detail: String,
    /// How to fix it.
    pub remedy: Option<String>,
    #[serde(skip)]
    pub fix: Option<Fix>,
}

/// Fixes that `--fix` may apply; none loses data.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Fix {
    RestrictPermissions(PathBuf, u32),
    EndLeftovers,
    LinkBinaries(String),
}

pub(super) fn ok(detail: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Ok, detail: detail.into(), remedy: None, fix: None }
}

pub(super) fn warning(detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Warning, remedy: Some(remedy.into()), ..ok(detail) }
}

pub(super) fn problem(detail: impl Into<String>, remedy: impl Into<String>) -> Finding {
    Finding { verdict: Verdict::Problem, ..warning(detail, remedy) }
}

impl Finding {
    pub(super) fn with_fix(self, fix: Fix) -> Self {
        Self { fix: Some(fix), ..self }
    }
}

impl std::fmt::Display for Fix {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RestrictPermissions(path, mode) => write!(f, "set the mode of {} to {mode:o}", path.display()),
            Self::EndLeftovers => f.write_str("end the leftover processes of a killed run"),
            Self::LinkBinaries(version) => write!(f, "point the links in bin/ at version {version}"),
        }
    }
}

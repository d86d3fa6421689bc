//! One line of what `doctor` finds, and what may be done about it.

use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    Ok,
    Warning,
    Problem,
}

/// One line of the examination.
#[derive(Debug, Clone, Serialize)]
pub struct Check {
    pub name: &'static str,
    pub verdict: Verdict,
    pub detail: String,
    /// The way to mend it.
    pub remedy: Option<String>,
    #[serde(skip)]
    pub mend: Option<Mend>,
}

/// What `--fix` may do: nothing that loses anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Mend {
    RestrictPermissions(PathBuf, u32),
    EndLeftovers,
    LinkBinaries(String),
}

impl Check {
    pub(super) fn ok(name: &'static str, detail: impl Into<String>) -> Self {
        Self { name, verdict: Verdict::Ok, detail: detail.into(), remedy: None, mend: None }
    }

    pub(super) fn warning(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Warning, remedy: Some(remedy.into()), ..Self::ok(name, detail) }
    }

    pub(super) fn problem(name: &'static str, detail: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { verdict: Verdict::Problem, ..Self::warning(name, detail, remedy) }
    }

    pub(super) fn with_mend(self, mend: Mend) -> Self {
        Self { mend: Some(mend), ..self }
    }
}

impl std::fmt::Display for Mend {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::RestrictPermissions(path, mode) => write!(f, "set the mode of {} to {mode:o}", path.display()),
            Self::EndLeftovers => f.write_str("end the processes that a killed run left"),
            Self::LinkBinaries(version) => write!(f, "point the links in bin/ at version {version}"),
        }
    }
}

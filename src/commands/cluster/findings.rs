//! What does not fit, in the words of the report: nothing is left behind in silence.

use serde::Serialize;

/// One thing that somebody has to look at, and what to do about it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// A path below the workspace, a variable, a package, …
    pub what: String,
    pub why: String,
    pub remedy: String,
}

#[derive(Debug, Default)]
pub struct Findings(Vec<Finding>);

impl Findings {
    pub fn add(&mut self, what: impl Into<String>, why: impl Into<String>, remedy: impl Into<String>) {
        self.0.push(Finding { what: what.into(), why: why.into(), remedy: remedy.into() });
    }

    pub fn all(&self) -> &[Finding] {
        &self.0
    }
}

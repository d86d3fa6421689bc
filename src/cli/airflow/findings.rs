//! Findings of an export or import: everything that is not transferred is reported.

use serde::Serialize;

/// One problem that needs the user's attention, and its remedy. The fields are keys of `export.json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The subject: a path relative to the copied folder, a variable, a package, …
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

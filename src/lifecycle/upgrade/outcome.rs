//! The result of a change of release.

use super::UpgradeError;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Upgraded,
    /// Nothing was changed.
    Failed,
    /// The previous release runs again, with all data.
    RolledBack,
    /// The new release is installed and has a problem.
    UpgradedWithProblem,
    /// The older release is installed and has a problem.
    RolledBackWithProblem,
}

/// The result as printed by `--json`.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub status: Status,
    pub previous_version: String,
    pub new_version: String,
    /// The commit that the new release was built from.
    pub commit: Option<String>,
    pub migrations_run: Vec<String>,
    pub backup_path: Option<PathBuf>,
    pub details: Vec<String>,
    /// Shown after the message; not in the JSON.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// Seconds, measured in the rehearsal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_pause: Option<f64>,
    /// Seconds for which requests waited.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<f64>,
    /// The text of `error`: why the change failed, or the problem of the installed release.
    #[serde(rename = "problem", skip_serializing_if = "Option::is_none")]
    pub problem_text: Option<String>,
    #[serde(skip)]
    pub error: Option<UpgradeError>,
}

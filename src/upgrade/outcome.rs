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
    /// The release before runs again, with everything.
    RolledBack,
    /// The new release is in force, and something is wrong with it.
    UpgradedWithProblem,
    /// The older release is installed, and has a problem.
    RolledBackWithProblem,
}

/// What came of it.
#[derive(Debug, Serialize)]
pub struct Outcome {
    pub status: Status,
    pub previous_version: String,
    pub new_version: String,
    /// Of the new release's sources.
    pub commit: Option<String>,
    pub migrations_run: Vec<String>,
    pub backup_path: Option<PathBuf>,
    pub details: Vec<String>,
    /// For people, behind the message.
    #[serde(skip)]
    pub notes: Vec<String>,
    /// Seconds, from the rehearsal.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub expected_pause: Option<f64>,
    /// Seconds in which requests waited, as it was.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pause: Option<f64>,
    /// What was wrong, in words; `fault` for whoever tells it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    #[serde(skip)]
    pub fault: Option<UpgradeError>,
}

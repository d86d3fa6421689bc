//! The result of a change of release.

use super::UpgradeError;
use super::finish::Conclusion;
use super::step_runner::StepRunner;
use super::steps::Direction;
use super::upgrade_context::Notes;
use serde::Serialize;
use std::path::PathBuf;

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    Upgraded,
    /// Nothing was changed.
    Failed,
    /// The previous release is installed again, with all data.
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

impl Outcome {
    /// The result of an upgrade or rollback that ended with `conclusion`, after `fault` if a step failed.
    pub(super) fn new(run: StepRunner<'_>, conclusion: Conclusion, fault: Option<UpgradeError>) -> Self {
        let StepRunner { context, state, .. } = run;
        let Notes { details, commit, pause, .. } = context.notes;
        let commit = commit.filter(|_| !matches!(conclusion, Conclusion::Discarded));
        let (status, error) = match (conclusion, state.direction) {
            (Conclusion::Discarded, _) | (Conclusion::SnapshotRestored, Direction::Down) => (Status::Failed, fault),
            (Conclusion::SnapshotRestored, Direction::Up) | (Conclusion::MigrationsUndone, _) => {
                (Status::RolledBack, fault)
            }
            (Conclusion::UndoFailed { exit_error, .. } | Conclusion::Completed { exit_error }, direction) => {
                match (fault.or(exit_error), direction) {
                    (Some(fault), Direction::Up) => (Status::UpgradedWithProblem, Some(fault)),
                    (Some(fault), Direction::Down) => (Status::RolledBackWithProblem, Some(fault)),
                    (None, Direction::Up) => (Status::Upgraded, None),
                    (None, Direction::Down) => (Status::RolledBack, None),
                }
            }
        };
        Self {
            status,
            previous_version: state.plan.from.to_string(),
            new_version: state.plan.to.to_string(),
            commit,
            migrations_run: state.migrations_run,
            backup_path: state.backup,
            details,
            notes: Vec::new(),
            expected_pause: state.expected_pause,
            pause: pause.map(|pause| pause.as_secs_f64()),
            problem_text: error.as_ref().map(ToString::to_string),
            error,
        }
    }
}

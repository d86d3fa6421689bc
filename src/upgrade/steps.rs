//! The steps of an upgrade, in order, and what an interruption at each of them means. Pure.

use super::plan::Plan;
use crate::home::journal::Entry;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::path::PathBuf;
use std::time::Duration;

/// Each is written down before it acts. A step's number is its place in the journal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Step {
    Fetch,
    Backup,
    Rehearse,
    /// From here on requests wait.
    LetGo,
    Snapshot,
    Migrate,
    Trial,
    /// From here on the new release may have written what only it knows.
    Open,
    Smoke,
    Commit,
    TakeOver,
    Tidy,
}

impl Step {
    pub const ALL: [Self; 12] = [
        Self::Fetch,
        Self::Backup,
        Self::Rehearse,
        Self::LetGo,
        Self::Snapshot,
        Self::Migrate,
        Self::Trial,
        Self::Open,
        Self::Smoke,
        Self::Commit,
        Self::TakeOver,
        Self::Tidy,
    ];

    /// For the journal.
    pub fn name(self) -> &'static str {
        match self {
            Self::Fetch => "fetch",
            Self::Backup => "backup",
            Self::Rehearse => "rehearse",
            Self::LetGo => "let-go",
            Self::Snapshot => "snapshot",
            Self::Migrate => "migrate",
            Self::Trial => "trial",
            Self::Open => "open",
            Self::Smoke => "smoke",
            Self::Commit => "commit",
            Self::TakeOver => "take-over",
            Self::Tidy => "tidy",
        }
    }

    /// For people, while it acts.
    pub fn title(self) -> &'static str {
        match self {
            Self::Fetch => "Fetching the release",
            Self::Backup => "Backing up",
            Self::Rehearse => "Rehearsing with the backup",
            Self::LetGo => "Pausing; tasks run on, requests wait",
            Self::Snapshot => "Copying the database",
            Self::Migrate => "Migrating",
            Self::Trial => "Trying the new server",
            Self::Open => "Handing over to it",
            Self::Smoke => "Smoke test",
            Self::Commit => "Making it the installed version",
            Self::TakeOver => "Replacing the supervisor",
            Self::Tidy => "Tidying up",
        }
    }
}

/// Which way the schema goes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To a release that is fetched; its migrations are applied.
    Up,
    /// To one that is kept; what it does not know is undone.
    Down,
}

/// What the steps need to know when another process goes on with them: the journal's plan.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub direction: Direction,
    pub plan: Plan,
    /// The name that the database from before it gets.
    pub snapshot: String,
    pub new_program: PathBuf,
    /// Whether that was kept already.
    pub had_program: bool,
    pub backup: Option<PathBuf>,
    /// A PostgreSQL that was installed for it.
    pub new_postgres: Option<PathBuf>,
    pub migrations_run: Vec<String>,
    /// How long the rehearsal says that requests will wait, seconds.
    pub expected_pause: Option<f64>,
    /// How long the server took in the rehearsal to get ready and to pass, seconds.
    #[serde(default)]
    pub rehearsed_trial: Option<f64>,
    pub known_import_errors: Option<BTreeSet<String>>,
    /// Why the new release is left again, by the rollback SQL of its migrations.
    pub leaving: Option<String>,
}

/// A server has at least so long on trial.
const SHORTEST_TRIAL: Duration = Duration::from_secs(5);
/// And this long where nothing was rehearsed: going back.
const UNREHEARSED_TRIAL: Duration = Duration::from_secs(10);

impl State {
    /// How long the new server may take on the live database while requests wait: twice what the rehearsal took.
    pub fn trial_limit(&self, most: Duration) -> Duration {
        let twice = self.rehearsed_trial.and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok());
        twice.map_or(UNREHEARSED_TRIAL, |twice| twice.max(SHORTEST_TRIAL)).min(most)
    }
}

/// What is to be done about an upgrade that was interrupted.
#[derive(Debug, Clone, PartialEq)]
pub enum Resumption {
    /// Nothing was changed yet.
    Forget(Box<State>),
    /// The database from before it comes back, if it was copied already.
    Back(Box<State>),
    /// Its migrations are undone.
    Leave(Box<State>),
    /// It is complete but for its last steps.
    Forward(Box<State>),
}

/// `Err` for a journal that this version does not understand.
pub fn resumption(entry: &Entry) -> Result<Resumption, String> {
    let state: State = serde_json::from_value(entry.plan.clone()).map_err(|error| error.to_string())?;
    let state = Box::new(state);
    let reached = |step: Step| {
        let at = entry.steps.iter().position(|name| name == step.name());
        at.map(|at| entry.at >= at).ok_or_else(|| format!("it has no step {}", step.name()))
    };
    Ok(match (state.leaving.is_some(), reached(Step::Open)?, reached(Step::LetGo)?) {
        (true, ..) => Resumption::Leave(state),
        (false, true, _) => Resumption::Forward(state),
        (false, false, true) => Resumption::Back(state),
        (false, false, false) => Resumption::Forget(state),
    })
}

//! The steps of an upgrade, in order, and what is written down of it. Pure.

use super::plan::Plan;
use super::smoke::KnownFaults;
use crate::home::journal::Entry;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

/// Each is written down, by its name, before it acts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
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
    #[serde(default)]
    pub known_faults: KnownFaults,
    /// Why the new release is left again, by the rollback SQL of its migrations.
    pub leaving: Option<String>,
}

/// A server has at least so long on trial.
const SHORTEST_TRIAL: Duration = Duration::from_secs(5);
/// And this long where nothing was rehearsed: going back.
const UNREHEARSED_TRIAL: Duration = Duration::from_secs(10);

impl State {
    /// For the journal.
    pub fn to_json(&self) -> serde_json::Value {
        // Names, numbers and paths; a path that is not UTF-8 is refused when the home is chosen.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// How long the new server may take on the live database while requests wait: twice what the rehearsal took.
    pub fn trial_limit(&self, most: Duration) -> Duration {
        let twice = self.rehearsed_trial.and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok());
        twice.map_or(UNREHEARSED_TRIAL, |twice| twice.max(SHORTEST_TRIAL)).min(most)
    }
}

/// What an interrupted upgrade was doing, and how far it had come. `Err` for a journal that this version does not
/// understand. A step that only another version knows counts as the one before it.
pub fn read(entry: &Entry) -> Result<(State, Step), String> {
    let state = serde_json::from_value(entry.plan.clone()).map_err(|error| error.to_string())?;
    for step in [Step::LetGo, Step::Open, Step::Commit] {
        position(entry, step).ok_or_else(|| format!("it has no step {}", step.name()))?;
    }
    Ok((state, reached(entry)))
}

/// Where a step is in the journal, which may be another version's.
pub fn position(entry: &Entry, step: Step) -> Option<usize> {
    entry.steps.iter().position(|name| name == step.name())
}

/// Whether a step has been done.
pub fn is_past(entry: &Entry, step: Step) -> bool {
    position(entry, step).is_some_and(|at| entry.at > at)
}

/// The last step that was begun.
pub fn reached(entry: &Entry) -> Step {
    let begun = |step: &Step| position(entry, *step).is_some_and(|at| entry.at >= at);
    Step::ALL.into_iter().rfind(begun).unwrap_or(Step::Fetch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::home::journal::Operation;
    use crate::upgrade::source::Wanted;
    use semver::Version;
    use serde_json::json;

    fn state() -> State {
        let plan = Plan {
            from: Version::new(0, 1, 0),
            to: Version::new(0, 2, 0),
            live: true,
            schema_from: 3,
            schema_to: 4,
            migrations: Vec::new(),
            later: Vec::new(),
            program: Wanted { url: String::new(), sha256: String::new(), size: 0 },
            components: Vec::new(),
            needs_bytes: 0,
            running_tasks: 0,
            warnings: Vec::new(),
            notes: String::new(),
        };
        State {
            direction: Direction::Up,
            plan,
            snapshot: "before".to_owned(),
            new_program: "/bin/new".into(),
            had_program: false,
            backup: None,
            new_postgres: None,
            migrations_run: Vec::new(),
            expected_pause: None,
            rehearsed_trial: None,
            known_faults: KnownFaults::default(),
            leaving: None,
        }
    }

    fn entry(steps: &[&str], at: usize) -> Entry {
        let steps = steps.iter().map(ToString::to_string).collect();
        Entry { operation: Operation::Upgrade, started_at: String::new(), steps, at, plan: state().to_json() }
    }

    const NAMES: [&str; 12] = [
        "fetch",
        "backup",
        "rehearse",
        "let-go",
        "snapshot",
        "migrate",
        "trial",
        "open",
        "smoke",
        "commit",
        "take-over",
        "tidy",
    ];

    #[test]
    fn the_step_is_the_one_that_the_journal_is_at() {
        for (at, step) in Step::ALL.into_iter().enumerate() {
            assert_eq!(read(&entry(&NAMES, at)), Ok((state(), step)));
        }
        assert_eq!(read(&entry(&NAMES, NAMES.len())).unwrap().1, Step::Tidy);
    }

    #[test]
    fn a_step_of_another_version_is_the_one_before_it() {
        let others = ["fetch", "let-go", "snapshot", "warm-up", "open", "polish", "commit"];
        assert_eq!(read(&entry(&others, 3)).unwrap().1, Step::Snapshot);
        assert!(is_past(&entry(&others, 3), Step::Snapshot) && !is_past(&entry(&others, 2), Step::Snapshot));
        assert_eq!(read(&entry(&others, 4)).unwrap().1, Step::Open);
        assert_eq!(read(&entry(&others, 5)).unwrap().1, Step::Open);
    }

    #[test]
    fn a_journal_without_the_steps_that_decide_is_not_understood() {
        assert!(read(&entry(&["fetch", "let-go", "commit"], 0)).unwrap_err().contains("open"));
        assert!(read(&entry(&["fetch", "open", "commit"], 0)).unwrap_err().contains("let-go"));
        assert!(read(&entry(&["let-go", "open"], 0)).unwrap_err().contains("commit"));
        let mut broken = entry(&NAMES, 0);
        broken.plan = json!({"direction": "sideways"});
        assert!(read(&broken).is_err());
    }

    #[test]
    fn a_trial_has_twice_what_it_took_within_limits() {
        let limit = |rehearsed| State { rehearsed_trial: rehearsed, ..state() }.trial_limit(Duration::from_secs(60));
        assert_eq!(limit(Some(0.3)), SHORTEST_TRIAL);
        assert_eq!(limit(Some(10.0)), Duration::from_secs(20));
        assert_eq!(limit(Some(100.0)), Duration::from_secs(60));
        assert_eq!(limit(None), UNREHEARSED_TRIAL);
        assert_eq!(limit(Some(f64::NAN)), UNREHEARSED_TRIAL);
    }
}

//! The steps of an upgrade in order, and the state that the journal stores. `run.rs` runs them.

mod migrate;
mod prepare;
mod rehearse;
mod smoke;
mod switch;

pub(super) use migrate::migrate;
pub(super) use prepare::{back_up, fetch};
pub(super) use rehearse::rehearse;
pub(super) use smoke::{smoke, try_candidate};
pub(super) use switch::{commit, open, pause, take_over, take_snapshot, tidy};

use super::plan::UpgradePlan;
use super::smoke::KnownFaults;
use leoflow_base::home::journal::Entry;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::time::Duration;

leoflow_base::words! {
    /// A step. Its name is written to the journal before the step begins.
    #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
    pub enum Step: name {
        Fetch = "fetch",
        Backup = "backup",
        Rehearse = "rehearse",
        /// Stops server and agent; from here on requests wait. If the release has a new PostgreSQL, also installs it
        /// and restarts the datastore with it. The name is that of older releases, which may read this journal too.
        Pause = "let-go",
        Snapshot = "snapshot",
        Migrate = "migrate",
        /// Runs the new release as a candidate server, which gets no public requests.
        Trial = "trial",
        /// Hands the listeners to the candidate server; from here on the new release may write data that the previous
        /// one does not understand.
        Open = "open",
        /// Tests the new release through the listeners.
        Smoke = "smoke",
        /// Switches to the new release: makes it the installed one.
        Commit = "commit",
        /// Makes the running supervisor exec the new release's program.
        TakeOver = "take-over",
        /// Frees disk space.
        Tidy = "tidy",
    }
}

impl Step {
    /// The text shown while the step runs.
    pub fn title(self) -> &'static str {
        match self {
            Self::Fetch => "Fetching the release",
            Self::Backup => "Backing up",
            Self::Rehearse => "Rehearsing with the backup",
            Self::Pause => "Pausing; tasks continue, requests wait",
            Self::Snapshot => "Copying the database",
            Self::Migrate => "Migrating",
            Self::Trial => "Testing the candidate server",
            Self::Open => "Handing over the listeners",
            Self::Smoke => "Smoke test",
            Self::Commit => "Making it the installed release",
            Self::TakeOver => "Replacing the supervisor",
            Self::Tidy => "Tidying up",
        }
    }
}

/// The direction of the schema change.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// To a newer release; its migrations are applied.
    Up,
    /// To an older release in `versions/`; migrations that it does not know are undone.
    Down,
}

/// The journal's plan: everything that another process needs to resume the upgrade.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct State {
    pub direction: Direction,
    pub plan: UpgradePlan,
    /// The name of the database snapshot.
    pub snapshot: String,
    pub new_program: PathBuf,
    /// True when `new_program` existed before the upgrade.
    #[serde(rename = "had_program")]
    pub program_existed: bool,
    pub backup: Option<PathBuf>,
    /// Folder of the PostgreSQL that was installed for the upgrade.
    pub new_postgres: Option<PathBuf>,
    pub migrations_run: Vec<String>,
    /// Expected wait of requests in seconds, from the rehearsal.
    pub expected_pause: Option<f64>,
    /// Seconds that the candidate server took in the rehearsal to start and pass its checks.
    pub rehearsed_trial: Option<f64>,
    #[serde(default)]
    pub known_faults: KnownFaults,
    /// Why the new release's migrations are being undone.
    #[serde(rename = "leaving")]
    pub undo_reason: Option<String>,
}

/// Minimum time limit for a candidate server to start and pass its checks, even if `upgrade.max_pause` has passed.
const MIN_TRIAL: Duration = Duration::from_secs(10);

impl State {
    /// The state as stored in the journal.
    pub fn to_json(&self) -> serde_json::Value {
        // This cannot fail: `home::resolve` refuses a home whose path is not UTF-8.
        serde_json::to_value(self).unwrap_or_default()
    }

    /// The pause that the rehearsal predicted, for a message; empty without a rehearsal.
    pub(super) fn expected_pause_text(&self) -> String {
        self.expected_pause.map(|seconds| format!(" (expected: {seconds:.1} s)")).unwrap_or_default()
    }

    /// Time limit for the candidate server on the live database while requests wait, which they have done for `paused`:
    /// twice its time in the rehearsal or, without a rehearsal, as in a rollback, what is left of `max_pause`; in both
    /// cases at least a quarter of `max_pause`, and `MIN_TRIAL`.
    pub fn trial_limit(&self, max_pause: Duration, paused: Duration) -> Duration {
        let twice = self.rehearsed_trial.and_then(|seconds| Duration::try_from_secs_f64(2.0 * seconds).ok());
        twice.unwrap_or_else(|| max_pause.saturating_sub(paused)).max(max_pause / 4).max(MIN_TRIAL)
    }
}

/// Why the journal of a change of release is not understood.
#[derive(Debug, thiserror::Error)]
pub enum UnknownChange {
    #[error(transparent)]
    State(#[from] serde_json::Error),
    #[error("the journal has no step {0}")]
    NoStep(&'static str),
}

/// Returns the state of an interrupted upgrade and the last started step. A step that only another version knows counts
/// as the step before it. Fails for a journal that this version does not understand.
pub fn read(entry: &Entry) -> Result<(State, Step), UnknownChange> {
    let state = serde_json::from_value(entry.plan.clone())?;
    for step in [Step::Pause, Step::Open, Step::Commit] {
        position(entry, step).ok_or(UnknownChange::NoStep(step.name()))?;
    }
    Ok((state, reached(entry)))
}

/// The index of a step in the journal; `None` if the version that wrote the journal does not have the step.
pub fn position(entry: &Entry, step: Step) -> Option<usize> {
    entry.steps.iter().position(|name| name == step.name())
}

/// True when a step is complete.
pub(crate) fn is_past(entry: &Entry, step: Step) -> bool {
    position(entry, step).is_some_and(|index| entry.at > index)
}

/// The last step that was started.
pub fn reached(entry: &Entry) -> Step {
    let is_started = |step: &Step| position(entry, *step).is_some_and(|index| entry.at >= index);
    Step::ALL.iter().copied().rfind(is_started).unwrap_or(Step::Fetch)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upgrade::release::source::ReleaseFile;
    use leoflow_base::home::journal::Operation;
    use semver::Version;
    use serde_json::json;

    fn state() -> State {
        let plan = UpgradePlan {
            from: Version::new(0, 1, 0),
            to: Version::new(0, 2, 0),
            live: true,
            schema_from: 3,
            schema_to: 4,
            migrations: Vec::new(),
            later: Vec::new(),
            program: ReleaseFile { url: String::new(), sha256: String::new(), size: 0 },
            components: Vec::new(),
            needs_bytes: 0,
            running_tasks: 0,
            warnings: Vec::new(),
            commit: None,
            notes: String::new(),
        };
        State {
            direction: Direction::Up,
            plan,
            snapshot: "before".to_owned(),
            new_program: "/bin/new".into(),
            program_existed: false,
            backup: None,
            new_postgres: None,
            migrations_run: Vec::new(),
            expected_pause: None,
            rehearsed_trial: None,
            known_faults: KnownFaults::default(),
            undo_reason: None,
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
    fn reads_the_step_at_the_journals_position() {
        for (index, step) in Step::ALL.iter().copied().enumerate() {
            assert_eq!(read(&entry(&NAMES, index)).unwrap(), (state(), step));
        }
        assert_eq!(read(&entry(&NAMES, NAMES.len())).unwrap().1, Step::Tidy);
    }

    #[test]
    fn an_unknown_step_counts_as_the_one_before_it() {
        let others = ["fetch", "let-go", "snapshot", "warm-up", "open", "polish", "commit"];
        assert_eq!(read(&entry(&others, 3)).unwrap().1, Step::Snapshot);
        assert!(is_past(&entry(&others, 3), Step::Snapshot) && !is_past(&entry(&others, 2), Step::Snapshot));
        assert_eq!(read(&entry(&others, 4)).unwrap().1, Step::Open);
        assert_eq!(read(&entry(&others, 5)).unwrap().1, Step::Open);
    }

    #[test]
    fn rejects_a_journal_without_the_deciding_steps() {
        for (steps, missing) in [
            (&["fetch", "let-go", "commit"][..], "open"),
            (&["fetch", "open", "commit"], "let-go"),
            (&["let-go", "open"], "commit"),
        ] {
            assert!(read(&entry(steps, 0)).unwrap_err().to_string().contains(missing));
        }
        let mut broken = entry(&NAMES, 0);
        broken.plan = json!({"direction": "sideways"});
        assert!(read(&broken).is_err());
    }

    #[test]
    fn a_candidate_gets_twice_its_rehearsed_time_or_the_rest() {
        let seconds = Duration::from_secs;
        let limit = |rehearsed, max_pause, paused| {
            State { rehearsed_trial: rehearsed, ..state() }.trial_limit(seconds(max_pause), seconds(paused))
        };
        assert_eq!(limit(Some(0.3), 60, 10), seconds(15));
        assert_eq!(limit(Some(10.0), 60, 10), seconds(20));
        assert_eq!(limit(Some(100.0), 600, 10), seconds(200));
        assert_eq!(limit(Some(0.3), 8, 1), MIN_TRIAL);
        assert_eq!(limit(None, 60, 10), seconds(50));
        assert_eq!(limit(Some(f64::NAN), 60, 10), seconds(50));
        assert_eq!(limit(None, 60, 58), seconds(15));
        assert_eq!(limit(None, 60, 70), seconds(15));
        assert_eq!(limit(None, 8, 7), MIN_TRIAL);
    }
}

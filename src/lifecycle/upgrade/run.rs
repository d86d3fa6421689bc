//! Runs an upgrade or a rollback: applies the plan step by step until the new release serves. After a failure, chooses
//! how `finish` ends the upgrade.

use super::UpgradeError;
use super::failure_policy::{self, FinishAction, Undo};
use super::finish::{self, Conclusion};
use super::outcome::{Outcome, Status};
use super::plan::Plan;
use super::release::source::Source;
use super::release::stage;
use super::rollback::{failed_release, snapshot};
use super::smoke::KnownFaults;
use super::steps::{self, Direction, State, Step};
use super::upgrade_context::{Notes, UpgradeContext};
use leoflow_base::home::Home;
use leoflow_base::home::journal::{Journal, Operation};
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::checkpoint;
use leoflow_postgres::install::acquire::Staged;
use std::time::Instant;

/// The origin of the target release.
#[derive(Debug, Clone, Copy)]
pub enum ReleaseSource<'a> {
    Fetched(&'a Source),
    /// A newer release that is still in `versions/`.
    RetainedNewer,
    /// An older release that is still in `versions/`, for a rollback.
    RetainedOlder,
}

impl ReleaseSource<'_> {
    fn direction(self) -> Direction {
        match self {
            Self::Fetched(_) | Self::RetainedNewer => Direction::Up,
            Self::RetainedOlder => Direction::Down,
        }
    }
}

/// Upgrades or rolls back according to `plan`. The caller holds the operation lock. If `cancelled` completes during the
/// steps before the pause, the upgrade is discarded; later, `cancelled` has no effect.
pub async fn upgrade(
    context: &mut UpgradeContext<'_>,
    plan: Plan,
    release_source: ReleaseSource<'_>,
    known: KnownFaults,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, UpgradeError> {
    let mut state = initial_state(context.home, plan, release_source.direction(), known);
    let steps = Step::ALL.map(|step| step.name().to_owned()).to_vec();
    let mut journal = Journal::begin_with(context.home, Operation::Upgrade, steps, state.to_json())?;
    let fault = context.run_steps(&mut journal, &mut state, release_source, cancelled).await.err();
    let action = match &fault {
        None => FinishAction::Complete,
        Some(fault) => context.action_after(fault, &mut journal, &mut state).await?,
    };
    let begun = Instant::now();
    let conclusion = finish::end(context, journal, &mut state, action).await?;
    if matches!(conclusion, Conclusion::SnapshotRestored | Conclusion::MigrationsUndone) {
        context.report_duration("Rolling back", begun);
        context.remember_failure(&state, fault.as_ref());
    }
    if matches!(&conclusion, Conclusion::Completed { .. }) && fault.is_none() {
        // Errors are ignored: a stale record only causes a warning.
        let _ = failed_release::clear(context.home, &state.plan.to);
    }
    Ok(context.outcome(&state, conclusion, fault))
}

/// The state before the first step.
fn initial_state(home: &Home, plan: Plan, direction: Direction, known_faults: KnownFaults) -> State {
    State {
        snapshot: snapshot::name(&plan.to),
        program_existed: stage::program_of(home, &plan.to).exists(),
        new_program: stage::program_of(home, &plan.to),
        direction,
        plan,
        backup: None,
        new_postgres: None,
        migrations_run: Vec::new(),
        expected_pause: None,
        rehearsed_trial: None,
        known_faults,
        undo_reason: None,
    }
}

impl UpgradeContext<'_> {
    /// Runs the steps until the new release serves and has passed the smoke test. `finish` runs the remaining steps,
    /// from `Step::Commit` on.
    async fn run_steps(
        &mut self,
        journal: &mut Journal,
        state: &mut State,
        release_source: ReleaseSource<'_>,
        cancelled: impl Future<Output = ()>,
    ) -> Result<(), UpgradeError> {
        let postgres = tokio::select! {
            prepared = self.prepare(journal, state, release_source) => prepared?,
            () = cancelled => return Err(UpgradeError::Cancelled),
        };
        snapshot::prepare(&self.access).await?;
        // Record the folder before the installation, so that a failed upgrade removes a partial installation too.
        state.new_postgres = postgres.as_ref().map(|staged| staged.target.clone());
        journal.set_plan(state.to_json())?;
        self.step(journal, Step::Pause, async |context| context.pause(postgres).await).await?;
        self.step(journal, Step::Snapshot, async |context| context.take_snapshot(state).await).await?;
        state.migrations_run =
            self.step(journal, Step::Migrate, async |context| context.change_schema(state).await).await?;
        journal.set_plan(state.to_json())?;
        self.step(journal, Step::Trial, async |context| context.try_candidate(state).await).await?;
        self.step(journal, Step::Open, async |context| Ok(context.host.open(&state.new_program)?)).await?;
        if !self.host.is_live() {
            // `Step::Smoke` has nothing to test: a stopped instance has no listeners. The candidate server was tested.
            return Ok(journal.advance()?);
        }
        self.report_pause(state);
        self.step(journal, Step::Smoke, async |context| context.test_through_listeners(state).await).await
    }

    /// Runs the steps before the pause, while the previous release serves. Returns the PostgreSQL to install, if the
    /// release has a new one.
    async fn prepare(
        &mut self,
        journal: &mut Journal,
        state: &mut State,
        release_source: ReleaseSource<'_>,
    ) -> Result<Option<Staged>, UpgradeError> {
        let plan = state.plan.clone();
        let postgres = match release_source {
            ReleaseSource::Fetched(source) => {
                self.step(journal, Step::Fetch, async |context| context.fetch(&plan, source).await).await?
            }
            ReleaseSource::RetainedNewer | ReleaseSource::RetainedOlder => {
                let about = stage::check(&state.new_program, &plan.to)?;
                // `Step::Fetch` has nothing to fetch: the release is in `versions/`.
                journal.advance()?;
                self.notes.commit = about.commit;
                None
            }
        };
        let backup_reason = if state.direction == Direction::Up { "upgrade" } else { "rollback" };
        let backup =
            self.step(journal, Step::Backup, async |context| context.create_backup(backup_reason).await).await?;
        state.backup = Some(backup.clone());
        journal.set_plan(state.to_json())?;
        match release_source {
            ReleaseSource::Fetched(_) | ReleaseSource::RetainedNewer => {
                let rehearsed =
                    self.step(journal, Step::Rehearse, async |context| context.rehearse(state, &backup).await);
                (state.expected_pause, state.rehearsed_trial) = rehearsed.await?.unzip();
            }
            // `Step::Rehearse` is skipped: if a rollback fails, the snapshot of the database is restored.
            ReleaseSource::RetainedOlder => journal.advance()?,
        }
        Ok(postgres)
    }

    /// Records that the upgrade to this release failed, so that the next upgrade to it shows a warning. Errors are
    /// ignored: only that warning is lost.
    fn remember_failure(&self, state: &State, fault: Option<&UpgradeError>) {
        let reason = fault.map(ToString::to_string).unwrap_or_default();
        let _ = match state.direction {
            Direction::Up => failed_release::remember(self.home, &state.plan.to, &reason),
            Direction::Down => Ok(()),
        };
    }

    /// Chooses and reports how the upgrade is ended after a failure.
    async fn action_after(
        &mut self,
        fault: &UpgradeError,
        journal: &mut Journal,
        state: &mut State,
    ) -> Result<FinishAction, UpgradeError> {
        let step = steps::reached(journal.entry());
        let may_undo = step >= Step::Open
            && state.direction == Direction::Up
            && state.plan.is_reversible()
            && !self.no_rollback
            && finish::can_undo_migrations(self, state).await;
        let undo = if may_undo { Undo::Possible } else { Undo::Impossible };
        let action = failure_policy::after_failure(step, undo);
        let consequence = match action {
            FinishAction::Discard => None,
            FinishAction::RestoreSnapshot | FinishAction::UndoMigrations => Some("rolling back"),
            FinishAction::Complete => Some("the new release stays"),
        };
        if let Some(consequence) = consequence {
            self.reporter.report(Progress::Warning(format!("{fault}; {consequence}")));
        }
        if action == FinishAction::RestoreSnapshot {
            // If the failure was a journal write, the next step may be on disk nevertheless. Write the current step
            // again, so that a process that resumes the upgrade chooses the same action. The rollback proceeds even if
            // this write fails, as on a full disk.
            let _ = journal.set_at(journal.entry().at);
        }
        if action == FinishAction::UndoMigrations {
            state.undo_reason = Some(fault.to_string());
            journal.set_plan(state.to_json())?;
            checkpoint("upgrade.leaving");
        }
        Ok(action)
    }

    /// Runs a step, reports its duration and records it as done.
    pub async fn step<T>(
        &mut self,
        journal: &mut Journal,
        step: Step,
        act: impl AsyncFnOnce(&mut Self) -> Result<T, UpgradeError>,
    ) -> Result<T, UpgradeError> {
        let begun = Instant::now();
        self.reporter.report(Progress::Started(step.title().to_owned()));
        let output = act(self).await?;
        self.report_duration(step.title(), begun);
        journal.advance()?;
        Ok(output)
    }

    fn report_duration(&mut self, title: &str, begun: Instant) {
        let line = format!("{title}... {:.1} s", begun.elapsed().as_secs_f64());
        self.reporter.report(Progress::Finished(line.clone()));
        self.notes.details.push(line);
    }

    /// The result to report.
    fn outcome(&mut self, state: &State, conclusion: Conclusion, fault: Option<UpgradeError>) -> Outcome {
        let is_discarded = matches!(conclusion, Conclusion::Discarded);
        let (status, fault) = match (conclusion, state.direction) {
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
        let Notes { details, commit, pause, .. } = std::mem::take(&mut self.notes);
        let commit = commit.filter(|_| !is_discarded);
        Outcome {
            status,
            previous_version: state.plan.from.to_string(),
            new_version: state.plan.to.to_string(),
            commit,
            migrations_run: state.migrations_run.clone(),
            backup_path: state.backup.clone(),
            details,
            notes: Vec::new(),
            expected_pause: state.expected_pause,
            pause: pause.map(|pause| pause.as_secs_f64()),
            problem_text: fault.as_ref().map(ToString::to_string),
            error: fault,
        }
    }
}

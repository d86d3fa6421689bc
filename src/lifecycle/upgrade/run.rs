//! Runs an upgrade or a rollback: the twelve steps in order. If one fails, `finish` discards the upgrade, restores the
//! previous state or keeps the new release.

use super::UpgradeError;
use super::finish::{self, Conclusion};
use super::outcome::Outcome;
use super::plan::UpgradePlan;
use super::release::source::Source;
use super::release::stage;
use super::rollback::snapshot;
use super::smoke::KnownFaults;
use super::step_runner::StepRunner;
use super::steps::{self, Direction, State, Step};
use super::upgrade_context::UpgradeContext;
use leoflow_base::home::{Home, failed_release};
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

impl<'a> ReleaseSource<'a> {
    fn direction(self) -> Direction {
        match self {
            Self::Fetched(_) | Self::RetainedNewer => Direction::Up,
            Self::RetainedOlder => Direction::Down,
        }
    }

    /// The host of a release that is not in `versions/`.
    fn host(self) -> Option<&'a Source> {
        match self {
            Self::Fetched(source) => Some(source),
            Self::RetainedNewer | Self::RetainedOlder => None,
        }
    }
}

/// Upgrades or rolls back according to `plan`. The caller holds the operation lock. If `cancelled` completes during the
/// steps before the pause, the upgrade is discarded; later, `cancelled` has no effect.
pub async fn upgrade(
    context: UpgradeContext<'_>,
    plan: UpgradePlan,
    release_source: ReleaseSource<'_>,
    known: KnownFaults,
    cancelled: impl Future<Output = ()>,
) -> Result<Outcome, UpgradeError> {
    let state = initial_state(context.home, plan, release_source.direction(), known);
    let mut run = StepRunner::begin(context, state)?;
    match run_steps(&mut run, release_source.host(), cancelled).await {
        Ok(exit_error) => {
            // Errors are ignored: a stale record only causes a warning.
            let _ = failed_release::clear(run.context.home, &run.state.plan.to);
            Ok(Outcome::new(run, Conclusion::Completed { exit_error }, None))
        }
        // The journal stays, so that the next command or start repeats the step.
        Err(fault) if run.reached() >= Step::Commit => Err(fault),
        Err(fault) => end_after_failure(run, fault).await,
    }
}

/// Runs the steps in order. Returns an error inside `Ok` if the supervisor exited while it was being replaced, so that
/// the instance no longer runs.
async fn run_steps(
    run: &mut StepRunner<'_>,
    host: Option<&Source>,
    cancelled: impl Future<Output = ()>,
) -> Result<Option<UpgradeError>, UpgradeError> {
    // The previous release serves during the first three steps.
    let before_pause = async {
        let postgres = steps::fetch(run, host).await?;
        let backup = steps::back_up(run).await?;
        steps::rehearse(run, &backup).await?;
        Ok::<_, UpgradeError>(postgres)
    };
    let postgres = tokio::select! {
        prepared = before_pause => prepared?,
        () = cancelled => return Err(UpgradeError::Cancelled),
    };
    // Requests wait.
    steps::pause(run, postgres).await?;
    steps::take_snapshot(run).await?;
    steps::migrate(run).await?;
    steps::try_candidate(run).await?;
    // The new release serves. `finish` repeats the steps from `commit` on after an interruption.
    steps::open(run).await?;
    steps::smoke(run).await?;
    finish::install(run).await
}

/// The state before the first step.
fn initial_state(home: &Home, plan: UpgradePlan, direction: Direction, known_faults: KnownFaults) -> State {
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

/// Ends the upgrade after a step failed before `Step::Commit`.
async fn end_after_failure(mut run: StepRunner<'_>, fault: UpgradeError) -> Result<Outcome, UpgradeError> {
    // A start by the new program would otherwise repeat the backup and the rehearsal each time.
    let may_pass = matches!(
        fault,
        UpgradeError::Cancelled
            | UpgradeError::Postgres(_)
            | UpgradeError::Journal(_)
            | UpgradeError::Read { .. }
            | UpgradeError::Write { .. }
    );
    if run.reached() == Step::Rehearse && !may_pass {
        remember_failure(&run, &fault);
    }
    let action = finish::action_after(&mut run, &fault).await?;
    let begun = Instant::now();
    let conclusion = finish::end(&mut run, action).await?;
    if matches!(conclusion, Conclusion::SnapshotRestored | Conclusion::MigrationsUndone) {
        run.report_duration("Rolling back", begun);
        remember_failure(&run, &fault);
    }
    Ok(Outcome::new(run, conclusion, Some(fault)))
}

/// Records that the upgrade to this release failed, so that the next upgrade to it shows a warning. Errors are ignored:
/// only that warning is lost.
fn remember_failure(run: &StepRunner<'_>, fault: &UpgradeError) {
    if run.state.direction == Direction::Up {
        let _ = failed_release::remember(run.context.home, &run.state.plan.to, &fault.to_string());
    }
}

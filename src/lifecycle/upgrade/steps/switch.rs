//! Pause, snapshot, open, commit, take-over and tidy: the steps from the pause on, without the migration, the trial and
//! the smoke test.

use super::{Direction, State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::host::HostError;
use crate::upgrade::installed::make_installed;
use crate::upgrade::release::versions;
use crate::upgrade::rollback::history::{self, Change, Kind, Snapshot};
use crate::upgrade::rollback::snapshot;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::protocol::web::chain;
use leoflow_base::sys::clock;
use leoflow_base::sys::fs::files;
use leoflow_postgres::acquire::Staged;
use std::time::Instant;

/// Stops server and agent. If the release has a new PostgreSQL, installs it and restarts the datastore with it.
pub async fn pause(run: &mut StepRunner<'_>, postgres: Option<Staged>) -> Result<(), UpgradeError> {
    snapshot::prepare(&run.context.access).await?;
    // Record the folder before the installation, so that a failed upgrade removes a partial installation too.
    run.state.new_postgres = postgres.as_ref().map(|staged| staged.target.clone());
    run.save_state()?;
    run.step(Step::Pause, async |context, _| {
        context.notes.paused = Some(Instant::now());
        context.host.pause()?;
        let Some(staged) = postgres else { return Ok(()) };
        let failed = |reason: String| UpgradeError::Component { name: "postgres".to_owned(), reason };
        staged.commit(context.home).map_err(|error| failed(chain(&error)))?;
        Ok(context.host.restart_datastore(context.home, &mut context.access).await?)
    })
    .await
}

/// Records and reports how long requests waited.
pub fn report_pause(context: &mut UpgradeContext<'_>, state: &State) {
    let pause = context.notes.paused.map(|paused| paused.elapsed()).unwrap_or_default();
    context.notes.pause = Some(pause);
    context.reporter.note(format!("the pause took {:.1} s{}", pause.as_secs_f64(), state.expected_pause_text()));
}

/// Takes the snapshot of the database.
pub async fn take_snapshot(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Snapshot, async |context, state| {
        Ok(snapshot::take(context.home, &context.access, &state.snapshot).await?)
    })
    .await
}

/// Lets the new release serve. From here on it may write data that the previous one does not understand.
pub async fn open(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Open, async |context, state| Ok(context.host.open(&state.new_program)?)).await
}

/// Points the links in `bin/` at the new release, then records its version and the change in the history. Idempotent.
pub async fn commit(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Commit, async |context, state| make_installed(context.home, change(context, state))).await
}

/// The entry of the history.
fn change(context: &UpgradeContext<'_>, state: &State) -> Change {
    let plan = &state.plan;
    let kind = match state.direction {
        Direction::Up => Kind::Upgrade,
        Direction::Down => Kind::Rollback,
    };
    let schema = (plan.schema_from, plan.schema_to);
    let mut change = Change::now(kind, (&plan.from, &plan.to), schema, state.backup.clone());
    let keep = i64::try_from(context.config.upgrade.keep_snapshot.as_secs()).unwrap_or(i64::MAX);
    let until = clock::unix_seconds().saturating_add(keep);
    change.pause = context.notes.pause.map(|pause| pause.as_secs_f64());
    change.snapshot = Some(Snapshot { database: state.snapshot.clone(), until });
    change
}

/// Replaces the supervisor's program. Returns an error inside `Ok` if the supervisor exited meanwhile, so that the
/// instance no longer runs.
pub async fn take_over(run: &mut StepRunner<'_>) -> Result<Option<UpgradeError>, UpgradeError> {
    if !run.context.host.is_live() {
        return run.skip(Step::TakeOver).map(|()| None);
    }
    run.step(Step::TakeOver, async |context, state| Ok(replace_supervisor(context, state))).await
}

/// Returns the error if the supervisor exited.
fn replace_supervisor(context: &mut UpgradeContext<'_>, state: &State) -> Option<UpgradeError> {
    let version = state.plan.to.to_string();
    let error = context.host.replace_supervisor(context.home, &state.new_program, &version).err()?;
    if matches!(error, HostError::SupervisorExited(_)) {
        return Some(error.into());
    }
    // The old supervisor keeps running with the new children; the next start replaces it.
    let text = format!("{error}; run `leoflow lite restart` to replace the supervisor");
    context.reporter.warn(text);
    None
}

/// Removes the downloads, older snapshots and versions over the limit. The next upgrade retries any removal that fails
/// here.
pub async fn tidy(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Tidy, async |context, state| {
        let home = context.home;
        let _ = files::remove_any(&home.upgrade().join("download"));
        if snapshot::drop_others(home, &context.access, Some(&state.snapshot)).await.is_ok() {
            let _ = history::forget_snapshots(home, Some(&state.snapshot));
        }
        let mut needed = vec![state.plan.to.clone(), state.plan.from.clone()];
        needed.extend(history::rollback_target(&history::history(home), &state.plan.to));
        versions::remove_over_limit(home, &needed, context.config.upgrade.keep_versions);
        Ok(())
    })
    .await
}

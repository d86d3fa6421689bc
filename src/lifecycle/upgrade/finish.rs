//! Ends an upgrade after a failure or an interruption: discards it, restores the previous state, undoes the migrations,
//! or repeats the last steps. If this process dies meanwhile, another one can resume.

use super::failure_policy::{self, FinishAction, Undo};
use super::release::{program, stage};
use super::rollback::{snapshot, undo_migrations};
use super::step_runner::StepRunner;
use super::steps::{self, Direction, State, Step};
use super::upgrade_context::UpgradeContext;
use super::{UpgradeError, totals};
use crate::backup::restore;
use crate::setup;
use leoflow_base::home::RESTORED;
use leoflow_base::sys::checkpoint;
use leoflow_base::sys::fs::files;
use leoflow_postgres::schema;
use std::fs;

/// How an upgrade was finished.
#[derive(Debug)]
pub enum Conclusion {
    Discarded,
    SnapshotRestored,
    MigrationsUndone,
    /// The migrations could not be undone (reported as a warning), so the new release stays. `exit_error` as in
    /// `Completed`.
    UndoFailed {
        exit_error: Option<UpgradeError>,
    },
    /// The new release is installed. `exit_error` is set if the supervisor exited while it was being replaced, so that
    /// the instance no longer runs.
    Completed {
        exit_error: Option<UpgradeError>,
    },
}

/// Chooses and reports how the upgrade is ended after a failure.
pub(super) async fn action_after(run: &mut StepRunner<'_>, fault: &UpgradeError) -> Result<FinishAction, UpgradeError> {
    let (step, context, state) = (run.reached(), &run.context, &run.state);
    let may_undo = step >= Step::Open
        && state.direction == Direction::Up
        && state.plan.is_reversible()
        && !context.no_rollback
        && undo_migrations::is_possible(&context.access, state.plan.schema_from).await;
    let undo = if may_undo { Undo::Possible } else { Undo::Impossible };
    let action = failure_policy::after_failure(step, undo);
    let consequence = match action {
        FinishAction::Discard => None,
        FinishAction::RestoreSnapshot | FinishAction::UndoMigrations => Some("rolling back"),
        FinishAction::Complete => Some("the new release stays"),
    };
    if let Some(consequence) = consequence {
        context.reporter.warn(format!("{fault}; {consequence}"));
    }
    if action == FinishAction::RestoreSnapshot {
        // If the failure was a journal write, the next step may be on disk nevertheless. Write the current step again,
        // so that a process that resumes the upgrade chooses the same action. The rollback proceeds even if this write
        // fails, as on a full disk.
        let _ = run.journal.set_at(run.journal.entry().at);
    }
    if action == FinishAction::UndoMigrations {
        run.state.undo_reason = Some(fault.to_string());
        run.save_state()?;
        checkpoint("upgrade.leaving");
    }
    Ok(action)
}

/// Ends the upgrade by `action`, then removes the journal. Until then, any process that finds the journal can resume.
pub async fn end(run: &mut StepRunner<'_>, action: FinishAction) -> Result<Conclusion, UpgradeError> {
    match action {
        FinishAction::Discard => {
            remove_new_program(&run.context, &run.state);
            // Remove the rehearsal before the journal, which names the database of a partial snapshot.
            remove_rehearsal(&run.context, &run.state).await;
            run.journal.remove()?;
            Ok(Conclusion::Discarded)
        }
        FinishAction::RestoreSnapshot => {
            let snapshot_is_complete = steps::is_past(run.journal.entry(), Step::Snapshot);
            restore_previous(&mut run.context, &run.state, snapshot_is_complete).await?;
            run.journal.remove()?;
            Ok(Conclusion::SnapshotRestored)
        }
        FinishAction::UndoMigrations => match undo_and_start_previous(&mut run.context, &run.state).await {
            Ok(()) => {
                run.journal.remove()?;
                Ok(Conclusion::MigrationsUndone)
            }
            Err(fault) if fault.is_schema_fault() => {
                keep_new_release(run, &fault).await?;
                Ok(Conclusion::UndoFailed { exit_error: complete(run).await? })
            }
            // The journal stays, so that the next command or start retries.
            Err(fault) => Err(fault),
        },
        FinishAction::Complete => Ok(Conclusion::Completed { exit_error: complete(run).await? }),
    }
}

/// Switches to the new release, which already has the listeners: runs the steps from `Step::Commit` on as `run.rs` does.
/// The journal may be at any step from `Step::Open` on; finished steps are repeated.
async fn complete(run: &mut StepRunner<'_>) -> Result<Option<UpgradeError>, UpgradeError> {
    run.go_to(Step::Commit)?;
    install(run).await
}

/// Makes the new release the installed one: the steps from `Step::Commit` on. Returns the error if its program exited.
pub(super) async fn install(run: &mut StepRunner<'_>) -> Result<Option<UpgradeError>, UpgradeError> {
    steps::commit(run).await?;
    let exit_error = steps::take_over(run).await?;
    steps::tidy(run).await?;
    run.journal.finish()?;
    Ok(exit_error)
}

/// Restores the snapshot and starts the previous release. Without a complete snapshot the database is still unchanged,
/// so only the partial snapshot is discarded.
async fn restore_previous(
    context: &mut UpgradeContext<'_>,
    state: &State,
    snapshot_is_complete: bool,
) -> Result<(), UpgradeError> {
    stop_all_but_datastore(context, state).await?;
    if snapshot_is_complete {
        let was_restored = snapshot::restore(context.home, &context.access, &state.snapshot).await?;
        // If an earlier attempt has restored the snapshot, the snapshot is gone and the schema is the old one.
        if !was_restored && current_schema_version(context).await? != state.plan.schema_from {
            return Err(UpgradeError::NoSnapshot(state.snapshot.clone()));
        }
        // No task ran since the snapshot, so the folders of running tasks belong to it, unless a restore came before.
        let owner_file = context.home.running_tasks_datastore();
        if fs::read(&owner_file).is_ok_and(|owner| owner != RESTORED) {
            files::remove_any(&owner_file).map_err(|source| UpgradeError::Write { path: owner_file, source })?;
        }
        totals::warn_if_changed(context, &context.notes.totals).await;
    } else {
        snapshot::discard(context.home, &context.access, &state.snapshot).await?;
    }
    checkpoint("upgrade.put-back");
    context.host.start_previous()?;
    tidy_failed(context).await;
    Ok(())
}

/// Undoes the new release's migrations and starts the previous release; newer data stays.
async fn undo_and_start_previous(context: &mut UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    stop_all_but_datastore(context, state).await?;
    // If the totals cannot be read, they are not compared: that must not prevent the rollback.
    let before = totals::read(context, None).await.unwrap_or_default();
    undo_migrations::undo(&context.access, state.plan.schema_from).await?;
    totals::warn_if_changed(context, &before).await;
    checkpoint("upgrade.undone");
    // A development build may run outside `versions/`.
    let from = &state.plan.from;
    if stage::program_of(context.home, from).exists() {
        let write_error = |source| UpgradeError::Write { path: context.home.bin(), source };
        setup::link(context.home, &from.to_string()).map_err(write_error)?;
    }
    context.host.start_previous()?;
    if let Err(error) = snapshot::remove(context.home, &context.access, &state.snapshot).await {
        context.reporter.warn(format!("cannot drop the database snapshot: {error}"));
    }
    Ok(())
}

/// Keeps the new release because not all of its migrations can be undone. Applies the already undone ones again.
async fn keep_new_release(run: &mut StepRunner<'_>, fault: &UpgradeError) -> Result<(), UpgradeError> {
    run.context.reporter.warn(format!("cannot roll back the upgrade: {fault}"));
    run.state.undo_reason = None;
    run.save_state()?;
    program::migrate(&run.state.new_program, run.context.home, None)?;
    // If the release fails to start, `lite status` shows the reason.
    let _ = run.context.host.open(&run.state.new_program);
    Ok(())
}

async fn current_schema_version(context: &UpgradeContext<'_>) -> Result<i64, UpgradeError> {
    let client = context.access.connect(&context.access.application()).await?;
    Ok(schema::current_version(&client).await?)
}

/// Stops everything but the datastore. If the upgrade installed a new PostgreSQL, removes it and restarts the datastore
/// on the previous one.
async fn stop_all_but_datastore(context: &mut UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    if state.new_postgres.as_ref().is_some_and(|folder| folder.exists()) {
        // The new PostgreSQL may be the cause of the failure.
        context.host.stop_all()?;
        remove_new_postgres(state)?;
        context.host.restart_datastore(context.home, &mut context.access).await?;
    }
    Ok(context.host.stop_all_but_datastore()?)
}

/// Removes the PostgreSQL that was installed for the upgrade. No process may run from it.
pub(crate) fn remove_new_postgres(state: &State) -> Result<(), UpgradeError> {
    let Some(folder) = state.new_postgres.as_ref().filter(|folder| folder.exists()) else { return Ok(()) };
    // The folder is renamed first, so that a half-removed folder never counts as complete.
    let renamed = files::temporary_neighbour(folder);
    files::rename_durably(folder, &renamed).map_err(|source| UpgradeError::Write { path: folder.clone(), source })?;
    // A leftover only takes disk space.
    let _ = files::remove_any(&renamed);
    Ok(())
}

/// Drops the database of the failed upgrade, which `snapshot::restore` has renamed.
async fn tidy_failed(context: &UpgradeContext<'_>) {
    if let Err(error) = snapshot::clean_up(&context.access).await {
        context.reporter.warn(format!("cannot drop the database of the failed upgrade: {error}"));
    }
}

/// Removes the leftovers of an interrupted rehearsal. The next command or start finds the rehearsal's folder and
/// retries any removal that fails here.
async fn remove_rehearsal(context: &UpgradeContext<'_>, state: &State) {
    let warn = |error: String| {
        context.reporter.warn(format!("cannot remove the leftovers of the rehearsal: {error}"));
    };
    // Discard the snapshot first: while it is being copied, its template, the rehearsal's database, cannot be dropped.
    if let Err(error) = snapshot::discard(context.home, &context.access, &state.snapshot).await {
        warn(error.to_string());
    }
    if let Err(error) = restore::remove_restore_leftovers(context.home, Some(&context.access)).await {
        warn(error.to_string());
    }
}

/// Removes the program of an upgrade that was not completed.
fn remove_new_program(context: &UpgradeContext<'_>, state: &State) {
    if !state.program_existed {
        // A leftover only takes disk space.
        let _ = files::remove_any(&context.home.versions().join(state.plan.to.to_string()));
    }
}

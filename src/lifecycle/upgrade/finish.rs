//! Finishes an upgrade: discards it, restores the previous state, undoes the migrations, or switches to the new release
//! (`complete`). If this process dies meanwhile, another one can resume.

use super::UpgradeError;
use super::failure_policy::FinishAction;
use super::release::{program, stage};
use super::rollback::history::{self, Change, Kind, Snapshot};
use super::rollback::snapshot;
use super::steps::{self, Direction, State, Step};
use super::upgrade_context::UpgradeContext;
use crate::backup::restore;
use crate::setup;
use leoflow_base::home::journal::Journal;
use leoflow_base::home::progress::Progress;
use leoflow_base::protocol::control;
use leoflow_base::sys::fs::files;
use leoflow_base::sys::{checkpoint, clock};
use leoflow_postgres::schema::{self, Extent, SchemaError};

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

/// Ends the upgrade by `action`, then removes the journal. Until then, any process that finds the journal can resume.
pub async fn end(
    context: &mut UpgradeContext<'_>,
    mut journal: Journal,
    state: &mut State,
    action: FinishAction,
) -> Result<Conclusion, UpgradeError> {
    match action {
        FinishAction::Discard => {
            remove_new_program(context, state);
            // Remove the rehearsal before the journal, which names the database of a partial snapshot.
            remove_rehearsal(context, state).await;
            journal.remove()?;
            Ok(Conclusion::Discarded)
        }
        FinishAction::RestoreSnapshot => {
            restore_previous(context, state, steps::is_past(journal.entry(), Step::Snapshot)).await?;
            journal.remove()?;
            Ok(Conclusion::SnapshotRestored)
        }
        FinishAction::UndoMigrations => match undo_and_start_previous(context, state).await {
            Ok(()) => {
                journal.remove()?;
                Ok(Conclusion::MigrationsUndone)
            }
            Err(fault) if fault.is_schema_fault() => {
                keep_new_release(context, &mut journal, state, &fault).await?;
                let exit_error = complete(context, &mut journal, state).await?;
                journal.finish()?;
                Ok(Conclusion::UndoFailed { exit_error })
            }
            // The journal stays, so that the next command or start retries.
            Err(fault) => Err(fault),
        },
        FinishAction::Complete => {
            let exit_error = complete(context, &mut journal, state).await?;
            journal.finish()?;
            Ok(Conclusion::Completed { exit_error })
        }
    }
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
        context.warn_of_changed_totals(&context.notes.totals).await;
    } else {
        snapshot::discard(context.home, &context.access, &state.snapshot).await?;
    }
    checkpoint("upgrade.put-back");
    context.host.start_previous()?;
    tidy_failed(context).await;
    Ok(())
}

/// True when the migrations can be undone. A rollback checks this before it stops anything.
pub(crate) async fn can_undo_migrations(context: &UpgradeContext<'_>, state: &State) -> bool {
    let check = async {
        let client = context.access.connect(&context.access.application()).await?;
        schema::to_undo(&client, Extent::DownTo(state.plan.schema_from)).await
    };
    matches!(check.await, Ok(_) | Err(SchemaError::NothingToUndo))
}

/// Undoes the new release's migrations and starts the previous release; newer data stays.
async fn undo_and_start_previous(context: &mut UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    stop_all_but_datastore(context, state).await?;
    // If the totals cannot be read, they are not compared: that must not prevent the rollback.
    let before = context.totals(None).await.unwrap_or_default();
    undo_migrations(context, state.plan.schema_from).await?;
    context.warn_of_changed_totals(&before).await;
    checkpoint("upgrade.undone");
    // A development build may run outside `versions/`.
    let from = &state.plan.from;
    if stage::program_of(context.home, from).exists() {
        let write_error = |source| UpgradeError::Write { path: context.home.bin(), source };
        setup::link(context.home, &from.to_string()).map_err(write_error)?;
    }
    context.host.start_previous()?;
    if let Err(error) = snapshot::remove(context.home, &context.access, &state.snapshot).await {
        let text = format!("cannot drop the database snapshot: {error}");
        context.reporter.report(Progress::Warning(text));
    }
    Ok(())
}

/// Keeps the new release because not all of its migrations can be undone. Applies the already undone ones again.
async fn keep_new_release(
    context: &mut UpgradeContext<'_>,
    journal: &mut Journal,
    state: &mut State,
    fault: &UpgradeError,
) -> Result<(), UpgradeError> {
    context.reporter.report(Progress::Warning(format!("cannot roll back the upgrade: {fault}")));
    state.undo_reason = None;
    journal.set_plan(state.to_json())?;
    program::migrate(&state.new_program, context.home, None)?;
    // If the release fails to start, `lite status` shows the reason.
    let _ = context.host.open(&state.new_program);
    Ok(())
}

async fn current_schema_version(context: &UpgradeContext<'_>) -> Result<i64, UpgradeError> {
    let client = context.access.connect(&context.access.application()).await?;
    Ok(schema::classify::database_version(&schema::inspect(&client).await?))
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
pub fn remove_new_postgres(state: &State) -> Result<(), UpgradeError> {
    let Some(folder) = state.new_postgres.as_ref().filter(|folder| folder.exists()) else { return Ok(()) };
    // The folder is renamed first, so that a half-removed folder never counts as complete.
    let renamed = files::temporary_neighbour(folder);
    files::rename_durably(folder, &renamed).map_err(|source| UpgradeError::Write { path: folder.clone(), source })?;
    // A leftover only takes disk space.
    let _ = files::remove_any(&renamed);
    Ok(())
}

/// Undoes every migration above `schema` with the SQL in the ledger.
pub(crate) async fn undo_migrations(context: &UpgradeContext<'_>, schema: i64) -> Result<Vec<String>, UpgradeError> {
    let login = context.access.application();
    let (lock, mut client) = (context.access.connect(&login).await?, context.access.connect(&login).await?);
    match schema::rollback(&lock, &mut client, Extent::DownTo(schema), &mut |_| {}).await {
        Ok(undone) => Ok(undone.undone),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// Switches to the new release, which already has the listeners: runs `Step::Commit` and the steps after it. The
/// journal may be at any step from `Step::Open` on; finished steps are repeated. Returns an error inside `Ok` if the
/// supervisor exited while it was being replaced, so that the instance no longer runs.
async fn complete(
    context: &mut UpgradeContext<'_>,
    journal: &mut Journal,
    state: &State,
) -> Result<Option<UpgradeError>, UpgradeError> {
    let to = state.plan.to.clone();
    let mut exit_error = None;
    journal.set_at(steps::position(journal.entry(), Step::Commit).unwrap_or(Step::Commit as usize))?;
    context.step(journal, Step::Commit, async |context| commit(context, state)).await?;
    let is_live = context.host.is_live();
    if is_live {
        context
            .step(journal, Step::TakeOver, async |context| {
                let Err(error) = context.host.replace_supervisor(context.home, &state.new_program, &to.to_string())
                else {
                    return Ok(());
                };
                if control::status_of(context.home).is_none() {
                    exit_error = Some(error.into());
                    return Ok(());
                }
                // The old supervisor keeps running with the new children; the next start replaces it.
                let text = format!("{error}; run `leoflow lite restart` to replace the supervisor");
                context.reporter.report(Progress::Warning(text));
                Ok(())
            })
            .await?;
    } else {
        // A stopped instance has no supervisor to replace.
        journal.advance()?;
    }
    context
        .step(journal, Step::Tidy, async |context| {
            tidy(context, state).await;
            Ok(())
        })
        .await?;
    Ok(exit_error)
}

/// Makes the new release the installed one: points the links in `bin/` at it, then records its version and the change
/// in the history.
fn commit(context: &UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    let plan = &state.plan;
    let write_error = |source| UpgradeError::Write { path: context.home.bin(), source };
    setup::link(context.home, &plan.to.to_string()).map_err(write_error)?;
    checkpoint("upgrade.linked");
    setup::record_version(context.home, &plan.to.to_string())?;
    let is_recorded =
        history::last_change_to(context.home, &plan.to).is_some_and(|change| change.backup == state.backup);
    if !is_recorded {
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
        history::add(context.home, change)
            .map_err(|source| UpgradeError::Write { path: context.home.upgrade(), source })?;
    }
    Ok(())
}

/// Frees disk space. The next upgrade retries any removal that fails here.
async fn tidy(context: &UpgradeContext<'_>, state: &State) {
    let _ = files::remove_any(&context.home.upgrade().join("download"));
    if snapshot::drop_others(context.home, &context.access, Some(&state.snapshot)).await.is_ok() {
        let _ = history::forget_snapshots(context.home, Some(&state.snapshot));
    }
    let mut needed = vec![state.plan.to.clone(), state.plan.from.clone()];
    needed.extend(history::rollback_target(&history::history(context.home), &state.plan.to));
    super::release::versions::remove_over_limit(context.home, &needed, context.config.upgrade.keep_versions);
}

/// Drops the database of the failed upgrade, which `snapshot::restore` has renamed.
async fn tidy_failed(context: &UpgradeContext<'_>) {
    if let Err(error) = snapshot::clean_up(&context.access).await {
        let text = format!("cannot drop the database of the failed upgrade: {error}");
        context.reporter.report(Progress::Warning(text));
    }
}

/// Removes the leftovers of an interrupted rehearsal. The next command or start finds the rehearsal's folder and
/// retries any removal that fails here.
async fn remove_rehearsal(context: &UpgradeContext<'_>, state: &State) {
    let warn = |error: String| {
        context.reporter.report(Progress::Warning(format!("cannot remove the leftovers of the rehearsal: {error}")));
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

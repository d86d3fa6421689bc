//! The ends that an upgrade can come to, each of which can be gone on with by another process: back to what was
//! before, away from what has failed, or complete.

use super::record::{self, Change, Snapshot};
use super::run::Work;
use super::steps::{State, Step};
use super::{UpgradeError, snapshot};
use crate::home::journal::Journal;
use crate::home::progress::Progress;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::{checkpoint, clock, files};
use semver::Version;

/// The database from before comes back, and the release from before runs again.
pub async fn go_back(work: &mut Work<'_>, state: &State) -> Result<(), UpgradeError> {
    work.ground.back_down()?;
    take_back_postgres(work, state).await?;
    snapshot::put_back(&work.access, &state.snapshot).await?;
    checkpoint("upgrade.put-back");
    work.ground.back_up()?;
    tidy_failed(work).await;
    Ok(())
}

/// The new release's migrations are undone, and the release from before runs again: what was written
/// meanwhile stays.
pub async fn leave(work: &mut Work<'_>, state: &State) -> Result<(), UpgradeError> {
    work.ground.back_down()?;
    take_back_postgres(work, state).await?;
    undo_migrations(work, state.plan.schema_from).await?;
    checkpoint("upgrade.undone");
    setup::link(work.home, &state.plan.from.to_string())
        .map_err(|source| UpgradeError::Write { path: work.home.bin(), source })?;
    work.ground.back_up()?;
    snapshot::drop_others(&work.access, None).await?;
    Ok(())
}

async fn take_back_postgres(work: &mut Work<'_>, state: &State) -> Result<(), UpgradeError> {
    let Some(folder) = state.new_postgres.as_ref().filter(|folder| folder.exists()) else { return Ok(()) };
    // Aside first, so that what is half removed is never taken for complete.
    let aside = files::temporary_neighbour(folder);
    files::rename_durably(folder, &aside).map_err(|source| UpgradeError::Write { path: folder.clone(), source })?;
    work.ground.restart_datastore(work.home, &mut work.access).await?;
    // What stays is in nobody's way.
    let _ = files::remove_any(&aside);
    Ok(())
}

/// Undoes every migration above `schema` by the SQL in the ledger.
pub async fn undo_migrations(work: &Work<'_>, schema: i64) -> Result<Vec<String>, UpgradeError> {
    let login = work.access.application();
    let (lock, mut client) = (work.access.connect(&login).await?, work.access.connect(&login).await?);
    match schema::rollback(&lock, &mut client, Extent::DownTo(schema), &mut |_| {}).await {
        Ok(undone) => Ok(undone.undone),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error) => Err(error.into()),
    }
}

/// The steps after the new release has the listeners. The journal may be at any of them.
pub async fn complete(work: &mut Work<'_>, journal: &mut Journal, state: &State) -> Result<(), UpgradeError> {
    let to = state.plan.to.clone();
    journal.set_at(position(Step::Commit))?;
    work.step(journal, Step::Commit, async |work| commit(work, state)).await?;
    let live = work.ground.is_live();
    if live {
        work.step(journal, Step::TakeOver, async |work| {
            if let Err(error) = work.ground.take_over(work.home, &state.new_program, &to.to_string()) {
                // The old supervisor goes on with the new children; the next start replaces it.
                let text = format!("{error}; `leoflow lite restart` replaces the supervisor");
                work.reporter.report(Progress::Warning(text));
            }
            Ok(())
        })
        .await?;
    } else {
        journal.advance()?;
    }
    work.step(journal, Step::Tidy, async |work| {
        tidy(work, state).await;
        Ok(())
    })
    .await
}

fn position(step: Step) -> usize {
    Step::ALL.iter().position(|other| *other == step).unwrap_or(0)
}

fn commit(work: &Work<'_>, state: &State) -> Result<(), UpgradeError> {
    let plan = &state.plan;
    let write = |source| UpgradeError::Write { path: work.home.bin(), source };
    setup::link(work.home, &plan.to.to_string()).map_err(write)?;
    checkpoint("upgrade.linked");
    setup::note_version(work.home, &plan.to.to_string())?;
    let is_recorded = record::led_to(work.home, &plan.to).is_some_and(|change| change.backup == state.backup);
    if !is_recorded {
        let mut change = Change::now(&plan.from, &plan.to, (plan.schema_from, plan.schema_to), state.backup.clone());
        let keep = i64::try_from(work.config.upgrade.keep_snapshot.as_secs()).unwrap_or(i64::MAX);
        let until = clock::unix_seconds().saturating_add(keep);
        change.snapshot = Some(Snapshot { database: state.snapshot.clone(), until });
        record::add(work.home, change).map_err(|source| UpgradeError::Write { path: work.home.upgrade(), source })?;
    }
    Ok(())
}

/// What only costs room. What resists is tried again by the next one.
async fn tidy(work: &Work<'_>, state: &State) {
    let _ = files::remove_any(&work.home.upgrade().join("download"));
    if snapshot::drop_others(&work.access, Some(&state.snapshot)).await.is_ok() {
        let _ = record::forget_snapshots(work.home, Some(&state.snapshot));
    }
    super::versions::remove_over_limit(work.home, &state.plan.to, &state.plan.from, work.config.upgrade.keep_versions);
}

async fn tidy_failed(work: &Work<'_>) {
    if let Err(error) = snapshot::clean_up(&work.access).await {
        let text = format!("the database that the upgrade failed with cannot be dropped: {error}");
        work.reporter.report(Progress::Warning(text));
    }
}

/// What an upgrade has put there that never came into force.
pub fn forget_program(work: &Work<'_>, version: &Version) {
    if setup::installed_version(work.home).as_deref() != Some(version.to_string().as_str()) {
        let _ = files::remove_any(&work.home.versions().join(version.to_string()));
    }
}

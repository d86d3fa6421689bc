//! The ends that an upgrade can come to, each of which can be gone on with by another process: back to what was
//! before, away from what has failed, or complete.

use super::ending::Ending;
use super::history::{self, Change, Kind, Snapshot};
use super::steps::{self, Direction, State, Step};
use super::work::Work;
use super::{UpgradeError, program, snapshot, stage};
use crate::backup::restore;
use crate::home::journal::Journal;
use crate::home::progress::Progress;
use crate::protocol::control;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::{checkpoint, clock, files};

/// What came of an end.
#[derive(Debug)]
pub enum Ended {
    Forgotten,
    WentBack,
    Left,
    /// It could not be left, for what is said before; `lost` is as below.
    Stayed {
        lost: Option<UpgradeError>,
    },
    /// `lost` is why the instance does not run any more, when its supervisor was lost on the way.
    Completed {
        lost: Option<UpgradeError>,
    },
}

/// Brings it to that end. Any process may go on with it that finds the journal; once it is through, there is no
/// journal any more.
pub async fn end(
    work: &mut Work<'_>,
    mut journal: Journal,
    state: &mut State,
    ending: Ending,
) -> Result<Ended, UpgradeError> {
    match ending {
        Ending::Forget => {
            forget_program(work, state);
            // Its journal is what reminds of them.
            forget_rehearsal(work, state).await;
            journal.remove()?;
            Ok(Ended::Forgotten)
        }
        Ending::GoBack => {
            go_back(work, state, steps::is_past(journal.entry(), Step::Snapshot)).await?;
            journal.remove()?;
            Ok(Ended::WentBack)
        }
        Ending::Leave => match leave(work, state).await {
            Ok(()) => {
                journal.remove()?;
                Ok(Ended::Left)
            }
            Err(fault) if fault.is_of_the_schema() => {
                stay(work, &mut journal, state, &fault).await?;
                let lost = complete(work, &mut journal, state).await?;
                journal.finish()?;
                Ok(Ended::Stayed { lost })
            }
            // Anything else is tried again, by whoever takes it up.
            Err(fault) => Err(fault),
        },
        Ending::Complete => {
            let lost = complete(work, &mut journal, state).await?;
            journal.finish()?;
            Ok(Ended::Completed { lost })
        }
    }
}

/// The database from before comes back, and the release from before runs again. `copied` is whether the copy of it
/// was complete: before that the database was not touched.
async fn go_back(work: &mut Work<'_>, state: &State, copied: bool) -> Result<(), UpgradeError> {
    back_down(work, state).await?;
    if copied {
        let put_back = snapshot::put_back(work.home, &work.access, &state.snapshot).await?;
        // Gone already when this is done a second time; then the schema is the old one.
        if !put_back && schema_now(work).await? != state.plan.schema_from {
            return Err(UpgradeError::NoSnapshot(state.snapshot.clone()));
        }
    } else {
        snapshot::forget(work.home, &work.access, &state.snapshot).await?;
    }
    checkpoint("upgrade.put-back");
    work.host.back_up()?;
    tidy_failed(work).await;
    Ok(())
}

/// Whether `leave` could undo the migrations, asked before anything is stopped for it.
pub async fn can_leave(work: &Work<'_>, state: &State) -> bool {
    let asked = async {
        let client = work.access.connect(&work.access.application()).await?;
        schema::to_undo(&client, Extent::DownTo(state.plan.schema_from)).await
    };
    matches!(asked.await, Ok(_) | Err(SchemaError::NothingToUndo))
}

/// The new release's migrations are undone, and the release from before runs again: what was written
/// meanwhile stays.
async fn leave(work: &mut Work<'_>, state: &State) -> Result<(), UpgradeError> {
    back_down(work, state).await?;
    undo_migrations(work, state.plan.schema_from).await?;
    checkpoint("upgrade.undone");
    // A development build may run from elsewhere.
    let from = &state.plan.from;
    if stage::program_of(work.home, from).exists() {
        let write = |source| UpgradeError::Write { path: work.home.bin(), source };
        setup::link(work.home, &from.to_string()).map_err(write)?;
    }
    work.host.back_up()?;
    if let Err(error) = snapshot::remove(work.home, &work.access, &state.snapshot).await {
        let text = format!("the copy of the database from before cannot be dropped: {error}");
        work.reporter.report(Progress::Warning(text));
    }
    Ok(())
}

/// The new release cannot be left after all: it stays, whatever is wrong with it. What was undone of its migrations
/// before one could not be is applied again.
async fn stay(
    work: &mut Work<'_>,
    journal: &mut Journal,
    state: &mut State,
    fault: &UpgradeError,
) -> Result<(), UpgradeError> {
    work.reporter.report(Progress::Warning(format!("it cannot be gone back from: {fault}")));
    state.leaving = None;
    journal.set_plan(state.to_json())?;
    program::migrate(&state.new_program, work.home, None)?;
    // One that fails is told by the status.
    let _ = work.host.open(&state.new_program);
    Ok(())
}

async fn schema_now(work: &Work<'_>) -> Result<i64, UpgradeError> {
    let client = work.access.connect(&work.access.application()).await?;
    Ok(schema::classify::database_version(&schema::inspect(&client).await?))
}

/// Nothing but the datastore is up, with the PostgreSQL from before.
async fn back_down(work: &mut Work<'_>, state: &State) -> Result<(), UpgradeError> {
    if state.new_postgres.as_ref().is_some_and(|folder| folder.exists()) {
        // It may be the one that does not start.
        work.host.all_down()?;
        take_back_postgres(state)?;
        work.host.restart_datastore(work.home, &mut work.access).await?;
    }
    Ok(work.host.back_down()?)
}

/// Takes away the PostgreSQL that was installed for the upgrade. Nothing may run from it.
pub fn take_back_postgres(state: &State) -> Result<(), UpgradeError> {
    let Some(folder) = state.new_postgres.as_ref().filter(|folder| folder.exists()) else { return Ok(()) };
    // Aside first, so that what is half removed is never taken for complete.
    let aside = files::temporary_neighbour(folder);
    files::rename_durably(folder, &aside).map_err(|source| UpgradeError::Write { path: folder.clone(), source })?;
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

/// The steps after the new release has the listeners. The journal may be at any of them. Returns why the
/// instance does not run any more, when its supervisor was lost on the way.
async fn complete(
    work: &mut Work<'_>,
    journal: &mut Journal,
    state: &State,
) -> Result<Option<UpgradeError>, UpgradeError> {
    let to = state.plan.to.clone();
    let mut lost = None;
    journal.set_at(steps::position(journal.entry(), Step::Commit).unwrap_or(Step::Commit as usize))?;
    work.step(journal, Step::Commit, async |work| commit(work, state)).await?;
    let live = work.host.is_live();
    if live {
        work.step(journal, Step::TakeOver, async |work| {
            let Err(error) = work.host.take_over(work.home, &state.new_program, &to.to_string()) else {
                return Ok(());
            };
            if control::status_of(work.home).is_none() {
                lost = Some(error.into());
                return Ok(());
            }
            // The old supervisor goes on with the new children; the next start replaces it.
            let text = format!("{error}; `leoflow lite restart` replaces the supervisor");
            work.reporter.report(Progress::Warning(text));
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
    .await?;
    Ok(lost)
}

fn commit(work: &Work<'_>, state: &State) -> Result<(), UpgradeError> {
    let plan = &state.plan;
    let write = |source| UpgradeError::Write { path: work.home.bin(), source };
    setup::link(work.home, &plan.to.to_string()).map_err(write)?;
    checkpoint("upgrade.linked");
    setup::note_version(work.home, &plan.to.to_string())?;
    let is_recorded = history::last_to(work.home, &plan.to).is_some_and(|change| change.backup == state.backup);
    if !is_recorded {
        let kind = match state.direction {
            Direction::Up => Kind::Upgrade,
            Direction::Down => Kind::Rollback,
        };
        let schema = (plan.schema_from, plan.schema_to);
        let mut change = Change::now(kind, (&plan.from, &plan.to), schema, state.backup.clone());
        let keep = i64::try_from(work.config.upgrade.keep_snapshot.as_secs()).unwrap_or(i64::MAX);
        let until = clock::unix_seconds().saturating_add(keep);
        change.pause = work.notes.pause.map(|pause| pause.as_secs_f64());
        change.snapshot = Some(Snapshot { database: state.snapshot.clone(), until });
        history::add(work.home, change).map_err(|source| UpgradeError::Write { path: work.home.upgrade(), source })?;
    }
    Ok(())
}

/// What only costs room. What resists is tried again by the next one.
async fn tidy(work: &Work<'_>, state: &State) {
    let _ = files::remove_any(&work.home.upgrade().join("download"));
    if snapshot::drop_others(work.home, &work.access, Some(&state.snapshot)).await.is_ok() {
        let _ = history::forget_snapshots(work.home, Some(&state.snapshot));
    }
    let mut needed = vec![state.plan.to.clone(), state.plan.from.clone()];
    needed.extend(history::next_back(&history::history(work.home), &state.plan.to));
    super::versions::remove_over_limit(work.home, &needed, work.config.upgrade.keep_versions);
}

async fn tidy_failed(work: &Work<'_>) {
    if let Err(error) = snapshot::clean_up(&work.access).await {
        let text = format!("the database that the upgrade failed with cannot be dropped: {error}");
        work.reporter.report(Progress::Warning(text));
    }
}

/// What a rehearsal has left that did not come to its end. What cannot be removed now is removed by the next who
/// comes: its folder reminds of it.
async fn forget_rehearsal(work: &Work<'_>, state: &State) {
    let told = |error: String| {
        work.reporter.report(Progress::Warning(format!("what the rehearsal left cannot be removed: {error}")));
    };
    // First: a copy that is still being made holds what the other needs.
    if let Err(error) = snapshot::forget(work.home, &work.access, &state.snapshot).await {
        told(error.to_string());
    }
    if let Err(error) = restore::remove_strays(work.home, Some(&work.access)).await {
        told(error.to_string());
    }
}

/// What an upgrade has put there that never came into force.
fn forget_program(work: &Work<'_>, state: &State) {
    if !state.had_program {
        // What stays takes room and nothing else.
        let _ = files::remove_any(&work.home.versions().join(state.plan.to.to_string()));
    }
}

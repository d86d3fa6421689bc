//! Migrates the live database while requests wait, or undoes migrations for a rollback.

use super::{Direction, State, Step};
use crate::upgrade::release::program::{self, ProgramError};
use crate::upgrade::rollback::undo_migrations;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use crate::upgrade::{UpgradeError, totals};
use leoflow_base::sys::blocking;
use std::time::Duration;

/// Minimum time that a migration gets, even if `upgrade.max_pause` has passed.
const MIN_LIMIT: Duration = Duration::from_secs(1);
/// Interval between progress messages during a long pause.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

/// Applies the migrations, or undoes them for a rollback, and compares the totals. Records the files.
pub async fn migrate(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Migrate, async |context, state| {
        state.migrations_run = change_schema(context, state).await?;
        Ok(())
    })
    .await?;
    Ok(run.save_state()?)
}

async fn change_schema(context: &mut UpgradeContext<'_>, state: &State) -> Result<Vec<String>, UpgradeError> {
    // Without migrations the data does not change, so skip the totals while requests wait.
    let before = match state.direction {
        Direction::Up if state.plan.migrations.is_empty() => Vec::new(),
        _ => totals::read(context, None).await?,
    };
    // If the migration fails, the totals of the restored snapshot are compared with these.
    context.notes.totals.clone_from(&before);
    let changed = match state.direction {
        Direction::Up => migrate_within_pause(context, state).await,
        Direction::Down => undo_migrations::undo(&context.access, state.plan.schema_to).await,
    }?;
    match state.direction {
        Direction::Up => totals::require_unchanged(context, &before, None).await?,
        // The rollback SQL of older schemas changes the state of waiting task instances, so a difference is no fault.
        Direction::Down => totals::warn_if_changed(context, &before).await,
    }
    Ok(changed)
}

/// Migrates and returns the applied files. Reports how long requests have waited, and cancels a migration that exceeds
/// `upgrade.max_pause`.
async fn migrate_within_pause(context: &UpgradeContext<'_>, state: &State) -> Result<Vec<String>, UpgradeError> {
    let paused = context.notes.paused.filter(|_| context.host.is_live());
    let Some(paused) = paused else { return Ok(program::migrate(&state.new_program, context.home, None)?) };
    let max_pause = context.config.upgrade.max_pause;
    let remaining = max_pause.saturating_sub(paused.elapsed()).max(MIN_LIMIT);
    let (program, home) = (state.new_program.clone(), context.home.clone());
    // The kernel kills the migration when the thread that started it ends, so that thread waits for it.
    let mut migration = blocking::begin(move || program::migrate_within(&program, &home, None, remaining));
    let migrated = loop {
        tokio::select! {
            migrated = &mut migration => break migrated,
            () = tokio::time::sleep(REPORT_INTERVAL) => {
                context.reporter.note(format!(
                    "requests have waited for {} s{}; the upgrade is rolled back after {} s",
                    paused.elapsed().as_secs(),
                    state.expected_pause_text(),
                    max_pause.as_secs()
                ));
            }
        }
    };
    let migrated = migrated.map_err(|error| ProgramError::Migration(error.to_string()))?;
    Ok(migrated.map_err(|error| match error {
        ProgramError::TooSlow { .. } => ProgramError::TooSlow { limit: max_pause },
        other => other,
    })?)
}

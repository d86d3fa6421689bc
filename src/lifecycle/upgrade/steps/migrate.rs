//! Migrates the live database while requests wait.

use super::State;
use crate::upgrade::UpgradeError;
use crate::upgrade::release::program;
use crate::upgrade::release::program::ProgramError;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;
use leoflow_base::sys::blocking;
use std::time::Duration;

/// Minimum time that a migration gets, even if `upgrade.max_pause` has passed.
const MIN_LIMIT: Duration = Duration::from_secs(1);
/// Interval between progress messages during a long pause.
const REPORT_INTERVAL: Duration = Duration::from_secs(5);

impl UpgradeContext<'_> {
    /// Migrates and returns the applied files. Reports how long requests have waited, and cancels a migration that
    /// exceeds `upgrade.max_pause`.
    pub(in crate::upgrade) async fn migrate(&mut self, state: &State) -> Result<Vec<String>, UpgradeError> {
        let paused = self.notes.paused.filter(|_| self.host.is_live());
        let Some(paused) = paused else { return Ok(program::migrate(&state.new_program, self.home, None)?) };
        let max_pause = self.config.upgrade.max_pause;
        let remaining = max_pause.saturating_sub(paused.elapsed()).max(MIN_LIMIT);
        let (program, home) = (state.new_program.clone(), self.home.clone());
        // The kernel kills the migration when the thread that started it ends, so that thread waits for it.
        let mut migration = blocking::begin(move || program::migrate_within(&program, &home, None, remaining));
        let migrated = loop {
            tokio::select! {
                migrated = &mut migration => break migrated,
                () = tokio::time::sleep(REPORT_INTERVAL) => {
                    let expected = state.expected_pause.map(|seconds| format!(" (expected: {seconds:.1} s)"));
                    self.reporter.report(Progress::Note(format!(
                        "requests have waited for {} s{}; the upgrade is rolled back after {} s",
                        paused.elapsed().as_secs(),
                        expected.unwrap_or_default(),
                        max_pause.as_secs()
                    )));
                }
            }
        };
        let migrated = migrated.map_err(|error| ProgramError::Migration(error.to_string()))?;
        Ok(migrated.map_err(|error| match error {
            ProgramError::TooSlow { .. } => ProgramError::TooSlow { limit: max_pause },
            other => other,
        })?)
    }
}

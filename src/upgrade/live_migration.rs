//! The migration of the live database, while requests wait.

use super::program::ProgramError;
use super::steps::State;
use super::work::Work;
use super::{UpgradeError, program};
use crate::home::progress::Progress;
use crate::sys::blocking;
use std::time::Duration;

/// A migration has at least so long.
const SHORTEST: Duration = Duration::from_secs(1);
/// Between two words on a pause that lasts.
const TELL_AGAIN: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// Reports how long requests have waited, and ends what takes longer than `upgrade.max_pause`.
    pub(super) async fn migrate(&mut self, state: &State) -> Result<Vec<String>, UpgradeError> {
        let paused = self.notes.paused.filter(|_| self.host.is_live());
        let Some(paused) = paused else { return Ok(program::migrate(&state.new_program, self.home, None)?) };
        let most = self.config.upgrade.max_pause;
        let left = most.saturating_sub(paused.elapsed()).max(SHORTEST);
        let (program, home) = (state.new_program.clone(), self.home.clone());
        // It dies with the thread that started it, which stays until it has ended.
        let mut migrated = blocking::begin(move || program::migrate_within(&program, &home, None, left));
        let migrated = loop {
            tokio::select! {
                migrated = &mut migrated => break migrated,
                () = tokio::time::sleep(TELL_AGAIN) => {
                    let expected = state.expected_pause.map(|seconds| format!(", {seconds:.1} s were expected"));
                    self.reporter.report(Progress::Note(format!(
                        "requests have waited for {} s{}; the upgrade is taken back after {} s",
                        paused.elapsed().as_secs(),
                        expected.unwrap_or_default(),
                        most.as_secs()
                    )));
                }
            }
        };
        let migrated = migrated.map_err(|error| ProgramError::Migration(error.to_string()))?;
        Ok(migrated.map_err(|error| match error {
            ProgramError::TooSlow { .. } => ProgramError::TooSlow { limit: most },
            other => other,
        })?)
    }
}

//! The migration of the live database, while requests wait.

use super::steps::State;
use super::work::Work;
use super::{UpgradeError, program};
use crate::home::progress::Progress;
use crate::sys::blocking;
use std::time::Duration;

/// Between two words on a pause that lasts.
const TELL_AGAIN: Duration = Duration::from_secs(5);

impl Work<'_> {
    /// While requests wait, somebody watches.
    pub(super) async fn migrate(&mut self, state: &State) -> Result<Vec<String>, UpgradeError> {
        let paused = self.notes.paused.filter(|_| self.host.is_live());
        let Some(paused) = paused else { return Ok(program::migrate(&state.new_program, self.home, None)?) };
        let most = self.config.upgrade.max_pause;
        let left = most.saturating_sub(paused.elapsed());
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
        let migrated = migrated.map_err(|error| program::ProgramError::Migration(error.to_string()))?;
        Ok(migrated?)
    }
}

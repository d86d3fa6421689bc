//! Backs up the instance before any change.

use super::{Direction, Step};
use crate::backup::create::automatic::{self, Automatic};
use crate::upgrade::UpgradeError;
use crate::upgrade::rollback::history;
use crate::upgrade::step_runner::StepRunner;
use std::path::PathBuf;

/// Creates and records a backup, even of an empty database: a rollback may restore it.
pub async fn back_up(run: &mut StepRunner<'_>) -> Result<PathBuf, UpgradeError> {
    let backup = run.step(Step::Backup, async |context, state| {
        let pinned = history::rollback_backups(context.home)
            .map_err(|source| UpgradeError::Read { path: context.home.upgrade(), source })?;
        let automatic_backup = Automatic {
            home: context.home,
            access: &context.access,
            config: context.config,
            version: context.own_version,
            pinned: &pinned,
            reporter: context.reporter,
        };
        let reason = if state.direction == Direction::Up { "upgrade" } else { "rollback" };
        Ok(automatic::create_even_if_empty(reason, &automatic_backup).await?.path)
    });
    let backup = backup.await?;
    run.state.backup = Some(backup.clone());
    run.save_state()?;
    Ok(backup)
}

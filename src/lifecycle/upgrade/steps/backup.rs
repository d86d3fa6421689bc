//! Backs up the instance before any change.

use super::{Direction, Step};
use crate::backup::create::automatic;
use crate::upgrade::UpgradeError;
use crate::upgrade::automatic_backup::automatic_backup;
use crate::upgrade::step_runner::StepRunner;
use std::path::PathBuf;

/// Creates and records a backup, even of an empty database: a rollback may restore it.
pub async fn back_up(run: &mut StepRunner<'_>) -> Result<PathBuf, UpgradeError> {
    let backup = run.step(Step::Backup, async |context, state| {
        let (home, own_version) = (context.home, context.own_version);
        let parameters = automatic_backup(home, &context.access, context.config, own_version, context.reporter)?;
        let reason = if state.direction == Direction::Up { "upgrade" } else { "rollback" };
        Ok(automatic::create_even_if_empty(reason, &parameters).await?.path)
    });
    let backup = backup.await?;
    run.state.backup = Some(backup.clone());
    run.save_state()?;
    Ok(backup)
}

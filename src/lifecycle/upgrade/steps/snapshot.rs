//! Copies the database while requests wait, so that a failure of the next steps loses nothing.

use super::Step;
use crate::upgrade::UpgradeError;
use crate::upgrade::rollback::snapshot;
use crate::upgrade::step_runner::StepRunner;

/// Takes the snapshot of the database.
pub async fn take_snapshot(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Snapshot, async |context, state| {
        Ok(snapshot::take(context.home, &context.access, &state.snapshot).await?)
    })
    .await
}

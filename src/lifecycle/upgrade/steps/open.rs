//! Hands the listeners to the candidate server.

use super::Step;
use crate::upgrade::UpgradeError;
use crate::upgrade::step_runner::StepRunner;

/// Lets the new release serve. From here on it may write data that the previous one does not understand.
pub async fn open(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Open, async |context, state| Ok(context.host.open(&state.new_program)?)).await
}

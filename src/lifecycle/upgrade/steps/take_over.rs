//! Makes the running supervisor exec the new release's program. Skipped for a stopped instance, which has none.

use super::{State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::host::HostError;
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;

/// Replaces the supervisor's program. Returns an error inside `Ok` if the supervisor exited meanwhile, so that the
/// instance no longer runs.
pub async fn take_over(run: &mut StepRunner<'_>) -> Result<Option<UpgradeError>, UpgradeError> {
    if !run.context.host.is_live() {
        return run.skip(Step::TakeOver).map(|()| None);
    }
    run.step(Step::TakeOver, async |context, state| Ok(replace_supervisor(context, state))).await
}

/// Returns the error if the supervisor exited.
fn replace_supervisor(context: &mut UpgradeContext<'_>, state: &State) -> Option<UpgradeError> {
    let version = state.plan.to.to_string();
    let error = context.host.replace_supervisor(context.home, &state.new_program, &version).err()?;
    if matches!(error, HostError::SupervisorExited(_)) {
        return Some(error.into());
    }
    // The old supervisor keeps running with the new children; the next start replaces it.
    let text = format!("{error}; run `leoflow lite restart` to replace the supervisor");
    context.reporter.report(Progress::Warning(text));
    None
}

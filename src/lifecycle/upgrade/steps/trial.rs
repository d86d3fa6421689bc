//! Runs the new release as a candidate server, which gets no public requests.

use super::smoke::{require_passed, smoke_of};
use super::{State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::release::program;
use crate::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;

/// Starts the candidate server and tests it over its private socket, because it has no listeners yet.
pub async fn try_candidate(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Trial, async |context, state| test_candidate(context, state).await).await
}

async fn test_candidate(context: &mut UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    let smoke = smoke_of(context, state, ServerEndpoint::Public);
    // Skip the comparison of import errors while requests wait. The rehearsal has made it, and the smoke test repeats it
    // after the handover.
    let known = KnownFaults { import_errors: None, ..smoke.known.clone() };
    let smoke = Smoke { known, ..smoke };
    let limit = state.trial_limit(program::trial_limit());
    let socket = context.host.start_candidate(&state.new_program, context.home, &smoke, limit).await?;
    let on_candidate = Smoke { endpoint: ServerEndpoint::Private(socket), ..smoke };
    let Ok(checks) = tokio::time::timeout(limit, on_candidate.candidate_checks()).await else {
        let reason = format!("the candidate server did not pass within {} s", limit.as_secs());
        return Err(UpgradeError::Smoke { reason, log: String::new() });
    };
    require_passed(context, &checks)
}

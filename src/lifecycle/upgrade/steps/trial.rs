//! Runs the new release as a candidate server, which gets no public requests.

use super::smoke::{require_passed, smoke_of};
use super::{State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::release::program;
use crate::upgrade::smoke::{KnownFaults, ServerEndpoint, Smoke};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;
use std::time::{Duration, Instant};

/// Minimum time for the checks of a candidate server that took nearly all of the time limit to start.
const MIN_CHECKS: Duration = Duration::from_secs(2);

/// Starts the candidate server and tests it over its private socket, because it has no listeners yet.
pub async fn try_candidate(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Trial, async |context, state| test_candidate(context, state).await).await
}

async fn test_candidate(context: &mut UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    let (limit, begun) = (trial_limit(context, state), Instant::now());
    let passed = start_and_check(context, state, limit).await;
    let is_limited_by_max_pause = context.host.is_live() && limit < program::trial_limit();
    if passed.is_err() && begun.elapsed() >= limit && is_limited_by_max_pause {
        let text = "the candidate server gets more time with a longer upgrade.max_pause";
        context.reporter.report(Progress::Note(text.to_owned()));
    }
    passed
}

/// Starts the candidate server and runs its checks, both together within `limit`.
async fn start_and_check(context: &mut UpgradeContext<'_>, state: &State, limit: Duration) -> Result<(), UpgradeError> {
    let begun = Instant::now();
    let smoke = smoke_of(context, state, ServerEndpoint::Public);
    // Skip the comparison of import errors while requests wait. The rehearsal has made it, and the smoke test repeats it
    // after the handover.
    let known = KnownFaults { import_errors: None, ..smoke.known.clone() };
    let smoke = Smoke { known, ..smoke };
    let socket = context.host.start_candidate(&state.new_program, context.home, &smoke, limit).await?;
    let on_candidate = Smoke { endpoint: ServerEndpoint::Private(socket), ..smoke };
    let remaining = limit.saturating_sub(begun.elapsed()).max(MIN_CHECKS);
    let Ok(checks) = tokio::time::timeout(remaining, on_candidate.candidate_checks()).await else {
        let seconds = begun.elapsed().as_secs();
        let reason = format!("the candidate server did not pass its checks within {seconds} s");
        return Err(UpgradeError::Smoke { reason, log: String::new() });
    };
    require_passed(context, &checks)
}

/// Time limit for the candidate server to start and pass its checks. If the instance is stopped, no request waits.
fn trial_limit(context: &UpgradeContext<'_>, state: &State) -> Duration {
    let max = program::trial_limit();
    let paused = context.notes.paused.filter(|_| context.host.is_live());
    paused.map_or(max, |paused| state.trial_limit(context.config.upgrade.max_pause, paused.elapsed()).min(max))
}

//! Tests the new release: as a candidate server, which gets no public requests, and through the public listeners.

use super::switch::report_pause;
use super::{State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::import_evidence::Releases;
use crate::upgrade::release::{program, stage};
use crate::upgrade::smoke::{self, KnownFaults, ServerEndpoint, Smoke};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::Home;
use leoflow_base::protocol::control;
use leoflow_base::sys::blocking;
use leoflow_engine::store::secret::variables;
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
        context.reporter.note("the candidate server gets more time with a longer upgrade.max_pause".to_owned());
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

/// Number of exits of the new server after which the smoke test fails.
const MAX_EXITS: u32 = 3;
/// Interval between questions for the number of exits.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the whole smoke test through the public listeners, which the new server has now. Skipped for a stopped instance,
/// which has none.
pub async fn smoke(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    if !run.context.host.is_live() {
        return run.skip(Step::Smoke);
    }
    report_pause(&mut run.context, &run.state);
    run.step(Step::Smoke, async |context, state| {
        let smoke = smoke_of(context, state, ServerEndpoint::Public);
        let checks = tokio::select! {
            checks = smoke.all_checks() => Ok(checks),
            reason = repeated_exits(context.home) => Err(reason),
        };
        let passed = match checks {
            Ok(checks) => require_passed(context, &checks),
            Err(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
        };
        if passed.is_err() {
            remove_variable(context).await;
        }
        passed
    })
    .await
}

/// Completes once the new server has exited `MAX_EXITS` times while the datastore runs, and returns the reason for a
/// failed smoke test. Each check would wait for such a server until its time limit, and so would all clients.
async fn repeated_exits(home: &Home) -> String {
    let mut before = None;
    loop {
        let asked = home.clone();
        if let Ok(Some(status)) = blocking::run(move || control::status_of(&asked)).await
            && let Some(server) = status.processes.iter().find(|process| process.name == "server")
        {
            // A server also exits if the datastore, which is the first process, has exited.
            let datastore = status.processes.first().and_then(|process| process.pid);
            match before {
                Some((pid, restarts)) if pid == datastore => {
                    if server.restarts.saturating_sub(restarts) >= MAX_EXITS {
                        let reason = status.reason.unwrap_or_default();
                        return format!("the server has exited {MAX_EXITS} times: {reason}");
                    }
                }
                _ => before = Some((datastore, server.restarts)),
            }
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
}

/// Removes the variable that a failed check may have left.
async fn remove_variable(context: &UpgradeContext<'_>) {
    let Ok(client) = context.access.connect(&context.access.application()).await else { return };
    // If this fails, the variable stays, which does no harm.
    let _ = variables::delete_prefixed(&client, smoke::VARIABLE_PREFIX).await;
}

/// A smoke test of the new release.
pub(super) fn smoke_of<'a>(context: &UpgradeContext<'a>, state: &State, endpoint: ServerEndpoint) -> Smoke<'a> {
    Smoke {
        config: context.config,
        endpoint,
        version: state.plan.to.to_string(),
        known: state.known_faults.clone(),
        releases: Some(stage::program_of(context.home, &state.plan.from))
            .filter(|before| before.is_file())
            .map(|before| Releases { home: context.home.clone(), before, new: state.new_program.clone() }),
        config_file: Some(context.home.config()),
    }
}

/// Fails if one of the checks failed.
fn require_passed(context: &UpgradeContext<'_>, checks: &[smoke::Check]) -> Result<(), UpgradeError> {
    match failure(context, checks) {
        Some(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
        None => Ok(()),
    }
}

/// Returns why a smoke test failed; other problems are reported as warnings.
pub(super) fn failure(context: &UpgradeContext<'_>, checks: &[smoke::Check]) -> Option<String> {
    smoke::warnings(checks).for_each(|text| context.reporter.warn(text));
    smoke::failure(checks)
}

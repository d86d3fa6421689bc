//! Tests the new release through the public listeners. Skipped for a stopped instance, which has none.

use super::{State, Step, pause};
use crate::upgrade::UpgradeError;
use crate::upgrade::import_evidence::Releases;
use crate::upgrade::release::stage;
use crate::upgrade::smoke::{self, ServerEndpoint, Smoke};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::Home;
use leoflow_base::home::progress::Progress;
use leoflow_base::protocol::control;
use leoflow_base::sys::blocking;
use leoflow_engine::store::secret::variables;
use std::time::Duration;

/// Number of exits of the new server after which the smoke test fails.
const MAX_EXITS: u32 = 3;
/// Interval between questions for the number of exits.
const STATUS_INTERVAL: Duration = Duration::from_millis(200);

/// Runs the whole smoke test through the public listeners, which the new server has now.
pub async fn smoke(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    if !run.context.host.is_live() {
        return run.skip(Step::Smoke);
    }
    pause::report_pause(&mut run.context, &run.state);
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
pub fn smoke_of<'a>(context: &UpgradeContext<'a>, state: &State, endpoint: ServerEndpoint) -> Smoke<'a> {
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
pub fn require_passed(context: &UpgradeContext<'_>, checks: &[smoke::Check]) -> Result<(), UpgradeError> {
    match failure(context, checks) {
        Some(reason) => Err(UpgradeError::Smoke { reason, log: String::new() }),
        None => Ok(()),
    }
}

/// Returns why a smoke test failed; other problems are reported as warnings.
pub fn failure(context: &UpgradeContext<'_>, checks: &[smoke::Check]) -> Option<String> {
    smoke::warnings(checks).for_each(|text| context.reporter.report(Progress::Warning(text)));
    smoke::failure(checks)
}

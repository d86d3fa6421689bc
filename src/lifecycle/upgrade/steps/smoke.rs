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
use std::time::Duration;

/// Name of the server among the supervisor's processes.
const SERVER: &str = "server";
/// Number of exits of the new server during the smoke test after which the upgrade is rolled back.
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
            checks = smoke.all_checks() => checks,
            reason = repeated_exits(context.home) => return Err(UpgradeError::Smoke { reason, log: String::new() }),
        };
        require_passed(context, &checks)
    })
    .await
}

/// Completes once the new server has exited `MAX_EXITS` times, and returns the reason for a failed smoke test. Each check
/// would wait for a server that exits again and again until its time limit, and so would all clients.
async fn repeated_exits(home: &Home) -> String {
    let mut restarts_before = None;
    loop {
        let asked = home.clone();
        let status = blocking::run(move || control::status_of(&asked)).await.ok().flatten();
        let server = status.and_then(|status| status.processes.into_iter().find(|process| process.name == SERVER));
        if let Some(server) = server {
            let before = *restarts_before.get_or_insert(server.restarts);
            if server.restarts.saturating_sub(before) >= MAX_EXITS {
                return format!("the server has exited {MAX_EXITS} times");
            }
        }
        tokio::time::sleep(STATUS_INTERVAL).await;
    }
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

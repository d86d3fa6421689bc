//! Tests the new release through the public listeners. Skipped for a stopped instance, which has none.

use super::{State, Step, pause};
use crate::upgrade::UpgradeError;
use crate::upgrade::import_evidence::Releases;
use crate::upgrade::release::stage;
use crate::upgrade::smoke::{self, ServerEndpoint, Smoke};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::home::progress::Progress;

/// Runs the whole smoke test through the public listeners, which the new server has now.
pub async fn smoke(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    if !run.context.host.is_live() {
        return run.skip(Step::Smoke);
    }
    pause::report_pause(&mut run.context, &run.state);
    run.step(Step::Smoke, async |context, state| {
        let checks = smoke_of(context, state, ServerEndpoint::Public).all_checks().await;
        require_passed(context, &checks)
    })
    .await
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

//! Frees disk space after the upgrade.

use super::Step;
use crate::upgrade::UpgradeError;
use crate::upgrade::release::versions;
use crate::upgrade::rollback::{history, snapshot};
use crate::upgrade::step_runner::StepRunner;
use leoflow_base::sys::fs::files;

/// Removes the downloads, older snapshots and versions over the limit. The next upgrade retries any removal that fails
/// here.
pub async fn tidy(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Tidy, async |context, state| {
        let home = context.home;
        let _ = files::remove_any(&home.upgrade().join("download"));
        if snapshot::drop_others(home, &context.access, Some(&state.snapshot)).await.is_ok() {
            let _ = history::forget_snapshots(home, Some(&state.snapshot));
        }
        let mut needed = vec![state.plan.to.clone(), state.plan.from.clone()];
        needed.extend(history::rollback_target(&history::history(home), &state.plan.to));
        versions::remove_over_limit(home, &needed, context.config.upgrade.keep_versions);
        Ok(())
    })
    .await
}

//! Makes the new release the installed one.

use super::{Direction, State, Step};
use crate::upgrade::UpgradeError;
use crate::upgrade::installed::make_installed;
use crate::upgrade::rollback::history::{Change, Kind, Snapshot};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::sys::clock;

/// Points the links in `bin/` at the new release, then records its version and the change in the history. Idempotent.
pub async fn commit(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Commit, async |context, state| make_installed(context.home, change(context, state))).await
}

/// The entry of the history.
fn change(context: &UpgradeContext<'_>, state: &State) -> Change {
    let plan = &state.plan;
    let kind = match state.direction {
        Direction::Up => Kind::Upgrade,
        Direction::Down => Kind::Rollback,
    };
    let schema = (plan.schema_from, plan.schema_to);
    let mut change = Change::now(kind, (&plan.from, &plan.to), schema, state.backup.clone());
    let keep = i64::try_from(context.config.upgrade.keep_snapshot.as_secs()).unwrap_or(i64::MAX);
    let until = clock::unix_seconds().saturating_add(keep);
    change.pause = context.notes.pause.map(|pause| pause.as_secs_f64());
    change.snapshot = Some(Snapshot { database: state.snapshot.clone(), until });
    change
}

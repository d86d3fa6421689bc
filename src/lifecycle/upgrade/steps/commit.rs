//! Makes the new release the installed one.

use super::{Direction, State, Step};
use crate::setup;
use crate::upgrade::UpgradeError;
use crate::upgrade::rollback::history::{self, Change, Kind, Snapshot};
use crate::upgrade::step_runner::StepRunner;
use crate::upgrade::upgrade_context::UpgradeContext;
use leoflow_base::sys::{checkpoint, clock};

/// Points the links in `bin/` at the new release, then records its version and the change in the history. Idempotent.
pub async fn commit(run: &mut StepRunner<'_>) -> Result<(), UpgradeError> {
    run.step(Step::Commit, async |context, state| install(context, state)).await
}

fn install(context: &UpgradeContext<'_>, state: &State) -> Result<(), UpgradeError> {
    let to = &state.plan.to;
    let write_error = |source| UpgradeError::Write { path: context.home.bin(), source };
    setup::link(context.home, &to.to_string()).map_err(write_error)?;
    checkpoint("upgrade.linked");
    setup::record_version(context.home, &to.to_string())?;
    let is_recorded = history::last_change_to(context.home, to).is_some_and(|change| change.backup == state.backup);
    if !is_recorded {
        history::add(context.home, change(context, state))
            .map_err(|source| UpgradeError::Write { path: context.home.upgrade(), source })?;
    }
    Ok(())
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

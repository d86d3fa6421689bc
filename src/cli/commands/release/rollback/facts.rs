//! Plans a rollback, before anything is changed.

use super::args::RollbackRelease;
use crate::commands::release::upgrade::gather_facts::{self, FactsAndDatastore};
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_lifecycle::upgrade::plan::{UpgradeFacts, UpgradePlan};
use leoflow_lifecycle::upgrade::rollback::capacity::Need;
use leoflow_lifecycle::upgrade::rollback::rollback_plan::RollbackPlan;
use leoflow_lifecycle::upgrade::rollback::target::{self, RollbackTarget};
use semver::Version;

/// The facts and the plan of a rollback.
pub struct PlannedRollback {
    pub to: Version,
    pub facts: UpgradeFacts,
    pub datastore: Datastore,
    pub plan: UpgradePlan,
    pub rollback_plan: RollbackPlan,
    /// The newest schema that the target release knows.
    pub own_schema_of_target: i64,
    pub needs: Vec<Need>,
    /// Seconds that requests waited during the last change of release; `None` if not measured.
    pub last_pause: Option<f64>,
}

/// Plans a rollback to `--to`, or to the release before the last upgrade.
pub async fn plan_rollback(context: &Context<'_>, args: &RollbackRelease) -> Result<PlannedRollback, Error> {
    let home = &context.home;
    let FactsAndDatastore { mut facts, datastore } = gather_facts::gather(context, "leoflow rollback").await?;
    if let Some(version) = target::version_of_last_change(home) {
        facts.installed = version;
    }
    let client = datastore.connect().await?;
    let RollbackTarget { to, plan, rollback_plan, own_schema } =
        RollbackTarget::find(home, &facts, &client, args.to.as_deref()).await?;
    let config = match rollback_plan {
        RollbackPlan::Undo { .. } => None,
        RollbackPlan::Restore { .. } => context.config()?.map(|loaded| loaded.config),
    };
    let needs = target::needs(home, &facts, &rollback_plan, config.as_ref())?;
    target::check_space(home, &facts, &needs)?;
    let last_pause = target::last_pause(home, &rollback_plan);
    Ok(PlannedRollback {
        to,
        facts,
        datastore,
        plan,
        rollback_plan,
        own_schema_of_target: own_schema,
        needs,
        last_pause,
    })
}

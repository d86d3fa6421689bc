//! Rollbacks to an earlier release: planned for the command, performed by the worker that it starts.

use super::change::Gathered;
use super::open::Datastore;
use super::{DryRun, OperationContext, OperationError};
use crate::upgrade::plan::{UpgradeFacts, UpgradePlan};
use crate::upgrade::rollback::capacity::Need;
use crate::upgrade::rollback::history::{self, Change};
use crate::upgrade::rollback::rollback_plan::RollbackPlan;
use crate::upgrade::rollback::rollback_record::Settled;
use crate::upgrade::rollback::target::{self, RollbackTarget, RollbackTargetError};
use leoflow_base::home::Home;
use semver::Version;
use std::path::PathBuf;

const COMMAND: &str = "leoflow rollback";

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

/// An interrupted rollback that is finished now.
pub struct Finished {
    pub from: Version,
    pub to: Version,
    /// The backup of the state before the rollback.
    pub backup: Option<PathBuf>,
    pub by: FinishedBy,
}

pub enum FinishedBy {
    ThisCommand,
    /// `further` is the release to go further back to.
    AnotherCommand {
        further: Option<Version>,
    },
}

impl OperationContext<'_> {
    /// Plans a rollback to the requested release, or to the one before the last upgrade.
    pub async fn plan_rollback(&self, requested: Option<&str>) -> Result<PlannedRollback, OperationError> {
        let home = self.home;
        let Gathered { mut facts, datastore } = Gathered::open(self, COMMAND).await?;
        if let Some(version) = target::version_of_last_change(home) {
            facts.installed = version;
        }
        let client = datastore.connect().await?;
        let RollbackTarget { to, plan, rollback_plan, own_schema } =
            RollbackTarget::find(home, &facts, &client, requested).await?;
        let config = match rollback_plan {
            RollbackPlan::Undo { .. } => None,
            RollbackPlan::Restore { .. } => self.config()?.map(|loaded| loaded.config),
        };
        let needs = target::needs(home, &facts, &rollback_plan, config.as_ref())?;
        target::check_space(home, &facts, &needs).map_err(RollbackTargetError::from)?;
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

    /// Finishes or undoes an interrupted change of release. Returns the rollback if this request is for the one that is now
    /// finished: the command has nothing else to do.
    pub async fn finish_interrupted_rollback(
        &self,
        requested: Option<&str>,
        dry_run: DryRun,
    ) -> Result<Option<Finished>, OperationError> {
        let home = self.home;
        if let Some(Settled::Finished(record)) = self.settle_rollback(dry_run).await? {
            let to = record.to.to_string();
            // This command finishes the interrupted rollback, and does not start another.
            if requested.is_none_or(|requested| requested.strip_prefix('v').unwrap_or(requested) == to) {
                mark_reported(home)?;
                let backup = record.backup_of_current_state.map(|path| home.root().join(path));
                return Ok(Some(Finished { from: record.from, to: record.to, backup, by: FinishedBy::ThisCommand }));
            }
        }
        self.settle_change(dry_run).await?;
        let changes = history::history(home);
        let Some(change) = history::finished_by_another(&changes).filter(|_| requested.is_none()) else {
            return Ok(None);
        };
        if dry_run == DryRun::No {
            mark_reported(home)?;
        }
        let Change { from, to, backup, .. } = change.clone();
        let further = history::rollback_target(&changes, &to);
        Ok(Some(Finished { from, to, backup, by: FinishedBy::AnotherCommand { further } }))
    }
}

/// Marks the finished rollback as reported, so that the next `rollback` goes further back.
fn mark_reported(home: &Home) -> Result<(), OperationError> {
    history::set_finished_by_another(home, history::Reported::Yes).map_err(OperationError::io("write", &home.upgrade()))
}

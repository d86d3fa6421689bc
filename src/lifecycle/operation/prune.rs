//! Removes the automatic backups over the limits.

use super::{DryRun, OperationContext, OperationError};
use crate::backup::retain::catalog;
use crate::backup::retain::retention::{self, Excess, Limits};
use crate::upgrade::rollback::history;
use jiff::Timestamp;
use leoflow_base::home::lock::OperationLock;
use std::path::Path;

/// The backups to remove. Other commands can neither create nor restore backups until this is dropped, except in a dry
/// run.
pub struct PrunePlan {
    pub excess: Vec<Excess>,
    _operation_lock: Option<OperationLock>,
}

impl PrunePlan {
    /// Size of the backups to remove, in bytes.
    pub fn bytes(&self) -> u64 {
        self.excess.iter().map(|backup| backup.size_bytes).sum()
    }
}

/// Plans the removal. `command` names the holder of the operation lock in other processes' messages.
pub fn plan(context: &OperationContext<'_>, dry_run: DryRun, command: &str) -> Result<PrunePlan, OperationError> {
    let home = context.home;
    let settings = context.config()?.map(|loaded| loaded.config.backup).unwrap_or_default();
    let operation_lock = match dry_run {
        DryRun::Yes => None,
        DryRun::No => Some(OperationLock::take(home, command)?),
    };
    let pinned = history::rollback_backups(home).map_err(OperationError::io("read", &home.upgrade()))?;
    let backups = catalog::list(home).map_err(OperationError::io("read", &home.backups()))?;
    let excess = retention::excess(&backups, Path::new(""), &pinned, &Limits::of(&settings, Timestamp::now()));
    Ok(PrunePlan { excess, _operation_lock: operation_lock })
}

/// Removes the backups.
pub fn apply(plan: &PrunePlan) -> Result<(), OperationError> {
    retention::remove(&plan.excess).map_err(|error| OperationError::io("remove", &error.path)(error.source))
}

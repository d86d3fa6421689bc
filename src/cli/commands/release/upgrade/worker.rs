//! The worker that `leoflow upgrade` starts: performs the upgrade in a session of its own, under the operation lock.
//! Rollbacks use parts of it.

use super::args::Upgrade;
use super::gather_facts::{self, FactsAndDatastore};
use crate::commands::release::apply_plan::{self, PlannedChange};
use crate::commands::release::worker_report::send_result;
use crate::context::Context;
use crate::error::Error;
use leoflow_base::home::lock::OperationLock;
use leoflow_base::protocol::log;
use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::stdio;
use leoflow_lifecycle::upgrade::plan::Database;
use leoflow_lifecycle::upgrade::release::{program, stage};
use leoflow_lifecycle::upgrade::target_release::{Request, TargetRelease};
use leoflow_lifecycle::upgrade::{Outcome, UpgradeError, facts};

const COMMAND: &str = "leoflow upgrade";

pub async fn run(context: &Context<'_>, args: &Upgrade) -> Result<u8, Error> {
    log::start("upgrade", context.log_level());
    send_result(perform(context, args).await)
}

/// Plans the upgrade under the lock and applies it.
async fn perform(context: &Context<'_>, args: &Upgrade) -> Result<Outcome, Error> {
    let home = &context.home;
    let cancelled = apply_plan::cancelled()?;
    // The command that reads the reports may hang; a write to it must fail and not block the upgrade.
    stdio::set_stdout_writes(stdio::Writes::Fail);
    let _operation_lock = OperationLock::take(home, COMMAND)?;
    apply_plan::refuse_interrupted(home)?;
    let config = context.recovery().running_config()?;
    let request = Request { version: args.version.as_deref(), from: args.from.from.as_deref() };
    let release = TargetRelease::find(home, Some(&config), context.version, request).await?;
    let mut gathered = gather_facts::gather(context, COMMAND).await?;
    let mut plan = release.plan(&gathered.facts)?;
    if gathered.facts.database == Database::Applied(Vec::new()) {
        create_tables(context, &mut gathered).await?;
        plan = release.plan(&gathered.facts)?;
    }
    let change = PlannedChange { plan, source: release.source(), no_rollback: args.no_rollback };
    apply_plan::apply_plan(context, &config, gathered, change, cancelled).await
}

/// Creates the tables of the installed release, for an instance that was set up but never started: the backup before
/// the upgrade fails without tables.
async fn create_tables(context: &Context<'_>, gathered: &mut FactsAndDatastore) -> Result<(), Error> {
    let installed = stage::program_of(&context.home, &gathered.facts.installed);
    let program = if installed.exists() { installed } else { env_vars::current_exe().map_err(Error::failed)? };
    program::migrate(&program, &context.home, None).map_err(UpgradeError::from)?;
    gathered.facts.database = facts::database(&gathered.datastore.connect().await?).await?;
    Ok(())
}

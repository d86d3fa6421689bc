//! Collects the facts of a rollback and plans it, before anything is changed.

use super::rollback_args::RollbackRelease;
use super::upgrade_facts::{self, FactsAndDatastore};
use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::disk;
use leoflow_lifecycle::backup::restore::restore_plan::workspace_size;
use leoflow_lifecycle::backup::retain::catalog;
use leoflow_lifecycle::backup::{Input, restore};
use leoflow_lifecycle::setup;
use leoflow_lifecycle::upgrade;
use leoflow_lifecycle::upgrade::plan::{Plan, UpgradeFacts};
use leoflow_lifecycle::upgrade::release::program::{self, About};
use leoflow_lifecycle::upgrade::release::{stage, version_order};
use leoflow_lifecycle::upgrade::rollback::capacity::{self, Need, Restored};
use leoflow_lifecycle::upgrade::rollback::history::{self, Kind};
use leoflow_lifecycle::upgrade::rollback::rollback_plan::{self, Refusal, RollbackFacts, RollbackPlan, as_change};
use leoflow_postgres::schema::{self, Extent, SchemaError};
use semver::Version;

/// The facts and the plan of a rollback.
pub struct PlannedRollback {
    pub to: Version,
    pub facts: UpgradeFacts,
    pub datastore: Datastore,
    pub plan: Plan,
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
    let FactsAndDatastore { mut facts, datastore } = upgrade_facts::gather(context).await?;
    if let Some(version) = version_of_last_change(context) {
        facts.installed = version;
    }
    let changes = history::history(home);
    let upgrade_chain = history::upgrade_path(&changes);
    let to = match &args.to {
        Some(text) => Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|error| Error::usage(format!("{text:?} is not a version: {error}")).hint("leoflow versions"))?,
        None => {
            history::rollback_target(&changes, &facts.installed).ok_or(Refusal::NoHistory(facts.installed.clone()))?
        }
    };
    if to == facts.installed {
        return Err(Refusal::Same(to).into());
    }
    if version_order::compare(&to, &facts.installed).is_gt() {
        return Err(Refusal::Newer(to).into());
    }
    let program_path = stage::program_of(home, &to);
    if !program_path.is_file() {
        return Err(Refusal::NotKept(to).into());
    }
    let about = program::about(&program_path).map_err(upgrade::UpgradeError::from)?;
    let change = upgrade_chain.into_iter().rev().find(|change| change.from == to);
    let (schema, to_undo) = read_schema(&datastore, &about).await?;
    let backup = change.and_then(|change| change.backup.as_ref());
    let backup_exists = backup.is_some_and(|path| path.is_file());
    let deciding_facts = RollbackFacts { about: &about, schema, to_undo, change, backup_exists };
    let rollback_plan = rollback_plan::plan(&deciding_facts)?;
    let target_schema = match &rollback_plan {
        RollbackPlan::Undo { schema, .. } => *schema,
        RollbackPlan::Restore { .. } => change.map_or(0, |change| change.schema_from),
    };
    let plan = as_change(&facts, &deciding_facts, &to, target_schema);
    let own_schema_of_target = about.schema_version;
    let needs = needs(context, &facts, &rollback_plan)?;
    let needed = capacity::total(&needs);
    if let Some(free) = facts.free_bytes.filter(|free| *free < needed) {
        return Err(Refusal::Space { needs, free, backups: backups_bytes(home) }.into());
    }
    let last_pause =
        history::last_pause(&changes, matches!(rollback_plan, RollbackPlan::Restore { .. }).then_some(Kind::Restore));
    Ok(PlannedRollback { to, facts, datastore, plan, rollback_plan, own_schema_of_target, needs, last_pause })
}

/// Returns the disk space needed, by purpose.
fn needs(context: &Context<'_>, facts: &UpgradeFacts, rollback_plan: &RollbackPlan) -> Result<Vec<Need>, Error> {
    let restored = match rollback_plan {
        RollbackPlan::Undo { .. } => None,
        RollbackPlan::Restore { backup } => {
            let manifest = restore::peek(&Input::plain(backup))?;
            let config = context.config()?.map(|loaded| loaded.config);
            let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
            let root = context.home.root();
            let is_same_file_system =
                workspace.is_none_or(|workspace| disk::same_file_system(root, workspace).unwrap_or(true));
            // The restore checks the space of the other file system itself.
            let other_file_system_bytes = if is_same_file_system { 0 } else { workspace_size(&manifest) };
            Some(Restored { files: manifest.total_size() - other_file_system_bytes, database: manifest.database.bytes })
        }
    };
    Ok(capacity::for_rollback(facts.backup_bytes, facts.database_bytes, restored))
}

/// Total size of automatic backups in bytes.
fn backups_bytes(home: &Home) -> u64 {
    catalog::list(home).iter().filter(|backup| backup.automatic).map(|backup| backup.size_bytes).sum()
}

/// Returns the version that `bin/` links to if the last change of release agrees: the supervisor may still be of the
/// previous release when the handover to the new one failed.
fn version_of_last_change(context: &Context<'_>) -> Option<Version> {
    let linked = Version::parse(&setup::linked_version(&context.home)?).ok()?;
    history::history(&context.home).pop().map(|change| change.to).filter(|to| *to == linked)
}

/// Returns the database's schema version and the migrations that the program does not know.
async fn read_schema(datastore: &Datastore, about: &About) -> Result<(i64, Result<Vec<String>, String>), Error> {
    let client = datastore.connect().await?;
    let schema = schema::classify::database_version(&schema::inspect(&client).await?);
    let to_undo = match schema::to_undo(&client, Extent::DownTo(about.schema_version)).await {
        Ok(names) => Ok(names),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error @ SchemaError::NotReversible(_)) => Err(error.to_string()),
        Err(error) => return Err(error.into()),
    };
    Ok((schema, to_undo))
}

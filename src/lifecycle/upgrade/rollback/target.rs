//! Finds the target of a rollback and plans the rollback, from the history, the releases in `versions/` and the
//! database's schema. Changes nothing.

use super::capacity::{self, Need, Restored};
use super::history::{self, Kind};
use super::rollback_plan::{self, RollbackFacts, RollbackPlan, RollbackRefusal};
use crate::backup::restore::restore_plan::workspace_size;
use crate::backup::retain::catalog;
use crate::backup::{Input, RestoreError, restore};
use crate::setup;
use crate::upgrade::UpgradeError;
use crate::upgrade::plan::{UpgradeFacts, UpgradePlan};
use crate::upgrade::release::program::{self, About};
use crate::upgrade::release::{stage, version_order};
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::sys::fs::disk;
use leoflow_postgres::PgError;
use leoflow_postgres::schema::{self, Extent, SchemaError};
use semver::Version;
use tokio_postgres::Client;

#[derive(Debug, thiserror::Error)]
pub enum RollbackTargetError {
    #[error("{text:?} is not a version: {source}")]
    NotAVersion { text: String, source: semver::Error },
    #[error(transparent)]
    Refused(#[from] RollbackRefusal),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// The target of a rollback, and the plan.
pub(crate) struct RollbackTarget {
    pub to: Version,
    pub plan: UpgradePlan,
    pub rollback_plan: RollbackPlan,
    /// The newest schema version that the target release knows.
    pub own_schema: i64,
}

impl RollbackTarget {
    /// Finds the requested release, or by default the one before the last upgrade, and plans the rollback to it.
    pub async fn find(
        home: &Home,
        facts: &UpgradeFacts,
        client: &Client,
        requested: Option<&str>,
    ) -> Result<Self, RollbackTargetError> {
        let changes = history::history(home);
        let to = match requested {
            Some(text) => parse(text)?,
            None => history::rollback_target(&changes, &facts.installed)
                .ok_or(RollbackRefusal::NoHistory(facts.installed.clone()))?,
        };
        let about = kept_program(home, &to, &facts.installed)?;
        let change = history::upgrade_path(&changes).into_iter().rev().find(|change| change.from == to);
        let (schema, to_undo) = read_schema(client, &about).await?;
        let backup = change.and_then(|change| change.backup.as_ref());
        let backup_exists = backup.is_some_and(|path| path.is_file());
        let rollback_plan =
            rollback_plan::plan(RollbackFacts { about: &about, schema, to_undo, change, backup_exists })?;
        let target_schema = match &rollback_plan {
            RollbackPlan::Undo { schema, .. } => *schema,
            RollbackPlan::Restore { .. } => change.map_or(0, |change| change.schema_from),
        };
        let plan = UpgradePlan::without_files(facts, &to, (schema, target_schema));
        Ok(Self { to, plan, rollback_plan, own_schema: about.schema_version })
    }
}

fn parse(text: &str) -> Result<Version, RollbackTargetError> {
    Version::parse(text.strip_prefix('v').unwrap_or(text))
        .map_err(|source| RollbackTargetError::NotAVersion { text: text.to_owned(), source })
}

/// Runs the program of an older release in `versions/` to read its version and migrations.
fn kept_program(home: &Home, to: &Version, installed: &Version) -> Result<About, RollbackTargetError> {
    if to == installed {
        return Err(RollbackRefusal::Same(to.clone()).into());
    }
    if version_order::compare(to, installed).is_gt() {
        return Err(RollbackRefusal::Newer(to.clone()).into());
    }
    let program_path = stage::program_of(home, to);
    if !program_path.is_file() {
        return Err(RollbackRefusal::NotKept(to.clone()).into());
    }
    let about = program::about(&program_path).map_err(UpgradeError::from)?;
    if about.version != to.to_string() {
        return Err(RollbackRefusal::Overwritten { program: program_path, found: about.version, to: to.clone() }.into());
    }
    Ok(about)
}

/// Returns the database's schema version and the migrations that the program does not know.
async fn read_schema(
    client: &Client,
    about: &About,
) -> Result<(i64, Result<Vec<String>, SchemaError>), RollbackTargetError> {
    let schema = schema::current_version(client).await?;
    let to_undo = match schema::to_undo(client, Extent::DownTo(about.schema_version)).await {
        Ok(names) => Ok(names),
        Err(SchemaError::NothingToUndo) => Ok(Vec::new()),
        Err(error @ SchemaError::NotReversible(_)) => Err(error),
        Err(error) => return Err(error.into()),
    };
    Ok((schema, to_undo))
}

/// Returns the version that `bin/` links to, if the last upgrade or rollback installed it. The running supervisor may
/// still have the previous version, if it could not be replaced.
pub(crate) fn version_of_last_change(home: &Home) -> Option<Version> {
    let linked = Version::parse(&setup::linked_version(home)?).ok()?;
    history::history(home).pop().map(|change| change.to).filter(|to| *to == linked)
}

/// The last measured pause of a rollback of this kind, in seconds; `None` if there is none.
pub fn last_pause(home: &Home, rollback_plan: &RollbackPlan) -> Option<f64> {
    let kind = matches!(rollback_plan, RollbackPlan::Restore { .. }).then_some(Kind::Restore);
    history::last_pause(&history::history(home), kind)
}

/// Returns the disk space needed, by purpose. `config` is only read for a restore.
pub fn needs(
    home: &Home,
    facts: &UpgradeFacts,
    rollback_plan: &RollbackPlan,
    config: Option<&Config>,
) -> Result<Vec<Need>, RestoreError> {
    let restored = match rollback_plan {
        RollbackPlan::Undo { .. } => None,
        RollbackPlan::Restore { backup } => {
            let manifest = restore::peek(&Input::plain(backup))?;
            let workspace = config.and_then(|config| config.workspace.as_deref());
            let is_same_file_system =
                workspace.is_none_or(|workspace| disk::same_file_system(home.root(), workspace).unwrap_or(true));
            // The restore itself checks the space on the other file system.
            let other_file_system_bytes = if is_same_file_system { 0 } else { workspace_size(&manifest) };
            Some(Restored { files: manifest.total_size() - other_file_system_bytes, database: manifest.database.bytes })
        }
    };
    Ok(capacity::for_rollback(facts.backup_bytes, facts.database_bytes, restored))
}

/// Refuses a rollback without enough free disk space.
pub(crate) fn check_space(home: &Home, facts: &UpgradeFacts, needs: &[Need]) -> Result<(), RollbackRefusal> {
    let needed = capacity::total(needs);
    match facts.free_bytes.filter(|free| *free < needed) {
        Some(free) => Err(RollbackRefusal::Space { needs: needs.to_vec(), free, backups: backups_bytes(home) }),
        None => Ok(()),
    }
}

/// Total size of automatic backups in bytes. `facts::gather` has failed before if they cannot be listed.
fn backups_bytes(home: &Home) -> u64 {
    catalog::list(home).iter().flatten().filter(|backup| backup.automatic).map(|backup| backup.size_bytes).sum()
}

//! What a rollback would be: asked of the machine, before anything is changed.

use super::upgrade_facts::{self, Looked};
use crate::backup::restore_plan::workspace_size;
use crate::backup::{Input, catalog, restore};
use crate::cli::upgrade_args::RollbackRelease;
use crate::commands::context::Context;
use crate::error::Error;
use crate::home::Home;
use crate::recovery::datastore::Datastore;
use crate::schema::{self, Extent, SchemaError};
use crate::setup;
use crate::sys::disk;
use crate::upgrade::capacity::{self, Need, Restored};
use crate::upgrade::history::{self, Kind};
use crate::upgrade::plan::{Facts, Plan};
use crate::upgrade::program::{self, About};
use crate::upgrade::rollback_plan::{self, Back, Refusal, Ways, as_change};
use crate::upgrade::{self, stage, version_order};
use semver::Version;

/// What going back would be.
pub struct Looking {
    pub to: Version,
    pub facts: Facts,
    pub datastore: Datastore,
    pub plan: Plan,
    pub back: Back,
    /// The newest schema that the release knows that is gone back to.
    pub own_schema_of_target: i64,
    pub needs: Vec<Need>,
    /// Seconds that the last change of release kept requests waiting; `None` where none was measured.
    pub last_pause: Option<f64>,
}

pub async fn look(context: &Context<'_>, args: &RollbackRelease) -> Result<Looking, Error> {
    let home = &context.home;
    let Looked { mut facts, datastore } = upgrade_facts::look(context).await?;
    if let Some(version) = linked_by_the_last_change(context) {
        facts.installed = version;
    }
    let changes = history::history(home);
    let way = history::way(&changes);
    let to = match &args.to {
        Some(text) => Version::parse(text.strip_prefix('v').unwrap_or(text))
            .map_err(|error| Error::usage(format!("{text:?} is no version: {error}")).hint("leoflow versions"))?,
        None => history::next_back(&changes, &facts.installed).ok_or(Refusal::NoHistory(facts.installed.clone()))?,
    };
    if to == facts.installed {
        return Err(Refusal::Same(to).into());
    }
    if version_order::compare(&to, &facts.installed).is_gt() {
        return Err(Refusal::Newer(to).into());
    }
    let kept = stage::program_of(home, &to);
    if !kept.is_file() {
        return Err(Refusal::NotKept(to).into());
    }
    let about = program::about(&kept).map_err(upgrade::UpgradeError::from)?;
    let change = way.into_iter().rev().find(|change| change.from == to);
    let (schema, to_undo) = schema_of(&datastore, &about).await?;
    let backup = change.and_then(|change| change.backup.as_ref());
    let backup_exists = backup.is_some_and(|path| path.is_file());
    let ways = Ways { about: &about, schema, to_undo, change, backup_exists };
    let back = rollback_plan::plan(&ways)?;
    let target = match &back {
        Back::Undo { schema, .. } => *schema,
        Back::Restore { .. } => change.map_or(0, |change| change.schema_from),
    };
    let plan = as_change(&facts, &ways, &to, target);
    let own_schema_of_target = about.schema_version;
    let needs = needs(context, &facts, &back)?;
    let needed = capacity::total(&needs);
    if let Some(free) = facts.free_bytes.filter(|free| *free < needed) {
        return Err(Refusal::Space { needs, free, backups: backups_bytes(home) }.into());
    }
    let last_pause = history::last_pause(&changes, matches!(back, Back::Restore { .. }).then_some(Kind::Restore));
    Ok(Looking { to, facts, datastore, plan, back, own_schema_of_target, needs, last_pause })
}

/// How much is written, and for what.
fn needs(context: &Context<'_>, facts: &Facts, back: &Back) -> Result<Vec<Need>, Error> {
    let restored = match back {
        Back::Undo { .. } => None,
        Back::Restore { backup } => {
            let manifest = restore::peek(&Input::plain(backup))?;
            let config = context.config()?.map(|loaded| loaded.config);
            let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
            let root = context.home.root();
            let is_here = workspace.is_none_or(|workspace| disk::same_file_system(root, workspace).unwrap_or(true));
            // The restore asks for the other file system's room itself.
            let elsewhere = if is_here { 0 } else { workspace_size(&manifest) };
            Some(Restored { files: manifest.total_size() - elsewhere, database: manifest.database.bytes })
        }
    };
    Ok(capacity::of_rollback(facts.backup_bytes, facts.database_bytes, restored))
}

/// What the backups take that are made by themselves.
fn backups_bytes(home: &Home) -> u64 {
    catalog::list(home).iter().filter(|backup| backup.automatic).map(|backup| backup.size_bytes).sum()
}

/// What `bin/` leads to, where the last change of release says the same: the supervisor may still be of the release
/// before, when the new one did not let itself be handed over to.
fn linked_by_the_last_change(context: &Context<'_>) -> Option<Version> {
    let linked = Version::parse(&setup::linked_version(&context.home)?).ok()?;
    history::history(&context.home).pop().map(|change| change.to).filter(|to| *to == linked)
}

/// The database's schema, and what of it that program does not know.
async fn schema_of(datastore: &Datastore, about: &About) -> Result<(i64, Result<Vec<String>, String>), Error> {
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

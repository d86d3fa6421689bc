//! Gathers the facts that an upgrade or a rollback depends on. Changes nothing.

use super::UpgradeError;
use super::plan::{Database, Installed, Instance, POSTGRES, UpgradeFacts};
use super::rollback::capacity::{self, LastBackup, Sizes};
use crate::backup::create::dump;
use crate::backup::retain::catalog;
use crate::backup::{Input, files_size, restore};
use crate::setup::{self, Receipt};
use leoflow_base::build_info;
use leoflow_base::config::Config;
use leoflow_base::home::Home;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::fs::disk;
use leoflow_components::web_ui;
use leoflow_postgres::schema::{self, SchemaError, embedded};
use leoflow_postgres::{databases, install, locks};
use leoflow_processes::keeper::TaskFolder;
use semver::Version;
use tokio_postgres::Client;

/// Gathers the facts. `config` is `None` without a `config.yaml`, `own_version` the version of this program, and
/// `instance` the state of the one that serves the datastore; `client` is connected to the application's database.
pub(crate) async fn gather(
    home: &Home,
    config: Option<&Config>,
    own_version: &str,
    instance: Instance,
    client: &Client,
) -> Result<UpgradeFacts, UpgradeError> {
    let database_bytes = databases::size(client, None).await?;
    Ok(UpgradeFacts {
        installed: installed_version(home, own_version)?,
        own_version: parse_version(own_version)?,
        target: build_info::build_info().target,
        database: database(client).await?,
        schema_changes: match dump::refused_changes(client).await {
            Err(SchemaError::Postgres(error)) => return Err(locks::explain(client, error).await.into()),
            changes => changes?,
        },
        own_schema: embedded::newest(schema::known()),
        components: components(home),
        free_bytes: disk::free_bytes(home.root()).ok(),
        database_bytes,
        backup_bytes: capacity::for_backup(&sizes(home, config, database_bytes)?),
        instance,
        running_tasks: running_tasks(home)?,
    })
}

/// The state of the running instance; `Stopped` when none responds.
pub fn running_instance(home: &Home) -> Instance {
    match control::status_of(home) {
        None => Instance::Stopped,
        Some(status) if status.state == InstanceState::Healthy => Instance::Healthy,
        Some(status) => Instance::Unhealthy(status.reason.unwrap_or_else(|| status.state.to_string())),
    }
}

/// Reads the migration history.
pub async fn database(client: &Client) -> Result<Database, UpgradeError> {
    let records = schema::inspect(client).await?;
    Ok(match schema::damage(&records) {
        Some(reason) => Database::Damaged(reason),
        None => Database::Applied(schema::applied(&records)),
    })
}

/// Returns the version of the running instance. If none runs: the version that `bin/` links to, else the version in the
/// receipt, else this program's.
pub fn installed_version(home: &Home, own_version: &str) -> Result<Version, UpgradeError> {
    let running = control::status_of(home).map(|status| status.version);
    let text = match running.or_else(|| setup::linked_version(home)) {
        Some(version) => version,
        None => match Receipt::load(home)? {
            Some(receipt) => receipt.leoflow_version,
            None => own_version.to_owned(),
        },
    };
    parse_version(&text)
}

pub(super) fn parse_version(text: &str) -> Result<Version, UpgradeError> {
    Version::parse(text).map_err(|source| UpgradeError::NotAVersion { text: text.to_owned(), source })
}

/// Sizes of the content of a new backup, and of the newest unencrypted automatic backup.
fn sizes(home: &Home, config: Option<&Config>, database: u64) -> Result<Sizes, UpgradeError> {
    let workspace = config.and_then(|config| config.workspace.as_deref());
    let task_logs_bytes = config.map_or(u64::MAX, |config| config.backup.task_logs_bytes);
    let backups = catalog::list(home).map_err(|source| UpgradeError::Read { path: home.backups(), source })?;
    let newest = backups.into_iter().find(|backup| backup.automatic && !backup.encrypted);
    let last = newest.and_then(|backup| {
        let manifest = restore::peek(&Input::plain(&backup.path)).ok()?;
        let (database, files) = (manifest.database.bytes, manifest.files_size());
        Some(LastBackup { archive: backup.size_bytes, database, files })
    });
    Ok(Sizes { database, files: files_size(home, workspace, task_logs_bytes), last })
}

/// The installed components.
fn components(home: &Home) -> Vec<Installed> {
    let postgres = install::installed(home).map(|installation| Installed {
        name: POSTGRES.to_owned(),
        version: installation.version,
        sha256: installation.sha256,
    });
    // A version of the UI always has the same files, so it needs no hash.
    let ui = |version| Installed { name: web_ui::COMPONENT.to_owned(), version, sha256: None };
    postgres.into_iter().chain(web_ui::installed_versions(home).into_iter().map(ui)).collect()
}

fn running_tasks(home: &Home) -> Result<usize, UpgradeError> {
    let folders = TaskFolder::all(home).map_err(|source| UpgradeError::Read { path: home.running_tasks(), source })?;
    Ok(folders.len())
}

//! Collects the facts that an upgrade or rollback depends on. Changes nothing; if Lite is stopped, its datastore is
//! started for this.

use crate::context::Context;
use crate::error::Error;
use crate::recovery::datastore::Datastore;
use leoflow_base::build_info;
use leoflow_base::home::Home;
use leoflow_base::protocol::control;
use leoflow_base::protocol::status::InstanceState;
use leoflow_base::sys::fs::disk;
use leoflow_base::web_ui;
use leoflow_lifecycle::backup::files_size;
use leoflow_lifecycle::backup::retain::catalog;
use leoflow_lifecycle::backup::{Input, restore};
use leoflow_lifecycle::setup::{self, Receipt};
use leoflow_lifecycle::upgrade::plan::{Database, Installed, Instance, POSTGRES, UpgradeFacts};
use leoflow_lifecycle::upgrade::rollback::capacity::{self, LastBackup, Sizes};
use leoflow_postgres::schema::{self, embedded};
use leoflow_postgres::{PgError, install};
use leoflow_processes::agent::TaskFolder;
use semver::Version;
use tokio_postgres::Client;

/// The facts, and the open datastore they were read from.
pub struct FactsAndDatastore {
    pub facts: UpgradeFacts,
    pub datastore: Datastore,
}

/// Opens the datastore and collects the facts.
pub async fn gather(context: &Context<'_>) -> Result<FactsAndDatastore, Error> {
    let home = &context.home;
    let datastore = Datastore::open(&context.recovery(), "leoflow upgrade").await?;
    let instance = match control::status_of(home).filter(|_| datastore.is_of_running_instance) {
        None => Instance::Stopped,
        Some(status) if status.state == InstanceState::Healthy => Instance::Healthy,
        Some(status) => Instance::Unhealthy(status.reason.unwrap_or_else(|| status.state.to_string())),
    };
    let client = datastore.connect().await?;
    let size = client.query_one("SELECT pg_database_size(current_database())", &[]).await.map_err(PgError::from)?;
    let database_bytes = u64::try_from(size.get::<_, i64>(0)).unwrap_or(0);
    let facts = UpgradeFacts {
        installed: installed_version(context)?,
        target: build_info::build_info().target,
        database: database(&client).await?,
        own_schema: embedded::newest(schema::known()),
        components: components(home),
        free_bytes: disk::free_bytes(home.root()).ok(),
        database_bytes,
        backup_bytes: capacity::for_backup(&sizes(context, database_bytes)?),
        instance,
        running_tasks: TaskFolder::all(home).map_err(|error| Error::io("read", &home.running_tasks(), &error))?.len(),
    };
    Ok(FactsAndDatastore { facts, datastore })
}

/// Sizes of a backup's content, and of the newest unencrypted automatic backup.
fn sizes(context: &Context<'_>, database: u64) -> Result<Sizes, Error> {
    let home = &context.home;
    let config = context.config()?.map(|loaded| loaded.config);
    let workspace = config.as_ref().and_then(|config| config.workspace.as_deref());
    let task_logs_bytes = config.as_ref().map_or(u64::MAX, |config| config.backup.task_logs_bytes);
    let newest = catalog::list(home).into_iter().find(|backup| backup.automatic && !backup.encrypted);
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

/// Reads the migration history.
pub async fn database(client: &Client) -> Result<Database, Error> {
    Ok(match schema::applied(&schema::inspect(client).await?) {
        Ok(applied) => Database::Applied(applied),
        Err(reason) => Database::Damaged(reason),
    })
}

/// The running version, else the one `bin/` links to, else the one setup installed, else this program's.
pub fn installed_version(context: &Context<'_>) -> Result<Version, Error> {
    let running = control::status_of(&context.home).map(|status| status.version);
    let text = match running.or_else(|| setup::linked_version(&context.home)) {
        Some(version) => version,
        None => match Receipt::load(&context.home)? {
            Some(receipt) => receipt.leoflow_version,
            None => context.version.to_owned(),
        },
    };
    Version::parse(&text).map_err(|error| Error::bug(format!("{text:?} is not a version: {error}")))
}

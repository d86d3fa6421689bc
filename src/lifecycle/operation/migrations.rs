//! Migrations of the schema outside of upgrades: by `migrate-db`, by the migrator of the supervisor, and after an upgrade
//! by the server. Deferred migrations (postdeploy and contract) wait for their gates, the conditions that open them.

use super::open::{Datastore, access, claims, refuse_during_rollback};
use super::{OperationContext, OperationError};
use crate::backup::create::automatic;
use crate::upgrade::release::versions;
use crate::upgrade::{self, MigrationAtStart};
use leoflow_base::config;
use leoflow_base::home::journal;
use leoflow_base::home::lock::OperationLock;
use leoflow_postgres::cluster::provision;
use leoflow_postgres::schema::deferred::{self, Gates, Waiting};
use leoflow_postgres::schema::embedded::{self, Phase};
use leoflow_postgres::schema::{self, Applied, EmbeddedMigration, Extent, RolledBack, SchemaError, State, known};
use leoflow_postgres::{Access, Credentials, Endpoint};
use serde::Serialize;
use std::path::PathBuf;
use std::time::Duration;
use tokio_postgres::Client;

const COMMAND: &str = "leoflow migrate-db";

/// Whether a backup is created before the schema changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BackUp {
    Yes,
    /// With `--no-backup`.
    No,
}

impl BackUp {
    /// From the value of `--no-backup`.
    pub fn unless(no_backup: bool) -> Self {
        if no_backup { Self::No } else { Self::Yes }
    }
}

/// The change of the schema that a backup precedes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SchemaChange {
    Migration,
    Rollback,
}

impl std::fmt::Display for SchemaChange {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.write_str(match self {
            Self::Migration => "migration",
            Self::Rollback => "rollback",
        })
    }
}

/// The schema of the database beside the one that this release knows.
#[derive(Serialize)]
pub struct SchemaStatus {
    pub database_version: i64,
    #[serde(rename = "binary_version")]
    pub own_version: i64,
    /// The files of the pending migrations.
    pub pending: Vec<&'static str>,
    pub state: &'static str,
    pub waiting: Vec<Waiting>,
    /// Why this release cannot migrate the database.
    #[serde(skip)]
    pub refusal: Option<SchemaError>,
}

impl OperationContext<'_> {
    /// Applies the pending migrations, then the deferred ones whose gates are open. `report` gets the name of each file.
    pub async fn migrate(
        &self,
        back_up: BackUp,
        report: &mut dyn FnMut(&str),
    ) -> Result<(Applied, Vec<Waiting>), OperationError> {
        refuse_during_rollback(self.home)?;
        let datastore = Datastore::open(self, COMMAND).await?;
        // The lock keeps upgrades out, which rely on the schema version that they started with.
        let _operation_lock = match datastore.is_of_running_instance {
            true => Some(OperationLock::take(self.home, COMMAND)?),
            false => None,
        };
        let (lock_client, mut client) = (datastore.connect().await?, datastore.connect().await?);
        let state = schema::classify(known(), &schema::inspect(&client).await?);
        let pending = self.before_pending(&client, &state, &datastore.access, back_up).await?;
        let mut applied = schema::migrate(&lock_client, &mut client, known(), self.version, report).await?;
        self.record_migration(pending, applied.version)?;
        let (deferred, waiting) = self.apply_deferred(&datastore, back_up, report).await?;
        applied.files.extend(deferred.files);
        applied.version = deferred.version;
        Ok((applied, waiting))
    }

    /// Applies the deferred migrations whose gates are open, for the running server. Fails instead of waiting for locks;
    /// the server tries again.
    pub async fn migrate_later(&self, report: &mut dyn FnMut(&str)) -> Result<(Applied, Vec<Waiting>), OperationError> {
        let _operation_lock = OperationLock::take(self.home, COMMAND)?;
        let datastore = Datastore::open(self, COMMAND).await?;
        self.apply_deferred(&datastore, BackUp::Yes, report).await
    }

    /// Migrates as the migrator of the supervisor, after Postgres has started and before the server starts, or of an
    /// upgrade, which has created a backup and records itself. `database` must exist; `None` is the application's, which
    /// is created if missing. Returns the version of the schema.
    pub async fn migrate_at_start(
        &self,
        database: Option<&str>,
        back_up: BackUp,
        report: &mut dyn FnMut(&str),
    ) -> Result<i64, OperationError> {
        let home = self.home;
        let (endpoint, credentials) = (Endpoint::for_home(home), Credentials::require(home)?);
        let connect = async || match database {
            None => provision::connect_in(home, &endpoint, &credentials).await,
            Some(database) => endpoint.connect(credentials.application(&endpoint).dbname(database)).await,
        };
        let mut client = connect().await?;
        // Usually nothing is pending. One connection and one query are enough to find that out.
        let state = schema::classify(known(), &schema::inspect(&client).await?);
        // A fresh database has no table for the claim yet.
        if !matches!(state, State::Fresh) {
            claims::take(home, &client).await?;
        }
        if let State::Current { version } = state {
            return Ok(version);
        }
        let pending = match (&state, back_up) {
            (State::Pending { .. }, BackUp::Yes) => {
                self.before_pending(&client, &state, &access(home)?, BackUp::Yes).await?
            }
            _ => None,
        };
        let lock_client = connect().await?;
        let version = schema::migrate(&lock_client, &mut client, known(), self.version, report).await?.version;
        self.record_migration(pending, version)?;
        claims::take(home, &client).await?;
        Ok(version)
    }

    /// Backs up a database with pending migrations that no upgrade applies; `None` when no migration is pending, or when
    /// the database is new.
    async fn before_pending(
        &self,
        client: &Client,
        state: &State,
        access: &Access,
        back_up: BackUp,
    ) -> Result<Option<PendingMigration>, OperationError> {
        let State::Pending { from, .. } = state else { return Ok(None) };
        let release = schema::newest_release(client).await?;
        let backup = self.back_up_before(SchemaChange::Migration, access, back_up).await?;
        Ok(Some(PendingMigration { schema: *from, release, backup }))
    }

    /// Records the migrations as an upgrade to this release, which can be rolled back.
    fn record_migration(&self, pending: Option<PendingMigration>, version: i64) -> Result<(), OperationError> {
        let Some(PendingMigration { schema, release, backup }) = pending else { return Ok(()) };
        let schema = (schema, version);
        let applied = MigrationAtStart { ledger_release: release, own_version: self.version, schema, backup };
        Ok(applied.record(self.home)?)
    }

    /// Creates a backup before a change of the schema; `None` if there is no data to back up. The caller returns the
    /// error, which says that the change did not run.
    async fn back_up_before(
        &self,
        change: SchemaChange,
        access: &Access,
        back_up: BackUp,
    ) -> Result<Option<PathBuf>, OperationError> {
        if back_up == BackUp::No {
            return Ok(None);
        }
        let config = config::load(&self.home.config())?.ok_or(OperationError::NoConfig)?.config;
        let parameters = upgrade::automatic_backup(self.home, access, &config, self.version, self.reporter)?;
        let created = automatic::before_change(&change.to_string(), &parameters).await;
        let created = created.map_err(|source| OperationError::BackUpBefore { change, source })?;
        if let Some(created) = &created {
            self.note(format!("Created a backup before the {change}: {}", created.path.display()));
        }
        Ok(created.map(|created| created.path))
    }

    /// Returns the facts that decide which gates are open. Runs every release in `versions/` to ask which schema it
    /// knows.
    fn gates(&self) -> Gates {
        let (cleanup_after, mut under_way) = match config::load(&self.home.config()) {
            Ok(loaded) => (loaded.map(|loaded| loaded.config.upgrade).unwrap_or_default().cleanup_after, None),
            Err(error) => (Duration::MAX, Some(format!("config.yaml cannot be read ({error})"))),
        };
        match journal::unfinished(self.home) {
            Ok(None) => {}
            Ok(Some(entry)) => under_way = Some(format!("an operation ({}) is in progress", entry.operation)),
            Err(error) => under_way = Some(error.to_string()),
        }
        let kept = versions::schemas(self.home).unwrap_or_else(|error| {
            under_way = Some(format!("{} cannot be read ({error})", self.home.versions().display()));
            Vec::new()
        });
        Gates { kept, cleanup_after, under_way }
    }

    /// Returns the deferred migrations that wait, with their closed gates.
    pub async fn waiting_migrations(&self, client: &Client) -> Result<Vec<Waiting>, SchemaError> {
        deferred::list(client, known(), &self.gates()).await
    }

    /// Applies the deferred migrations whose gates are open, with a backup before the first contract. The caller holds
    /// the operation lock, or nothing else runs on this home.
    async fn apply_deferred(
        &self,
        datastore: &Datastore,
        back_up: BackUp,
        report: &mut dyn FnMut(&str),
    ) -> Result<(Applied, Vec<Waiting>), OperationError> {
        let (lock, mut client) = (datastore.connect().await?, datastore.connect().await?);
        let ready = |waiting: &[Waiting], phase: Phase| -> Vec<i64> {
            let is_ready = |entry: &&Waiting| entry.phase == phase.name() && entry.gates_shut.is_empty();
            waiting.iter().filter(is_ready).map(|entry| entry.version).collect()
        };
        let postdeploy = ready(&self.waiting_migrations(&client).await?, Phase::Postdeploy);
        let gates = || self.gates();
        let (mut applied, waiting) =
            deferred::apply(&lock, &mut client, known(), self.version, &postdeploy, gates, report).await?;
        // Apply only these contract migrations: one whose gates open in the meantime has no backup yet.
        let contracts = ready(&waiting, Phase::Contract);
        let Some(first) = contracts.first() else { return Ok((applied, waiting)) };
        if !deferred::is_backed_up(&client, *first).await? {
            self.back_up_before(SchemaChange::Migration, &datastore.access, back_up).await?;
            for version in &contracts {
                deferred::record_backup(&client, *version).await?;
            }
        }
        let (contract, waiting) =
            deferred::apply(&lock, &mut client, known(), self.version, &contracts, gates, report).await?;
        applied.files.extend(contract.files);
        applied.version = contract.version;
        Ok((applied, waiting))
    }

    /// Compares the database with this release.
    pub async fn schema_status(&self) -> Result<SchemaStatus, OperationError> {
        let datastore = Datastore::open(self, "leoflow migrate-db status").await?;
        let client = datastore.connect().await?;
        let records = schema::inspect(&client).await?;
        let state = schema::classify(known(), &records);
        let is_pending = |migration: &&EmbeddedMigration| match &state {
            State::Pending { versions, .. } => versions.contains(&migration.version),
            State::Fresh => true,
            _ => false,
        };
        Ok(SchemaStatus {
            database_version: schema::database_version(&records),
            own_version: embedded::newest(known()),
            pending: known().iter().filter(is_pending).map(|migration| migration.file.as_str()).collect(),
            state: state.name(),
            waiting: self.waiting_migrations(&client).await?,
            refusal: schema::refusal(&state),
        })
    }

    /// Plans the undo of migrations of a stopped instance.
    pub async fn plan_schema_rollback(&self, extent: Extent) -> Result<SchemaRollback, OperationError> {
        let datastore = Datastore::open(self, "leoflow migrate-db rollback").await?;
        if datastore.is_of_running_instance {
            return Err(OperationError::SchemaInUse);
        }
        let migrations = schema::to_undo(&datastore.connect().await?, extent).await?;
        Ok(SchemaRollback { datastore, extent, migrations })
    }

    /// Undoes the migrations. `report` gets the label of each.
    pub async fn roll_back_schema(
        &self,
        plan: SchemaRollback,
        back_up: BackUp,
        report: &mut dyn FnMut(&str),
    ) -> Result<RolledBack, OperationError> {
        let datastore = plan.datastore;
        let (lock_client, mut client) = (datastore.connect().await?, datastore.connect().await?);
        self.back_up_before(SchemaChange::Rollback, &datastore.access, back_up).await?;
        Ok(schema::rollback(&lock_client, &mut client, plan.extent, report).await?)
    }
}

/// A database before migrations that no upgrade applies.
struct PendingMigration {
    schema: i64,
    /// The release that applied the newest migration.
    release: Option<String>,
    backup: Option<PathBuf>,
}

/// Migrations to undo, newest first, and the open datastore.
pub struct SchemaRollback {
    datastore: Datastore,
    extent: Extent,
    pub migrations: Vec<String>,
}

//! Data migrations in this process, as `data-migrate` runs them; the server runs them in the background.

use super::open::{Datastore, refuse_during_rollback};
use super::{OperationContext, OperationError};
use leoflow_base::counted::counted;
use leoflow_engine::store::events::{self, Event};
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::PgError;
use leoflow_postgres::schema::data_migration::{self, Batch, Progress, Status};
use leoflow_postgres::schema::{self, EmbeddedMigration, SchemaError, TotalsGuard, known};
use std::ops::ControlFlow;
use std::time::{Duration, Instant};
use tokio_postgres::Client;

/// Pause while another process runs the migration or locks its rows.
const BLOCKED_PAUSE: Duration = Duration::from_secs(1);
/// Maximum number of passes over rows that were locked.
const MAX_ROUNDS: u32 = 10;
/// Interval of progress messages.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// Why a data migration does not end.
#[derive(Debug, thiserror::Error)]
pub enum DataMigrationError {
    #[error("{migration} is paused")]
    Paused { migration: String, version: i64 },
    #[error("{migration} was paused in the meantime")]
    PausedMeanwhile { migration: String, version: i64 },
    #[error("{migration} has failed: {reason}")]
    Failed { migration: String, version: i64, reason: String },
    #[error("{} of {migration} stayed unchanged, because others lock or change them all the time", counted(.left, "row"))]
    Locked { migration: String, left: i64 },
}

impl DataMigrationError {
    fn failed(progress: Progress) -> Self {
        let Progress { migration, version, error, .. } = progress;
        Self::Failed { migration, version, reason: error.unwrap_or_else(|| "unknown error".to_owned()) }
    }
}

/// Whether to pause after each batch for as long as the batch took.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Rest {
    Yes,
    No,
}

/// The data migrations of an open datastore. Fields are dropped in order, so the connection ends before a private
/// server.
pub struct DataMigrations {
    pub client: Client,
    pub datastore: Datastore,
}

/// A data migration with its progress.
pub type Selected = (&'static EmbeddedMigration, Progress);

impl OperationContext<'_> {
    /// Opens the datastore for its data migrations.
    pub async fn data_migrations(&self) -> Result<DataMigrations, OperationError> {
        refuse_during_rollback(self.home)?;
        let datastore = Datastore::open(self, "leoflow data-migrate").await?;
        let client = datastore.connect().await?;
        schema::require_current(&client, known()).await?;
        Ok(DataMigrations { client, datastore })
    }
}

impl DataMigrations {
    /// Returns the data migration of this version, or all. Fails when the version is not a data migration.
    pub async fn select(&self, version: Option<i64>) -> Result<Vec<Selected>, SchemaError> {
        let mut selected = Vec::new();
        for known in known().iter().filter(|known| known.batches.is_some()) {
            if version.is_none_or(|version| version == known.version)
                && let Some(progress) = data_migration::progress(&self.client, known).await?
            {
                selected.push((known, progress));
            }
        }
        match version {
            Some(version) if selected.is_empty() => Err(SchemaError::NoDataMigration(format!("V{version:04}"))),
            _ => Ok(selected),
        }
    }

    /// Runs a migration batch by batch until it is verified. Returns its progress; `None` if it is no longer recorded.
    pub async fn run(
        &mut self,
        context: &OperationContext<'_>,
        (known, before): Selected,
        rest: Rest,
    ) -> Result<Option<Progress>, OperationError> {
        let Progress { migration, version, .. } = &before;
        if before.is_paused {
            return Err(DataMigrationError::Paused { migration: migration.clone(), version: *version }.into());
        }
        if before.status == Status::Failed {
            return Err(DataMigrationError::failed(before).into());
        }
        let (mut last_progress, mut rounds) = (Instant::now(), 0);
        let mut guard = TotalsGuard::new(INVARIANTS);
        loop {
            match data_migration::advance(&mut self.client, known, &mut guard).await? {
                Batch::Moved { took, .. } => {
                    if rest == Rest::Yes {
                        tokio::time::sleep(took).await;
                    }
                    if last_progress.elapsed() >= PROGRESS_INTERVAL
                        && let Some(current) = data_migration::progress(&self.client, known).await?
                    {
                        last_progress = Instant::now();
                        let rows = counted(current.rows, "row");
                        context.note(format!("{}: {rows} changed so far", current.migration));
                    }
                }
                Batch::Done => {}
                Batch::Blocked => tokio::time::sleep(BLOCKED_PAUSE).await,
                Batch::Nothing => {
                    if let ControlFlow::Break(current) = self.verify_moved(known, &mut rounds).await? {
                        return Ok(current);
                    }
                }
            }
        }
    }

    /// Verifies a migration that has no further batches. Breaks once it is verified or no longer recorded. `rounds`
    /// counts the passes over rows that were locked.
    async fn verify_moved(
        &self,
        known: &EmbeddedMigration,
        rounds: &mut u32,
    ) -> Result<ControlFlow<Option<Progress>>, OperationError> {
        let Some(current) = data_migration::progress(&self.client, known).await? else {
            return Ok(ControlFlow::Break(None));
        };
        match current.status {
            Status::Failed => return Err(DataMigrationError::failed(current).into()),
            Status::Verified => return Ok(ControlFlow::Break(Some(current))),
            Status::Pending | Status::Running => {
                let Progress { migration, version, .. } = current;
                return Err(DataMigrationError::PausedMeanwhile { migration, version }.into());
            }
            Status::Done => {}
        }
        match data_migration::verify(&self.client, known).await? {
            0 => {}
            left if *rounds >= MAX_ROUNDS => {
                return Err(DataMigrationError::Locked { migration: current.migration, left }.into());
            }
            _ => {
                *rounds += 1;
                tokio::time::sleep(BLOCKED_PAUSE).await;
            }
        }
        Ok(ControlFlow::Continue(()))
    }

    /// Counts the rows still to be changed, after which a migration without any is verified, and returns the progress
    /// then; `None` if the migration is no longer recorded.
    pub async fn verify(&self, known: &EmbeddedMigration) -> Result<Option<(i64, Progress)>, OperationError> {
        let left = data_migration::verify(&self.client, known).await?;
        if left > 0 {
            self.notify_server().await?;
        }
        Ok(data_migration::progress(&self.client, known).await?.map(|progress| (left, progress)))
    }

    /// Resumes a migration that is paused or has failed.
    pub async fn resume(&self, known: &EmbeddedMigration) -> Result<(), OperationError> {
        data_migration::resume(&self.client, known).await?;
        self.notify_server().await
    }

    /// Wakes the server, which runs data migrations in the background.
    async fn notify_server(&self) -> Result<(), OperationError> {
        let payload = Event::Migrations.payload();
        let notified = self.client.execute("SELECT pg_notify($1, $2)", &[&events::ENGINE, &payload]).await;
        notified.map(drop).map_err(|error| PgError::from(error).into())
    }
}

//! Runs the migrations for which an upgrade does not wait: data migrations, in batches with pauses, and later schema
//! migrations. A later migration has gates: conditions such as its age, or that a release is no longer installed.

use crate::app_state::AppState;
use crate::http::api_error::ApiError;
use crate::release::own_program;
use crate::state::database::DatastoreError;
use leoflow_base::home::journal;
use leoflow_base::home::lock;
use leoflow_base::home::operations::Status;
use leoflow_engine::store::events::Event;
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::schema::data_migration::{self, Batch};
use leoflow_postgres::schema::{self, SchemaError, TotalsGuard, known};
use serde_json::Value;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{info, warn};

/// Delay after the server's start, which has more urgent work.
fn start_delay() -> Duration {
    leoflow_base::sys::limit("LEOFLOW_LATER_MIGRATIONS_AFTER", Duration::from_secs(5))
}
/// Poll interval while the journal has an unfinished operation, such as an upgrade that is committed seconds after the
/// new server starts.
const COMMIT_POLL: Duration = Duration::from_secs(2);
/// Retry delay while another operation runs or rows are locked, and after a failed check of the gates.
const RETRY_DELAY: Duration = Duration::from_secs(20);
/// Interval for checking gates, which open after days or with another release.
const GATE_INTERVAL: Duration = Duration::from_secs(3600);
/// Poll interval; catches missed notifications.
const POLL_INTERVAL: Duration = Duration::from_secs(600);
/// Retry delay after a datastore error.
const ERROR_DELAY: Duration = Duration::from_secs(30);
/// Pause between batches, in addition to the duration of the last batch.
const BATCH_PAUSE: Duration = Duration::from_millis(20);

/// Runs migrations as they become due; sleeps until notified when there are none.
pub async fn run(state: AppState) {
    let mut events = state.core.changes.events.subscribe();
    tokio::time::sleep(start_delay()).await;
    let mut next_gate_check = Instant::now();
    let mut guard = TotalsGuard::new(INVARIANTS);
    loop {
        // An unfinished upgrade or restore may be undone, so nothing may build on it.
        if !matches!(journal::unfinished(&state.core.home), Ok(None)) {
            tokio::time::sleep(COMMIT_POLL).await;
            continue;
        }
        if next_gate_check <= Instant::now() {
            let gates_checked = apply_later(&state).await;
            next_gate_check = Instant::now() + if gates_checked { GATE_INTERVAL } else { RETRY_DELAY };
        }
        let pause = match next_batch(&state, &mut guard).await {
            Ok(Outcome::Pause(pause)) => pause,
            Ok(Outcome::Verified) => {
                guard = TotalsGuard::new(INVARIANTS);
                // The data migration may have been the last gate of a later migration.
                next_gate_check = Instant::now();
                continue;
            }
            Ok(Outcome::Nothing) => {
                let until = next_gate_check.min(Instant::now() + POLL_INTERVAL);
                let _ = tokio::time::timeout_at(until, notified(&mut events)).await;
                continue;
            }
            Err(error) => {
                warn!("data migrations are paused: {error}");
                ERROR_DELAY
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Completes when migrations may be due.
async fn notified(events: &mut Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Migrations) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The server is shutting down.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

/// The outcome of a step.
enum Outcome {
    /// More may be due after this pause.
    Pause(Duration),
    /// A data migration is complete, which may open a gate.
    Verified,
    /// No data migration is due.
    Nothing,
}

/// Why the migrations could not be read or run.
#[derive(Debug, thiserror::Error)]
enum MigrationError {
    #[error(transparent)]
    Datastore(#[from] DatastoreError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
}

/// Runs one batch of the first due data migration, or verifies a complete one.
async fn next_batch(state: &AppState, guard: &mut TotalsGuard) -> Result<Outcome, MigrationError> {
    let mut client = state.core.database.get().await?;
    let migrations = data_migration::list(&**client, known()).await?;
    let due = migrations.iter().find(|migration| migration.is_due());
    let Some((progress, known)) =
        due.and_then(|migration| Some((migration, known().iter().find(|known| known.version == migration.version)?)))
    else {
        return Ok(Outcome::Nothing);
    };
    if progress.status == data_migration::Status::Pending && progress.round == 1 && progress.batches == 0 {
        info!("data migration {} started", progress.migration);
    }
    if progress.status == data_migration::Status::Done {
        let remaining = data_migration::verify(&**client, known).await?;
        if remaining == 0 {
            info!("data migration {} verified: {} row(s) changed", progress.migration, progress.rows);
            return Ok(Outcome::Verified);
        }
        // Another round begins: rows were skipped, for example because they were locked.
        return Ok(Outcome::Pause(RETRY_DELAY));
    }
    let batch = data_migration::advance(&mut client, known, guard).await?;
    if batch == Batch::Nothing {
        // The first batch after a pause or a failure, and that of the next migration, is compared.
        *guard = TotalsGuard::new(INVARIANTS);
    }
    Ok(match batch {
        Batch::Moved { took, .. } => Outcome::Pause(took + BATCH_PAUSE),
        Batch::Done => Outcome::Pause(BATCH_PAUSE),
        Batch::Blocked => Outcome::Pause(RETRY_DELAY),
        Batch::Nothing => {
            let progress = data_migration::progress(&**client, known).await?;
            if let Some(progress) = progress.filter(|progress| progress.status == data_migration::Status::Failed) {
                let reason = progress.error.unwrap_or_default();
                warn!("data migration {} failed: {reason}; see leoflow data-migrate status", progress.migration);
            }
            Outcome::Pause(BATCH_PAUSE)
        }
    })
}

/// Applies the later schema migrations whose gates are open. Returns false when that must be retried soon, such as
/// while another operation runs.
async fn apply_later(state: &AppState) -> bool {
    match is_any_waiting(state).await {
        Ok(true) => {}
        Ok(false) => return true,
        Err(error) => {
            warn!("cannot check for later migrations: {error}");
            return false;
        }
    }
    // The gates depend on the releases that are kept, which the command knows.
    let Ok(status) = own_program::ask(&state.core.home, &["migrate-db", "status"]).await else { return false };
    let is_applicable = |migration: &Value| migration["gates_shut"].as_array().is_some_and(Vec::is_empty);
    let is_unrecorded = |migration: &Value| migration["phase"] == "contract" && migration["since"].is_null();
    if !status["waiting"]
        .as_array()
        .is_some_and(|all| all.iter().any(|migration| is_applicable(migration) || is_unrecorded(migration)))
    {
        return true;
    }
    if lock::operation_holder(&state.core.home).is_some() || own_program::is_busy(&state.core.home).await {
        return false;
    }
    let performed = own_program::perform(&state.core.home, "migration", ["migrate-db", "--later"]).await;
    let failed = |error: &ApiError| warn!("failed to start later migrations: {}", error.message());
    let Ok(operation) = performed.inspect_err(failed) else { return false };
    if operation.status != Status::Done {
        warn!("failed to apply later migrations: {}", operation.error.unwrap_or_default());
    }
    true
}

/// True when a later schema migration is not applied yet.
async fn is_any_waiting(state: &AppState) -> Result<bool, MigrationError> {
    let client = state.core.database.get().await?;
    let schema_state = schema::inspect(&**client).await?;
    Ok(!schema::waiting(known(), &schema_state).is_empty())
}

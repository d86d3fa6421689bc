//! What an upgrade leaves to its server: data migrations, batch by batch while nothing else wants the datastore as much,
//! and the migrations that come later. An upgrade never waits for either.

use super::own_program::is_busy;
use super::state::AppState;
use crate::engine::store::events::Event;
use crate::home::journal;
use crate::home::lock;
use crate::home::operations::Status;
use crate::schema::data_migration::{self, Batch};
use crate::schema::{self, SchemaError, known};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tracing::{info, warn};

/// A start has other things to do first.
const AFTER_START: Duration = Duration::from_secs(5);
/// An upgrade is committed soon after its server has begun.
const COMMIT: Duration = Duration::from_secs(2);
/// For what is under way, and for rows that somebody holds.
const LOOK: Duration = Duration::from_secs(20);
/// A gate opens after days, or with another release.
const GATES: Duration = Duration::from_secs(3600);
/// After a failure of the datastore.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two batches there is at least as long a pause as the batch took, and this.
const REST: Duration = Duration::from_millis(20);

/// Sleeps once nothing is left to do, until somebody says that there is, or another release comes.
pub async fn keep(state: Arc<AppState>) {
    let mut events = state.changes.events.subscribe();
    tokio::time::sleep(AFTER_START).await;
    let mut look_at_gates = tokio::time::Instant::now();
    loop {
        // What is not committed may be undone: nothing is built on it.
        if !matches!(journal::unfinished(&state.home), Ok(None)) {
            tokio::time::sleep(COMMIT).await;
            continue;
        }
        match migrate_data(&state).await {
            Ok(()) => {}
            Err(error) => {
                warn!("data migrations rest for a while: {error}");
                tokio::time::sleep(AGAIN).await;
                continue;
            }
        }
        match is_any_waiting(&state).await {
            Ok(false) => told(&mut events).await,
            Ok(true) if look_at_gates <= tokio::time::Instant::now() => {
                let was_tried = apply_later(&state).await;
                look_at_gates = tokio::time::Instant::now() + if was_tried { GATES } else { LOOK };
            }
            _ => {
                let _ = tokio::time::timeout_at(look_at_gates, told(&mut events)).await;
            }
        }
    }
}

/// Completes when there may be something to do.
async fn told(events: &mut Receiver<Event>) {
    loop {
        match events.recv().await {
            Ok(Event::Migrations) | Err(RecvError::Lagged(_)) => return,
            Ok(_) => {}
            // The server leaves.
            Err(RecvError::Closed) => return std::future::pending().await,
        }
    }
}

async fn is_any_waiting(state: &AppState) -> Result<bool, String> {
    let client = state.database.get().await.map_err(|error| error.message().to_owned())?;
    let found = schema::inspect(&**client).await.map_err(|error| error.to_string())?;
    Ok(!schema::waiting(known(), &found).is_empty())
}

/// Does what is due, until nothing is or an upgrade begins.
async fn migrate_data(state: &AppState) -> Result<(), String> {
    let due: Vec<i64> = {
        let client = state.database.get().await.map_err(|error| error.message().to_owned())?;
        let all = data_migration::list(&**client, known()).await.map_err(|error| error.to_string())?;
        all.iter().filter(|one| one.is_due()).map(|one| one.version).collect()
    };
    for known in known().iter().filter(|known| due.contains(&known.version)) {
        info!("data migration V{:04}__{} goes on", known.version, known.name);
        to_its_end(state, known).await?;
    }
    Ok(())
}

/// Until it is verified, paused, or has failed.
async fn to_its_end(state: &AppState, known: &schema::Known) -> Result<(), String> {
    let in_words = |error: SchemaError| error.to_string();
    loop {
        if state.home.journal().exists() {
            return Ok(());
        }
        // A connection for each: between batches it is another's.
        let mut client = state.database.get().await.map_err(|error| error.message().to_owned())?;
        match data_migration::advance(&mut client, known).await.map_err(in_words)? {
            Batch::Moved { took, .. } => {
                drop(client);
                tokio::time::sleep(took + REST).await;
            }
            Batch::Done => {}
            Batch::Nothing => {
                let Some(now) = data_migration::progress(&**client, known).await.map_err(in_words)? else {
                    return Ok(());
                };
                match now.status {
                    data_migration::Status::Done if !now.is_paused => {
                        let left = data_migration::verify(&**client, known).await.map_err(in_words)?;
                        if left == 0 {
                            info!("data migration {} is verified: {} row(s) changed", now.migration, now.rows);
                            return Ok(());
                        }
                        drop(client);
                        // What somebody held may be free by then.
                        tokio::time::sleep(LOOK).await;
                    }
                    data_migration::Status::Failed => {
                        let reason = now.error.unwrap_or_default();
                        warn!("data migration {} has failed: {reason}; leoflow data-migrate status", now.migration);
                        return Ok(());
                    }
                    _ => return Ok(()),
                }
            }
        }
    }
}

/// Whether it was tried: what else is under way goes first.
async fn apply_later(state: &Arc<AppState>) -> bool {
    if lock::operation_holder(&state.home).is_some() || is_busy(&state.home).await {
        return false;
    }
    let arguments = ["migrate-db", "--later"].map(str::to_owned).to_vec();
    let Some(ended) = state.own_program.perform(&state.home, "migration", arguments).await else { return false };
    if ended.status != Status::Done {
        warn!("what comes after the upgrade was not applied: {}", ended.error.unwrap_or_default());
    }
    true
}

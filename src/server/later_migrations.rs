//! What an upgrade leaves to its server: data migrations, batch by batch while nothing else wants the datastore as much,
//! and the migrations that come later. An upgrade never waits for either.

use super::own_program;
use super::state::AppState;
use crate::engine::store::events::Event;
use crate::home::journal;
use crate::home::lock;
use crate::home::operations::Status;
use crate::schema::data_migration::{self, Batch};
use crate::schema::{self, SchemaError, known};
use serde_json::Value;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::broadcast::Receiver;
use tokio::sync::broadcast::error::RecvError;
use tokio::time::Instant;
use tracing::{info, warn};

/// A start has other things to do first.
fn after_start() -> Duration {
    crate::sys::limit("LEOFLOW_LATER_MIGRATIONS_AFTER", Duration::from_secs(5))
}
/// An upgrade is committed soon after its server has begun.
const COMMIT: Duration = Duration::from_secs(2);
/// For what is under way, and for rows that somebody holds.
const LOOK: Duration = Duration::from_secs(20);
/// A gate opens after days, or with another release.
const GATES: Duration = Duration::from_secs(3600);
/// For what nobody was told of, because the datastore was away.
const UNTOLD: Duration = Duration::from_secs(600);
/// After a failure of the datastore.
const AGAIN: Duration = Duration::from_secs(30);
/// Between two batches there is at least as long a pause as the batch took, and this.
const REST: Duration = Duration::from_millis(20);

/// Sleeps while there is nothing to do, until somebody says that there is.
pub async fn keep(state: Arc<AppState>) {
    let mut events = state.changes.events.subscribe();
    tokio::time::sleep(after_start()).await;
    let mut look_at_gates = Instant::now();
    loop {
        // What is not committed may be undone: nothing is built on it.
        if !matches!(journal::unfinished(&state.home), Ok(None)) {
            tokio::time::sleep(COMMIT).await;
            continue;
        }
        if look_at_gates <= Instant::now() {
            let was_looked = apply_later(&state).await;
            look_at_gates = Instant::now() + if was_looked { GATES } else { LOOK };
        }
        let rest = match next_batch(&state).await {
            Ok(Next::Rest(rest)) => rest,
            Ok(Next::Verified) => {
                // It may have been the last gate.
                look_at_gates = Instant::now();
                continue;
            }
            Ok(Next::Nothing) => {
                let until = look_at_gates.min(Instant::now() + UNTOLD);
                let _ = tokio::time::timeout_at(until, told(&mut events)).await;
                continue;
            }
            Err(error) => {
                warn!("data migrations rest for a while: {error}");
                AGAIN
            }
        };
        tokio::time::sleep(rest).await;
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

enum Next {
    /// There is more, after so long.
    Rest(Duration),
    Verified,
    Nothing,
}

/// Does one batch of what is due.
async fn next_batch(state: &AppState) -> Result<Next, String> {
    let in_words = |error: SchemaError| error.to_string();
    let mut client = state.database.get().await.map_err(|error| error.message().to_owned())?;
    let all = data_migration::list(&**client, known()).await.map_err(in_words)?;
    let due = all.iter().find(|one| one.is_due());
    let Some((now, known)) =
        due.and_then(|one| Some((one, known().iter().find(|known| known.version == one.version)?)))
    else {
        return Ok(Next::Nothing);
    };
    if now.status == data_migration::Status::Pending && now.round == 1 && now.batches == 0 {
        info!("data migration {} begins", now.migration);
    }
    if now.status == data_migration::Status::Done {
        let left = data_migration::verify(&**client, known).await.map_err(in_words)?;
        if left == 0 {
            info!("data migration {} is verified: {} row(s) changed", now.migration, now.rows);
            return Ok(Next::Verified);
        }
        // What somebody held may be free by then.
        return Ok(Next::Rest(LOOK));
    }
    Ok(match data_migration::advance(&mut client, known).await.map_err(in_words)? {
        Batch::Moved { took, .. } => Next::Rest(took + REST),
        Batch::Done => Next::Rest(REST),
        Batch::Hindered => Next::Rest(LOOK),
        Batch::Nothing => {
            let now = data_migration::progress(&**client, known).await.map_err(in_words)?;
            if let Some(now) = now.filter(|now| now.status == data_migration::Status::Failed) {
                let reason = now.error.unwrap_or_default();
                warn!("data migration {} has failed: {reason}; leoflow data-migrate status", now.migration);
            }
            Next::Rest(REST)
        }
    })
}

/// Whether it was looked at: what else is under way goes first.
async fn apply_later(state: &Arc<AppState>) -> bool {
    match is_any_waiting(state).await {
        Ok(true) => {}
        Ok(false) => return true,
        Err(error) => {
            warn!("what comes after the upgrade cannot be asked for: {error}");
            return false;
        }
    }
    // Which releases are kept, and what they know, is the command's to find out.
    let status = match own_program::ask(&state.home, &["migrate-db", "status"]).await {
        Ok(status) => status,
        Err(_) => return false,
    };
    let may_come = |one: &Value| one["gates_shut"].as_array().is_some_and(Vec::is_empty);
    let is_new = |one: &Value| one["phase"] == "contract" && one["since"].is_null();
    if !status["waiting"].as_array().is_some_and(|all| all.iter().any(|one| may_come(one) || is_new(one))) {
        return true;
    }
    if lock::operation_holder(&state.home).is_some() || own_program::is_busy(&state.home).await {
        return false;
    }
    let arguments = ["migrate-db", "--later"].map(str::to_owned).to_vec();
    let ended = match state.own_program.perform(&state.home, "migration", arguments).await {
        Ok(ended) => ended,
        Err(refused) => {
            warn!("what comes after the upgrade was not begun: {}", refused.message());
            return false;
        }
    };
    if ended.status != Status::Done {
        warn!("what comes after the upgrade was not applied: {}", ended.error.unwrap_or_default());
    }
    true
}

async fn is_any_waiting(state: &AppState) -> Result<bool, String> {
    let client = state.database.get().await.map_err(|error| error.message().to_owned())?;
    let found = schema::inspect(&**client).await.map_err(|error| error.to_string())?;
    Ok(!schema::waiting(known(), &found).is_empty())
}

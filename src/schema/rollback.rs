//! Undoing migrations by the SQL that the ledger carries: also those that this binary never knew.

use super::ledger::{self, Undoable};
use super::migrate::{release_lock, take_lock};
use super::{SchemaError, State, classify, known, later};
use tokio_postgres::Client;

/// What was undone.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// Names with versions, newest first: `V0002__engine`.
    pub undone: Vec<String>,
    pub version: i64,
}

/// Which part of the history to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This version, which must be the newest.
    Newest(i64),
    /// Everything above this version.
    DownTo(i64),
}

/// Undoes in one transaction each, newest first. Everything is checked before anything is undone.
pub async fn rollback(
    lock: &Client,
    work: &mut Client,
    extent: Extent,
    report: &mut dyn FnMut(&str),
) -> Result<RolledBack, SchemaError> {
    take_lock(lock).await?;
    let undone = rollback_locked(work, extent, report).await;
    release_lock(lock).await;
    undone
}

/// What would be undone, by name; every refusal that `rollback` has comes here already.
pub async fn to_undo(client: &Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    Ok(steps(client, extent).await?.iter().map(label).collect())
}

pub(super) async fn steps(client: &Client, extent: Extent) -> Result<Vec<Undoable>, SchemaError> {
    let found = ledger::inspect(client).await?;
    // A newer database may be undone, that is what the ledger is for; one not understood may not.
    if let Some(reason) = classify::damage(&found) {
        return Err(SchemaError::Damaged(reason));
    }
    if let State::Gap { missing } = classify::classify(known(), &found) {
        return Err(SchemaError::Gap(missing));
    }
    let newest = classify::database_version(&found);
    let above = match extent {
        Extent::Newest(asked) if asked != newest => return Err(SchemaError::NotNewest { asked, newest }),
        Extent::Newest(asked) => asked - 1,
        Extent::DownTo(version) => version,
    };
    if newest == 0 || above >= newest {
        return Err(SchemaError::NothingToUndo);
    }
    let steps = ledger::undoable(client, above).await?;
    match steps.iter().find(|step| step.rollback_sql.is_none()) {
        Some(fixed) => Err(SchemaError::NotReversible(label(fixed))),
        None => Ok(steps),
    }
}

async fn rollback_locked(
    work: &mut Client,
    extent: Extent,
    report: &mut dyn FnMut(&str),
) -> Result<RolledBack, SchemaError> {
    let mut undone = Vec::new();
    for step in &steps(work, extent).await? {
        undo(work, step).await?;
        crate::sys::checkpoint(&format!("rolled-back.{}", step.version));
        report(&label(step));
        undone.push(label(step));
    }
    let version = classify::database_version(&ledger::inspect(work).await?);
    later::forget(work, version).await?;
    Ok(RolledBack { undone, version })
}

async fn undo(work: &mut Client, step: &Undoable) -> Result<(), SchemaError> {
    let failed = |error: tokio_postgres::Error| SchemaError::Failed {
        migration: format!("the rollback of {}", label(step)),
        reason: crate::postgres::PgError::from(error).to_string(),
    };
    work.batch_execute("SET lock_timeout = '30s'").await.map_err(failed)?;
    let transaction = work.transaction().await.map_err(failed)?;
    transaction.batch_execute(step.rollback_sql.as_deref().unwrap_or_default()).await.map_err(failed)?;
    let version = i32::try_from(step.version).unwrap_or(i32::MAX);
    transaction.execute("DELETE FROM leoflow_ledger WHERE version = $1", &[&version]).await.map_err(failed)?;
    transaction.execute("DELETE FROM refinery_schema_history WHERE version = $1", &[&version]).await.map_err(failed)?;
    transaction.commit().await.map_err(failed)
}

fn label(step: &Undoable) -> String {
    format!("V{:04}__{}", step.version, step.name)
}

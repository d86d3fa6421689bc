//! Undoes migrations with the rollback SQL in the ledger, including those that this binary does not know.

use super::ledger::{self, Undoable};
use super::schema_state::{self, State, classify, database_version};
use super::{SchemaError, deferred, known, migrate};
use crate::{PgError, locks};
use tokio_postgres::Client;

/// The result of a rollback.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RolledBack {
    /// Names with versions, for example `V0002__engine`, newest first.
    pub undone: Vec<String>,
    pub version: i64,
}

/// The part of the history to undo.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Extent {
    /// This version, which must be the newest.
    OnlyNewest(i64),
    /// Everything above this version.
    DownTo(i64),
}

/// Undoes migrations, newest first, one transaction each, after checking all of them.
pub async fn rollback(
    lock: &Client,
    migration_client: &mut Client,
    extent: Extent,
    report: &mut dyn FnMut(&str),
) -> Result<RolledBack, SchemaError> {
    migrate::locked(lock, rollback_locked(migration_client, extent, report)).await
}

/// Lists the migrations that [`rollback`] would undo; fails when it would refuse.
pub async fn to_undo(client: &Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    Ok(undo_steps(client, extent).await?.iter().map(Undoable::label).collect())
}

/// The migrations to undo, newest first; fails when one of them cannot be undone.
pub(super) async fn undo_steps(client: &Client, extent: Extent) -> Result<Vec<Undoable>, SchemaError> {
    let records = ledger::inspect(client).await?;
    // The ledger allows undoing a newer schema, but not a damaged one.
    if let Some(reason) = schema_state::damage(&records) {
        return Err(SchemaError::Damaged(reason));
    }
    if let State::Gap { missing } = classify(known(), &records) {
        return Err(SchemaError::Gap(missing));
    }
    let newest = database_version(&records);
    let above = match extent {
        Extent::OnlyNewest(requested) if requested != newest => {
            return Err(SchemaError::NotNewest { requested, newest });
        }
        Extent::OnlyNewest(requested) => requested - 1,
        Extent::DownTo(version) => version,
    };
    if newest == 0 || above >= newest {
        return Err(SchemaError::NothingToUndo);
    }
    let undo_steps = ledger::undoable(client, above).await?;
    match undo_steps.iter().find(|step| step.rollback_sql.is_none()) {
        Some(irreversible) => Err(SchemaError::NotReversible(irreversible.label())),
        None => Ok(undo_steps),
    }
}

async fn rollback_locked(
    migration_client: &mut Client,
    extent: Extent,
    report: &mut dyn FnMut(&str),
) -> Result<RolledBack, SchemaError> {
    let mut undone = Vec::new();
    for step in &undo_steps(migration_client, extent).await? {
        if let Err(error) = undo(migration_client, step).await {
            let (action, error) = (format!("the rollback of {}", step.label()), PgError::from(error));
            return Err(migrate::failure(migration_client, action, error.to_string(), error.sql_state()).await);
        }
        leoflow_base::sys::checkpoint(&format!("rolled-back.{}", step.version));
        report(&step.label());
        undone.push(step.label());
    }
    let version = database_version(&ledger::inspect(migration_client).await?);
    deferred::delete_records(migration_client, version).await?;
    Ok(RolledBack { undone, version })
}

/// Undoes one migration in a transaction.
async fn undo(migration_client: &mut Client, step: &Undoable) -> Result<(), tokio_postgres::Error> {
    migrate::prepare(migration_client, locks::limit()).await?;
    let transaction = migration_client.transaction().await?;
    transaction.batch_execute(step.rollback_sql.as_deref().unwrap_or_default()).await?;
    let version = i32::try_from(step.version).unwrap_or(i32::MAX);
    transaction.execute("DELETE FROM leoflow_ledger WHERE version = $1", &[&version]).await?;
    transaction.execute("DELETE FROM refinery_schema_history WHERE version = $1", &[&version]).await?;
    transaction.commit().await
}

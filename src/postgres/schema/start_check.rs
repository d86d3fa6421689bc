//! Refuses a database whose schema this program must not use: a newer one, an incomplete one, or one that is not migrated
//! yet.

use super::embedded::{EmbeddedMigration, newest};
use super::schema_state::{State, classify, database_version};
use super::{SchemaError, ledger};
use tokio_postgres::GenericClient;

/// Fails unless every migration of `known` that is not deferred, and no unknown one, is applied; checked when a process
/// starts to use the database.
pub async fn require_current(client: &impl GenericClient, known: &[EmbeddedMigration]) -> Result<i64, SchemaError> {
    let records = ledger::inspect(client).await?;
    let state = classify(known, &records);
    match refusal(&state) {
        Some(error) => Err(error),
        None => match state {
            State::Current { version } => Ok(version),
            _ => Err(SchemaError::NotMigrated { database: database_version(&records), binary: newest(known) }),
        },
    }
}

/// The error for states in which nothing may be written.
pub fn refusal(state: &State) -> Option<SchemaError> {
    match state.clone() {
        State::Fresh | State::Current { .. } | State::Pending { .. } => None,
        State::Newer { database, binary } => Some(SchemaError::Newer { database, binary }),
        State::Edited { files } => Some(SchemaError::Edited(files)),
        State::Gap { missing } => Some(SchemaError::Gap(missing)),
        State::Damaged { reason } => Some(SchemaError::Damaged(reason)),
    }
}

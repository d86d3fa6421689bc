//! Postgres storage of the engine's objects. This module defines the types that all stores share.

pub mod airflow_history;
pub mod asset;
pub mod clock_step;
pub mod dag;
pub mod event_log;
pub mod events;
pub mod history;
pub mod instance;
pub(crate) mod instance_key;
pub mod list;
pub mod metrics;
pub mod notifications;
pub mod pools;
mod refused;
pub mod request_keys;
pub mod restored_run;
pub(crate) mod rows;
pub mod run;
pub mod secret;
pub mod session;
pub mod totals;
pub(crate) mod transition;

use crate::model::params::ParamError;
use crate::schedule::partition_key::PartitionError;
use leoflow_base::auth::cipher::CipherError;
use leoflow_postgres::PgError;
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

/// The result of an operation on the store.
pub type Result<T, E = StoreError> = std::result::Result<T, E>;

/// Why an operation on the store failed; `what` is the kind of object, `id` identifies it.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {id:?} already exists")]
    AlreadyExists { what: &'static str, id: String },
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Invalid(String),
    /// Refused for now, for example because a task is running.
    #[error("{0}")]
    Busy(String),
    #[error("{what} {id:?} cannot be decrypted: the encryption key has changed, or the row was altered")]
    Sealed { what: &'static str, id: String },
    /// A row has a value that this version does not know, although the table's constraints should allow no such value.
    #[error("the database has an unknown {column}: {value:?}")]
    UnknownValue { column: String, value: String },
    /// A column of another type, or JSON of another form, such as that of another release.
    #[error("cannot read {column}: {source}")]
    Unreadable { column: String, source: tokio_postgres::Error },
    #[error(transparent)]
    Cipher(#[from] CipherError),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

impl StoreError {
    /// True if rows of one run or DAG make no sense; others are not affected.
    pub(crate) fn is_invalid_data(&self) -> bool {
        matches!(self, Self::Invalid(_) | Self::UnknownValue { .. } | Self::Unreadable { .. })
    }
}

impl From<tokio_postgres::Error> for StoreError {
    fn from(error: tokio_postgres::Error) -> Self {
        let invalid = [
            &SqlState::CHECK_VIOLATION,
            &SqlState::CHARACTER_NOT_IN_REPERTOIRE,
            &SqlState::UNTRANSLATABLE_CHARACTER,
            &SqlState::NUMERIC_VALUE_OUT_OF_RANGE,
        ];
        match error.code() {
            // Class 22: data exceptions; class 54: program limit exceeded.
            Some(code) if invalid.contains(&code) || ["22", "54"].contains(&&code.code()[..2]) => {
                Self::Invalid(refused::explain(error))
            }
            _ => Self::Postgres(error.into()),
        }
    }
}

impl From<ParamError> for StoreError {
    fn from(error: ParamError) -> Self {
        Self::Invalid(error.to_string())
    }
}

impl From<PartitionError> for StoreError {
    fn from(error: PartitionError) -> Self {
        Self::Invalid(error.to_string())
    }
}

/// Whether the caller will update the row in the same transaction, so that the SELECT must lock it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFor {
    Reading,
    Update,
}

impl ReadFor {
    /// The locking clause of the SELECT statement.
    pub(super) fn clause(self) -> &'static str {
        match self {
            Self::Reading => "",
            Self::Update => " FOR UPDATE",
        }
    }
}

/// How an import handles an entry that exists: Airflow's `--action-on-existing-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    Overwrite,
    Skip,
    Fail,
}

impl OnExisting {
    /// Evaluates an attempt to create an entry: true if it was created, false if it exists and is skipped, otherwise
    /// the error.
    pub(super) fn settle(self, created: Result<()>) -> Result<bool> {
        match created {
            Err(StoreError::AlreadyExists { .. }) if self == Self::Skip => Ok(false),
            other => other.map(|()| true),
        }
    }
}

//! What the stores have in common.

pub mod asset_lists;
pub mod assets;
pub mod backfill_end;
pub mod backfills;
pub mod callbacks;
pub mod clear;
pub mod clock_step;
mod conditions;
pub mod connections;
mod cursor;
pub mod dag_facts;
pub mod dags;
pub mod encryption_key;
pub mod environments;
pub mod event_log;
pub mod events;
pub mod grid;
pub mod hitl;
pub mod instances;
pub mod lengths;
pub mod listing;
pub mod mark;
pub mod new_run;
pub mod other_runs;
pub mod overview;
pub mod partitions;
pub mod pools;
mod relatives;
pub mod requeue;
pub mod revoked_tokens;
pub mod runs;
pub mod secrets;
pub mod selected;
pub mod states;
pub mod structures;
pub mod tries;
pub mod triggers;
pub mod try_lists;
pub mod variables;
pub mod versions;
pub mod waiting;
pub mod watchers;
pub mod xcoms;

use crate::auth::cipher::CipherError;
use crate::postgres::PgError;
use serde::{Deserialize, Serialize};
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {id:?} exists already")]
    AlreadyExists { what: &'static str, id: String },
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Invalid(String),
    /// Not now: something runs.
    #[error("{0}")]
    Busy(String),
    #[error("{what} {id:?} cannot be decrypted: the encryption key is another one, or the row was altered")]
    Sealed { what: &'static str, id: String },
    #[error(transparent)]
    Cipher(#[from] CipherError),
    #[error(transparent)]
    Postgres(#[from] PgError),
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
            // Class 22 are values that cannot be, class 54 those that are too much.
            Some(code) if invalid.contains(&code) || ["22", "54"].contains(&&code.code()[..2]) => {
                Self::Invalid(PgError::from(error).to_string())
            }
            _ => Self::Postgres(error.into()),
        }
    }
}

/// Whether a row that is read is about to be written in the same transaction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadFor {
    Reading,
    Update,
}

impl ReadFor {
    pub(super) fn clause(self) -> &'static str {
        match self {
            Self::Reading => "",
            Self::Update => " FOR UPDATE",
        }
    }
}

/// What an import does with an entry that exists: Airflow's `--action-on-existing-key`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnExisting {
    Overwrite,
    Skip,
    Fail,
}

impl OnExisting {
    /// Whether an entry that may be new was written; one that exists was skipped, or is an error.
    pub(super) fn settle(self, created: Result<(), StoreError>) -> Result<bool, StoreError> {
        match created {
            Err(StoreError::AlreadyExists { .. }) if self == Self::Skip => Ok(false),
            other => other.map(|()| true),
        }
    }
}

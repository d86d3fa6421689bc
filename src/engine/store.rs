//! What the stores have in common.

use crate::auth::cipher::CipherError;
use crate::postgres::PgError;
use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error("{what} {id:?} exists already")]
    AlreadyExists { what: &'static str, id: String },
    #[error("there is no {what} {id:?}")]
    NotFound { what: &'static str, id: String },
    #[error("{0}")]
    Invalid(String),
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
            Some(code) if invalid.contains(&code) => Self::Invalid(PgError::from(error).to_string()),
            _ => Self::Postgres(error.into()),
        }
    }
}

/// A page of a list, in Airflow's words. `pattern` is SQL's LIKE, `%` for anything.
#[derive(Debug, Clone)]
pub struct Page {
    pub limit: i64,
    pub offset: i64,
    pub descending: bool,
    pub pattern: Option<String>,
}

/// Everything, for an export.
pub const ALL: Page = Page { limit: i64::MAX, offset: 0, descending: false, pattern: None };

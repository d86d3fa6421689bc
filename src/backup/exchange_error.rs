//! Why an exchange of what is in force could not be made.

use super::content::ContentError;
use crate::config::UpdateError;
use crate::home::journal::JournalError;
use crate::postgres::PgError;
use crate::postgres::place::PlaceError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("{doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Place(#[from] PlaceError),
    #[error(transparent)]
    Content(#[from] Box<ContentError>),
    #[error(transparent)]
    Config(#[from] UpdateError),
    #[error("the plan of the exchange cannot be read or written: {0}")]
    Plan(String),
    #[error("another release began this restore, and its steps are others here")]
    OtherSteps,
    #[error("everything is as it was before: {0}")]
    TurnedBack(Box<ExchangeError>),
    #[error("it could not be finished ({0}), nor undone ({1})")]
    Stuck(Box<ExchangeError>, Box<ExchangeError>),
}

pub(super) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ExchangeError {
    ExchangeError::Io { doing, path: path.to_owned(), source }
}

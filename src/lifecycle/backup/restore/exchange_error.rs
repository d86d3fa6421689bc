//! Errors of an exchange.

use crate::backup::content::ContentError;
use leoflow_base::config::UpdateError;
use leoflow_base::home::journal::JournalError;
use leoflow_postgres::PgError;
use leoflow_postgres::location::LocationError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ExchangeError {
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Content(#[from] Box<ContentError>),
    #[error(transparent)]
    Config(#[from] UpdateError),
    #[error("cannot read or write the plan of the exchange: {0}")]
    Plan(String),
    #[error("another release started this restore, and its steps differ from this release's")]
    OtherSteps,
    #[error("everything was put back as it was: {0}")]
    Reverted(Box<ExchangeError>),
    #[error("cannot finish ({0}) or undo it ({1})")]
    Stuck(Box<ExchangeError>, Box<ExchangeError>),
}

pub(crate) fn io_error(doing: &'static str, path: &Path, source: io::Error) -> ExchangeError {
    ExchangeError::Io { doing, path: path.to_owned(), source }
}

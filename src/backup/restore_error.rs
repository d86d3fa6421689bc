//! Why a backup cannot be read or restored.

use super::archive_read::ArchiveError;
use super::content::ContentError;
use super::encryption::NotOpened;
use super::exchange_error::ExchangeError;
use super::load::LoadError;
use super::restore_plan::{ConfigRefusal, Refusal};
use super::workshop::WorkshopError;
use crate::postgres::PgError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is encrypted, and {why}")]
    NotOpened { path: PathBuf, why: NotOpened },
    #[error("{path} cannot be restored: {source}")]
    Archive { path: PathBuf, source: ArchiveError },
    #[error(transparent)]
    Refused(#[from] Refusal),
    #[error(transparent)]
    Config(#[from] ConfigRefusal),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Workshop(#[from] WorkshopError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("what was kept is gone: {0} is not there")]
    KeptGone(PathBuf),
    #[error("no state is kept that could be brought back")]
    NothingKept,
}

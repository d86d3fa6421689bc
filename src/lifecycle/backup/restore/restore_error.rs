//! Errors of reading or restoring a backup.

use super::exchange_error::ExchangeError;
use super::restore_plan::{ConfigRefusal, RestoreRefusal};
use crate::backup::content::ContentError;
use crate::backup::encryption::NotOpened;
use crate::backup::format::archive_read::ArchiveError;
use crate::backup::verify::load_error::LoadError;
use crate::backup::verify::staging::StagingError;
use leoflow_postgres::PgError;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum RestoreError {
    #[error("cannot open {path}: {source}")]
    Open { path: PathBuf, source: io::Error },
    #[error("{path} is encrypted: {why}")]
    NotOpened { path: PathBuf, why: NotOpened },
    #[error("cannot restore {path}: {source}")]
    Archive { path: PathBuf, source: ArchiveError },
    #[error(transparent)]
    Refused(#[from] RestoreRefusal),
    #[error(transparent)]
    Config(#[from] ConfigRefusal),
    #[error(transparent)]
    Load(#[from] LoadError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    StagingServer(#[from] StagingError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Exchange(#[from] ExchangeError),
    #[error("cannot read or write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
    #[error("the retained state is incomplete: {0} does not exist")]
    RetainedStateMissing(PathBuf),
    #[error("no earlier state is retained")]
    NoRetainedState,
}

impl RestoreError {
    /// True when the backup is encrypted and no given key or passphrase decrypts it.
    pub(crate) fn cannot_decrypt(&self) -> bool {
        matches!(self, Self::NotOpened { why, .. } if !matches!(why, NotOpened::Unusable(_)))
    }

    /// True when the cause is the backup file, not this machine.
    pub fn is_refusal(&self) -> bool {
        match self {
            Self::Archive { source: ArchiveError::Sink(_) | ArchiveError::Open(_), .. } => false,
            Self::Archive { .. } | Self::Config(_) | Self::Refused(RestoreRefusal::NewerSchema { .. }) => true,
            Self::Load(error) => error.is_data_error(),
            _ => false,
        }
    }
}

//! Why an operation failed.

use super::open::datastore::{Datastore, EndOfInstance};
use super::open::{OpenError, claims::ClaimError};
use crate::backup::RestoreError;
use crate::backup::create::CreateError;
use crate::backup::encryption::EncryptionError;
use crate::backup::relocation::RelocationError;
use crate::upgrade::UpgradeError;
use leoflow_base::config::ConfigError;
use leoflow_base::home::lock::LockError;
use std::io;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("Leoflow is not set up in this home; there is nothing to back up")]
    NothingToBackUp,
    #[error("no backups in {0}")]
    NoBackups(PathBuf),
    /// The running instance has stopped or restarted, which caused the error.
    #[error("Leoflow was {end} meanwhile, and with it the datastore that this command used: {source}")]
    InstanceEnded { end: EndOfInstance, source: Box<OperationError> },
    #[error(transparent)]
    Open(#[from] OpenError),
    #[error(transparent)]
    Create(#[from] CreateError),
    #[error(transparent)]
    Restore(#[from] RestoreError),
    #[error(transparent)]
    Encryption(#[from] EncryptionError),
    #[error(transparent)]
    Relocation(#[from] RelocationError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
}

impl From<ConfigError> for OperationError {
    fn from(error: ConfigError) -> Self {
        OpenError::from(error).into()
    }
}

impl From<LockError> for OperationError {
    fn from(error: LockError) -> Self {
        OpenError::from(error).into()
    }
}

impl From<ClaimError> for OperationError {
    fn from(error: ClaimError) -> Self {
        OpenError::from(error).into()
    }
}

impl OperationError {
    /// The error of a file operation: "cannot {doing} {path}".
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| OpenError::Io { doing, path, source }.into()
    }

    /// The error of work in the datastore, which fails if the running instance ends.
    pub(super) fn in_datastore(datastore: &Datastore, error: impl Into<Self>) -> Self {
        match datastore.end_of_instance() {
            None => error.into(),
            Some(end) => Self::InstanceEnded { end, source: Box::new(error.into()) },
        }
    }
}

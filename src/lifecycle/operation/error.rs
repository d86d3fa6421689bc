//! Why an operation failed.

use super::open::OpenError;
use super::data_migrations::DataMigrationError;
use super::migrations::SchemaChange;
use super::open::datastore::{Datastore, EndOfInstance};
use crate::backup::RestoreError;
use crate::backup::create::CreateError;
use crate::backup::encryption::EncryptionError;
use crate::backup::relocation::RelocationError;
use crate::backup::restore::quarantine::QuarantineError;
use crate::setup::{ApplyError, FactsError, ReceiptError, Refusal};
use crate::upgrade::UpgradeError;
use leoflow_base::config::{ConfigError, DatastoreSetting};
use leoflow_base::home::HomeError;
use leoflow_base::home::journal::JournalError;
use crate::upgrade::rollback::target::RollbackTargetError;
use crate::upgrade::smoke::SmokeError;
use crate::upgrade::target_release::TargetError;
use leoflow_base::home::lock::LockError;
use leoflow_base::sys::fs::disk::human_size;
use leoflow_postgres::PgError;
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::external::database_check::DatabaseCheckError;
use leoflow_postgres::location::LocationError;
use leoflow_postgres::schema::SchemaError;
use std::io;
use std::path::{Path, PathBuf};

/// Why config.yaml is unusable although a datastore exists. A restore with `--force` replaces it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum LostConfig {
    #[error("config.yaml is missing, and with it the key of encrypted data")]
    Missing,
    #[error("config.yaml has no encryption_key, the key of encrypted data")]
    NoKey,
}

#[derive(Debug, thiserror::Error)]
pub enum OperationError {
    #[error("Leoflow is not set up in this home; there is nothing to back up")]
    NothingToBackUp,
    #[error("no backups in {0}")]
    NoBackups(PathBuf),
    /// The running instance has stopped or restarted, which caused the error.
    #[error("Leoflow was {end} meanwhile, and with it the datastore that this command used: {source}")]
    InstanceEnded { end: EndOfInstance, source: Box<OperationError> },
    #[error("Leoflow runs in a terminal (pid {0})")]
    InTerminal(i32),
    #[error("pid {0} does not stop")]
    DoesNotStop(i32),
    #[error("Leoflow was started in the meantime; nothing was changed")]
    StartedMeanwhile,
    #[error("{lost_config}; the data is in {datastore}")]
    DataElsewhere { lost_config: LostConfig, datastore: String },
    #[error("setup.json is missing")]
    NoReceipt,
    #[error(
        "the state that the restore replaced was unreadable; its datastore is kept in {datastore}, its workspace and \
         task logs in {other_files}"
    )]
    RetainedUnreadable { datastore: PathBuf, other_files: PathBuf },
    #[error(
        "the state that the restore replaced is of a newer leoflow: its schema is {database}, this one knows up to \
         {binary}"
    )]
    RetainedSchemaNewer { database: i64, binary: i64 },
    /// `setting` is the value for config.yaml, if it has another.
    #[error("the data of this home is already in {datastore}")]
    SameDatastore { datastore: String, setting: Option<DatastoreSetting> },
    #[error("not enough disk space in {path}: {} needed, {} free", human_size(*.needed), human_size(*.free))]
    NoSpaceToMove { path: PathBuf, needed: u64, free: u64 },
    #[error("failed to read the import errors of the running instance: {0}")]
    KnownFaults(#[source] SmokeError),
    #[error("the {change} did not run, because the backup before it failed: {source}")]
    BackUpBefore { change: SchemaChange, source: CreateError },
    #[error("cannot roll back the schema while Leoflow is running")]
    SchemaInUse,
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
    #[error(transparent)]
    Home(#[from] HomeError),
    #[error(transparent)]
    Location(#[from] LocationError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error(transparent)]
    Quarantine(#[from] QuarantineError),
    #[error(transparent)]
    SetupFacts(#[from] FactsError),
    #[error(transparent)]
    SetupRefusal(#[from] Refusal),
    #[error(transparent)]
    Setup(#[from] ApplyError),
    #[error(transparent)]
    Container(#[from] ContainerError),
    #[error(transparent)]
    DatabaseCheck(#[from] DatabaseCheckError),
    #[error(transparent)]
    DataMigration(#[from] DataMigrationError),
    #[error(transparent)]
    Target(#[from] TargetError),
    #[error(transparent)]
    Rollback(#[from] RollbackTargetError),
}

/// The errors that [`OpenError`] holds too.
macro_rules! from_open {
    ($($error:ty),+) => {
        $(impl From<$error> for OperationError {
            fn from(error: $error) -> Self {
                OpenError::from(error).into()
            }
        })+
    };
}

from_open!(ConfigError, JournalError, LockError, PgError, SchemaError);

impl From<SchemaError> for OperationError {
    fn from(error: SchemaError) -> Self {
        OpenError::from(error).into()
    }
}

impl From<PgError> for OperationError {
    fn from(error: PgError) -> Self {
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

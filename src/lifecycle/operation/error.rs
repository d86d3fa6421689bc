//! Why an operation failed.

use super::data_migrations::DataMigrationError;
use super::migrations::SchemaChange;
use super::open::claims::ClaimError;
use crate::backup::copies::CopyError;
use crate::backup::create::CreateError;
use crate::backup::encryption::EncryptionError;
use crate::backup::relocation::RelocationError;
use crate::backup::restore::quarantine::QuarantineError;
use crate::backup::{ExchangeError, RestoreError};
use crate::setup::uninstall::RemoveError;
use crate::setup::{ApplyError, FactsError, ReceiptError, Refusal};
use crate::upgrade::UpgradeError;
use crate::upgrade::rollback::target::RollbackTargetError;
use crate::upgrade::smoke::SmokeError;
use crate::upgrade::steps::UnknownChange;
use crate::upgrade::target_release::TargetError;
use leoflow_base::config::{ConfigError, DatastoreSetting};
use leoflow_base::home::HomeError;
use leoflow_base::home::journal::{JournalError, Operation};
use leoflow_base::home::lock::LockError;
use leoflow_base::sys::fs::disk::human_size;
use leoflow_engine::model::keys::RunKey;
use leoflow_engine::store::StoreError;
use leoflow_postgres::PgError;
use leoflow_postgres::cluster::private::PrivateError;
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::external::database_check::DatabaseCheckError;
use leoflow_postgres::fatal_message::Cause;
use leoflow_postgres::location::LocationError;
use leoflow_postgres::schema::SchemaError;
use semver::Version;
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
    #[error("Leoflow is not set up in this home")]
    NotSetUp,
    #[error("backups are being copied already; wait until that is done")]
    CopiesRunning,
    #[error("{place}: {error}")]
    Copies { place: String, error: CopyError },
    #[error("Leoflow has stopped; the scheduled job runs again after the next start")]
    StoppedBeforeSchedule,
    /// The running instance has stopped before a change of release began.
    #[error("Leoflow is not running")]
    NotRunning,
    #[error("the datastore belongs to PostgreSQL {0}")]
    OtherMajor(String),
    #[error("the datastore is damaged: managed-postgres/data: {0}")]
    IncompleteCluster(String),
    /// The reason is empty if nothing is there.
    #[error("PostgreSQL's programs are missing{0}")]
    ProgramsMissing(String),
    #[error("cannot stop the processes of an earlier run: {0}")]
    Leftovers(#[source] io::Error),
    #[error("a purge of this home was interrupted after it had removed files")]
    PurgeBegun,
    #[error("a restore was interrupted and has to be undone first")]
    RestoreInterrupted,
    #[error("a {0} was interrupted and has to be finished first")]
    Interrupted(Operation),
    #[error("run/journal.json describes a change of release that this version does not understand: {0}")]
    UnknownChange(#[from] UnknownChange),
    /// The text describes the change of release that another process performs.
    #[error("{0}")]
    ChangeInProgress(String),
    /// The text describes the interrupted change of release.
    #[error("{0}")]
    ChangeInterrupted(String),
    #[error("{to} already serves requests: the change can no longer be aborted")]
    TooLateToAbort { to: Version, reversal: Reversal },
    /// The new release stays, but its supervisor exited.
    #[error("{source}")]
    NewReleaseExited { source: UpgradeError, reversal: Reversal },
    #[error("a rollback to {0} is in progress or was interrupted")]
    RollbackUnfinished(Version),
    #[error("a rollback to {0} is in progress")]
    RollbackInProgress(Version),
    #[error("a rollback to {0} was interrupted")]
    RollbackInterrupted(Version),
    #[error("the restore for the rollback to {0} is still in progress")]
    RestoreInProgress(Version),
    #[error("config.yaml is missing")]
    NoConfig,
    /// `restorer` is the release that restores in a rollback, and its program, if this release does not know its steps.
    #[error("{source}")]
    Exchange { source: ExchangeError, restorer: Option<(Version, PathBuf)> },
    #[error("Leoflow is not set up in this home; there is nothing to back up")]
    NothingToBackUp,
    #[error("the run {} of {} exists", .0.run_id, .0.dag_id)]
    RunExists(RunKey),
    #[error("no archive of removed history has the run {} of {} with its end", .0.run_id, .0.dag_id)]
    RunNotArchived(RunKey),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("no backups in {0}")]
    NoBackups(PathBuf),
    /// The running instance has stopped or restarted, which caused the error.
    #[error("Leoflow was {how} meanwhile, and with it the datastore that this command used: {source}")]
    InstanceEnded { how: &'static str, source: Box<OperationError> },
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
    #[error("cannot {doing} {path}: {source}")]
    Io { doing: &'static str, path: PathBuf, source: io::Error },
    /// The running instance cannot be asked.
    #[error(transparent)]
    Instance(io::Error),
    #[error(transparent)]
    Lock(#[from] LockError),
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Claim(ClaimError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Private(PrivateError),
    #[error("{}{}", subject(.0), .0)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(SchemaError),
    #[error(transparent)]
    Purge(#[from] RemoveError),
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

fn subject(error: &PgError) -> &'static str {
    match error {
        PgError::WrongPassword => "",
        damage if damage.is_damage() => "the datastore is damaged: ",
        PgError::Query(_) => "a query of the datastore failed: ",
        _ => "",
    }
}

impl From<PrivateError> for OperationError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::NotReady(error @ (PgError::WrongPassword | PgError::ExternalServer(_))) => error.into(),
            PrivateError::NotReady(error) if error.is_damage() => error.into(),
            other => Self::Private(other),
        }
    }
}

impl From<ClaimError> for OperationError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Postgres(error) => error.into(),
            other => Self::Claim(other),
        }
    }
}

impl From<SchemaError> for OperationError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Postgres(error) => error.into(),
            other => Self::Schema(other),
        }
    }
}

impl OperationError {
    /// True when the datastore's files are damaged.
    pub(crate) fn is_damage(&self) -> bool {
        match self {
            Self::IncompleteCluster(_) => true,
            Self::Postgres(error) => matches!(error, PgError::WrongPassword) || error.is_damage(),
            Self::Private(PrivateError::Ended { message, .. }) => {
                message.as_ref().is_some_and(|message| message.cause == Cause::Damaged)
            }
            _ => false,
        }
    }

    /// The error of a file operation: "cannot {doing} {path}".
    pub(super) fn io(doing: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io { doing, path, source }
    }
}

/// The way to the release before a change of release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reversal {
    RollBack,
    Upgrade(Version),
}

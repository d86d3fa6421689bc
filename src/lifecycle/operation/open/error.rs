//! Why a home or its datastore cannot be opened.

use super::claims::ClaimError;
use crate::backup::ExchangeError;
use crate::backup::relocation::RelocationError;
use crate::setup::uninstall::RemoveError;
use crate::upgrade::UpgradeError;
use leoflow_base::config::ConfigError;
use leoflow_base::home::journal::{JournalError, Operation};
use leoflow_base::home::lock::LockError;
use leoflow_postgres::PgError;
use leoflow_postgres::cluster::private::PrivateError;
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::fatal_message::Cause;
use leoflow_postgres::schema::SchemaError;
use semver::Version;
use std::io;
use std::path::PathBuf;

#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("Leoflow is not set up in this home")]
    NotSetUp,
    #[error("Leoflow has stopped; the scheduled job runs again after the next start")]
    InstanceStopped,
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
    UnknownChange(String),
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
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Relocation(#[from] RelocationError),
    #[error(transparent)]
    Purge(#[from] RemoveError),
}

fn subject(error: &PgError) -> &'static str {
    match error {
        PgError::WrongPassword => "",
        damage if damage.is_damage() => "the datastore is damaged: ",
        PgError::Query(_) => "a query of the datastore failed: ",
        _ => "",
    }
}

impl From<PrivateError> for OpenError {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::NotReady(error @ (PgError::WrongPassword | PgError::ExternalServer(_))) => error.into(),
            PrivateError::NotReady(error) if error.is_damage() => error.into(),
            other => Self::Private(other),
        }
    }
}

impl From<ClaimError> for OpenError {
    fn from(error: ClaimError) -> Self {
        match error {
            ClaimError::Postgres(error) => error.into(),
            other => Self::Claim(other),
        }
    }
}

impl From<SchemaError> for OpenError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Postgres(error) => error.into(),
            other => Self::Schema(other),
        }
    }
}

impl OpenError {
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
}

/// The way to the release before a change of release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reversal {
    RollBack,
    Upgrade(Version),
}

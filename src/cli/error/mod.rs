//! The one error at the edge: message, cause, hints and exit code. Library modules have their own error types; this
//! module maps them to text for users.

/// Implements `From` for an error that wraps other errors: those in the variants after `passed_on` are shown in its place,
/// and the arms map the other variants.
macro_rules! from_error {
    ($error:ident: $type:ident; passed_on: $($variant:ident),+; $($arms:tt)*) => {
        impl From<$type> for $crate::error::Error {
            fn from($error: $type) -> Self {
                match $error {
                    $($arms)*
                    $($type::$variant(source) => source.into(),)+
                }
            }
        }
    };
}

mod data;
mod disk_hint;
mod home;
mod operation;
mod postgres;
mod service;
pub mod upgrade;

use disk_hint::{with_disk_hint, with_disk_hint_at};
use leoflow_base::config::{ConfigError, EditError};
use leoflow_base::home::journal::JournalError;
use leoflow_base::home::lock::LockError;
use leoflow_base::sys::fs::flock;
use leoflow_lifecycle::setup::{ApplyError, FactsError, InstallError, ReceiptError, Refusal};
use leoflow_postgres::fatal_message::{Cause, cause_of};
use leoflow_postgres::schema::SchemaError;
use leoflow_processes::agent::AgentError;
use leoflow_processes::supervisor::SupervisorError;
use serde::{Deserialize, Serialize};
use std::io;
use std::path::Path;

/// Second hint for data that cannot be read.
const RESTORE: &str = "or restore a backup, which keeps the current data aside: \
                       leoflow lite restore --input FILE --force";
const BELONG_TOGETHER: &str =
    "managed-postgres/data and managed-postgres/credentials.json belong together: put back the pair";

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// The operation failed; the hints say what to do.
    Failed,
    /// Invalid arguments.
    Usage,
    /// Refused to protect data.
    Refused,
    /// A bug in Leoflow.
    Bug,
    /// Stopped by this signal.
    Signal(i32),
}

/// An error for the user. Serializable, so that a child process's error reaches the terminal unchanged.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Error {
    pub kind: Kind,
    pub message: String,
    pub cause: Option<String>,
    pub hints: Vec<String>,
    /// True when a retry may succeed.
    #[serde(default, rename = "is_for_now")]
    pub is_transient: bool,
    /// True when the datastore's files are damaged.
    #[serde(default)]
    pub is_damage: bool,
    /// Schema version of a database or backup that is newer than this program knows.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub newer_schema: Option<i64>,
}

impl Error {
    fn new(kind: Kind, message: impl ToString) -> Self {
        Self {
            kind,
            message: message.to_string(),
            cause: None,
            hints: Vec::new(),
            is_transient: false,
            is_damage: false,
            newer_schema: None,
        }
    }

    pub fn failed(message: impl ToString) -> Self {
        Self::new(Kind::Failed, message)
    }

    /// Message and cause on one line.
    pub(crate) fn in_one_line(&self) -> String {
        let cause = self.cause.as_ref().map(|cause| format!(": {cause}")).unwrap_or_default();
        format!("{}{cause}", self.message).replace('\n', " ")
    }

    /// The datastore's files are damaged.
    fn damage(message: impl ToString) -> Self {
        Self { is_damage: true, ..Self::failed(message) }
    }

    pub fn refused(message: impl ToString) -> Self {
        Self::new(Kind::Refused, message)
    }

    pub fn usage(message: impl ToString) -> Self {
        Self::new(Kind::Usage, message)
    }

    pub fn bug(message: impl ToString) -> Self {
        Self::new(Kind::Bug, message)
    }

    pub fn signal(number: i32, message: impl ToString) -> Self {
        Self::new(Kind::Signal(number), message)
    }

    pub fn transient(self) -> Self {
        Self { is_transient: true, ..self }
    }

    pub fn cause(self, cause: impl ToString) -> Self {
        Self { cause: Some(cause.to_string()), ..self }
    }

    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hints.push(hint.into());
        self
    }

    /// The process's exit code.
    pub fn exit_code(&self) -> u8 {
        match self.kind {
            Kind::Failed => 1,
            Kind::Usage => 2,
            Kind::Refused => 3,
            Kind::Bug => 70,
            Kind::Signal(number) => 128u8.saturating_add(u8::try_from(number).unwrap_or(0)),
        }
    }

    /// Error for a failed file operation: "cannot {doing} {path}".
    pub fn io(doing: &str, path: &Path, error: &io::Error) -> Self {
        with_disk_hint_at(Self::failed(format!("cannot {doing} {}", path.display())).cause(error), error, path)
    }

    /// Like [`Self::io`], for `map_err`.
    pub fn cannot(doing: &str, path: &Path) -> impl Fn(io::Error) -> Self + Copy {
        move |error| Self::io(doing, path, &error)
    }

    /// Parses the failure that a child reported; `None` when it reported nothing readable.
    pub(crate) fn from_child(json: &str) -> Option<Self> {
        serde_json::from_str(json).ok()
    }

    /// JSON on one line, for a parent process (`X_LEOFLOW_FAILURE`) or a failure file.
    pub fn to_json(&self) -> String {
        // Cannot fail, since the fields are text and numbers.
        serde_json::to_string(self).unwrap_or_default()
    }
}

impl From<LockError> for Error {
    fn from(error: LockError) -> Self {
        match error {
            LockError::Held { holder: Some(holder) } => {
                let (pid, command) = (holder.process.pid, &holder.command);
                match holder.url {
                    Some(url) => Self::failed(format!("Leoflow is already running on this home: pid {pid}, {url}"))
                        .hint("leoflow lite status")
                        .hint("leoflow lite restart restarts its processes")
                        .hint("leoflow lite stop stops it; for another instance: --instance NAME"),
                    None => Self::failed(format!("this home is in use by `{command}`, pid {pid}"))
                        .hint("wait until it is done"),
                }
            }
            LockError::Held { holder: None } => {
                Self::failed("another process holds the lock of this home and did not identify itself")
                    .hint("try again in a moment")
            }
            LockError::Io { ref path, ref source } => {
                let base = Self::io("lock", path, source);
                match flock::is_unsupported(source) {
                    true => base.hint("the file system has no locks (flock): choose another home with --home DIR"),
                    false => base,
                }
            }
        }
    }
}

impl From<ConfigError> for Error {
    fn from(error: ConfigError) -> Self {
        match &error {
            ConfigError::Io { path, source } if path.file_name().is_none_or(|name| name != "config.yaml") => {
                Self::io("read", path, source).hint("make it readable, or move it away")
            }
            ConfigError::Io { path, source } => {
                Self::io("read", path, source).hint("restore it from a copy; nothing was changed").hint(RESTORE)
            }
            ConfigError::Invalid { .. } => {
                Self::failed(&error).hint("fix the line, then check with `leoflow verify-config`")
            }
            ConfigError::Secret { .. } => Self::failed(&error)
                .hint("put the secret in the place that config.yaml names, or into config.yaml itself")
                .hint(RESTORE),
            ConfigError::EnvironmentVariable { name, .. } => {
                Self::failed(&error).hint(format!("unset {name}, or give it another value"))
            }
        }
    }
}

impl From<EditError> for Error {
    fn from(error: EditError) -> Self {
        Self::failed(format!("cannot change config.yaml: {error}")).hint("fix it by hand; nothing was changed")
    }
}

impl From<JournalError> for Error {
    fn from(error: JournalError) -> Self {
        match &error {
            JournalError::Io { path, source } => Self::io("write", path, source),
            JournalError::Unknown { path, .. } => Self::refused(&error)
                .hint("a newer leoflow may have started an operation: run that release to finish it")
                .hint(format!("or, if you know that no operation was in progress, remove {}", path.display())),
        }
    }
}

impl From<ReceiptError> for Error {
    fn from(error: ReceiptError) -> Self {
        match &error {
            ReceiptError::Io { path, source } => Self::io("read or write", path, source),
            ReceiptError::Damaged { path, .. } => {
                Self::failed(&error).hint(format!("move {} elsewhere; the next start writes a new one", path.display()))
            }
        }
    }
}

from_error! {
    error: FactsError;
    passed_on: Config, Receipt, Journal, Location;
}

impl From<Refusal> for Error {
    fn from(refusal: Refusal) -> Self {
        let base = Self::refused(&refusal);
        match refusal {
            Refusal::OtherMajor(..) => base.hint("run the leoflow release that created it; nothing was changed"),
            Refusal::NotACluster(home, reason) => {
                Self::incomplete_cluster(format!("{}/managed-postgres/data: {reason}", home.display()))
                    .hint("to start over instead, move managed-postgres/data elsewhere")
            }
            Refusal::SecretLost { .. } => base
                .hint("restore config.yaml from a copy: a new key cannot decrypt the stored secrets")
                .hint(RESTORE)
                .hint("to start over instead, move managed-postgres/data elsewhere"),
            Refusal::CredentialsLost(_) => base
                .hint("restore managed-postgres/credentials.json from a copy of the home")
                .hint(RESTORE)
                .hint("to start over instead, move managed-postgres/data elsewhere"),
            Refusal::OtherDatastore { .. } => base
                .hint("to move the data there: leoflow lite move-datastore --to WHERE")
                .hint("to stay, put the previous `datastore` setting back into config.yaml"),
            Refusal::OtherWorkspace { .. } => base
                .hint("to switch to the other workspace: leoflow config set workspace DIR, then leoflow lite restart")
                .hint("to stay with this one, omit --workspace"),
        }
    }
}

impl From<InstallError> for Error {
    fn from(error: InstallError) -> Self {
        with_disk_hint_at(Self::failed(&error), &error.source, &error.path).hint("leoflow doctor")
    }
}

from_error! {
    error: ApplyError;
    passed_on: Journal, Config, Edit, Update, Acquire, Credentials, Cluster, Location, Container, Install, Receipt;
    ApplyError::Io { ref path, ref source } => Self::io("write", path, source),
    ApplyError::PasswordFile { .. } | ApplyError::Password { .. } => {
        Self::failed(error).hint("correct the file, or unset LEOFLOW_ADMIN_PASSWORD_FILE to have one generated")
    }
    ApplyError::Hash(error) => Self::failed(error).hint("is there enough memory?"),
    ApplyError::NoInstallation(_) => Self::failed(error).hint("rerun the same command"),
    ApplyError::NoIdentity => Self::failed(error).hint("run leoflow as an ordinary user with a passwd entry"),
}

from_error! {
    error: SchemaError;
    passed_on: Postgres;
    SchemaError::Newer { database, .. } => Self { newer_schema: Some(database), ..Self::refused(&error) }
        .hint("your data is intact: a newer leoflow reads it; `leoflow versions` lists the installed releases")
        .hint("a newer release can roll back with your data: leoflow rollback --to VERSION"),
    SchemaError::Edited(_) | SchemaError::Gap(_) | SchemaError::Damaged(_) => {
        Self::refused(&error).hint("nothing was changed; run the leoflow that wrote this database, or restore a backup")
    }
    SchemaError::NotReversible(_) => Self::refused(&error).hint("restore the backup that was taken before it"),
    SchemaError::NotNewest { newest, .. } => Self::refused(&error)
        .hint(format!("leoflow migrate-db rollback {newest}"))
        .hint("leoflow migrate-db rollback --to VERSION undoes several"),
    SchemaError::NoDataMigration(_) => Self::usage(&error).hint("leoflow data-migrate list"),
    SchemaError::NothingToUndo => Self::failed(&error).hint("leoflow migrate-db status"),
    SchemaError::NotMigrated { .. } => Self::failed(&error).hint("leoflow migrate-db"),
    SchemaError::Failed { .. } => Self::failed(&error).hint(
        "migrations committed before it stay; fix the cause and run `leoflow migrate-db`, which continues from there",
    ),
    SchemaError::Locked { ref holder, .. } => Self::locked(&error, holder),
    SchemaError::Totals(_) => Self::failed(&error).hint("leoflow data-migrate status"),
    SchemaError::Busy => Self::failed(&error).hint("try again when it has finished"),
}

from_error! {
    error: AgentError;
    passed_on: Config, Credentials, Schema;
    AgentError::Io(_) => Self::failed(&error),
    AgentError::Probe(_) => Self::failed(&error).hint(
        "a container's or service manager's filter of system calls, or the file system of the home, is the usual \
             cause; docs/explanation/how-tasks-run.md says what a task needs",
    ),
}

impl From<SupervisorError> for Error {
    fn from(error: SupervisorError) -> Self {
        match error {
            SupervisorError::Io(error) => with_disk_hint(Self::failed(&error), Some(&error)),
            SupervisorError::Start { failure: Some(json), .. } if Self::from_child(&json).is_some() => {
                Self::from_child(&json).unwrap_or_else(|| Self::bug("a parsed failure cannot be parsed again"))
            }
            SupervisorError::Start { reason, unfit: true, .. } if cause_of(&reason) == Cause::Damaged => {
                Self::damaged_datastore(reason)
            }
            SupervisorError::Start { process, reason, unfit: true, .. } => {
                Self::refused(format!("{process} does not belong to this home: {reason}")).hint(BELONG_TOGETHER)
            }
            SupervisorError::Start { process, reason, last_lines, .. } => {
                let base = Self::failed(format!("{process} failed to start: {reason}"));
                let lines: Vec<&str> = last_lines.iter().rev().take(10).rev().map(String::as_str).collect();
                let base = if lines.is_empty() { base } else { base.cause(lines.join("\n")) };
                base.hint(format!("leoflow lite logs {process}")).hint("leoflow doctor")
            }
            SupervisorError::StoppedEarly => {
                Self::failed("stopped before startup finished").hint("rerun the same command")
            }
            SupervisorError::StoppedAtOnce { signal } => {
                Self::signal(signal, "stopped at once; the next start recovers")
            }
        }
    }
}

//! Upgrades and rollbacks: a pure plan, and a worker that runs it step by step, each recorded in the journal before it
//! acts.

mod automatic_backup;
pub mod facts;
pub mod failure_policy;
pub mod finish;
pub(crate) mod first_install;
pub mod host;
mod import_evidence;
mod installed;
mod outcome;
mod own_program;
pub mod plan;
mod plan_warnings;
pub mod release;
pub mod rollback;
mod run;
pub mod smoke;
mod step_runner;
pub mod steps;
pub mod target_release;
mod totals;
mod upgrade_context;

pub use automatic_backup::automatic_backup;
pub(crate) use installed::MigrationAtStart;
pub use outcome::{Outcome, Status};
pub use own_program::OwnProgram;
pub use run::{ReleaseSource, upgrade};
pub use step_runner::StepRunner;
pub use upgrade_context::{Notes, UpgradeContext};

use crate::backup::RestoreError;
use crate::backup::content::ContentError;
use crate::backup::create::CreateError;
use crate::setup::ReceiptError;
use leoflow_base::home::journal::JournalError;
use leoflow_postgres::PgError;
use leoflow_postgres::schema::SchemaError;
use leoflow_postgres::totals::Difference;
use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why an upgrade or a rollback failed.
#[derive(Debug, thiserror::Error)]
pub enum UpgradeError {
    #[error("the database snapshot {0} no longer exists; restore the backup taken before the upgrade")]
    NoSnapshot(String),
    #[error("it was cancelled")]
    Cancelled,
    #[error("requests would wait for {expected:.0} s, but upgrade.max_pause is {} s", .max_pause.as_secs())]
    LongPause { expected: f64, max_pause: Duration },
    #[error(transparent)]
    Journal(#[from] JournalError),
    #[error(transparent)]
    Fetch(#[from] release::source::FetchError),
    #[error(transparent)]
    Stage(#[from] release::stage::StageError),
    #[error("cannot install {name}: {reason}")]
    Component { name: String, reason: String },
    #[error("the backup failed: {0}")]
    Backup(#[from] CreateError),
    #[error("the test restore of the backup failed: {0}")]
    Rehearsal(#[from] RestoreError),
    #[error(transparent)]
    Program(#[from] release::program::ProgramError),
    #[error("the smoke test failed: {reason}{}", if .log.is_empty() { String::new() } else { format!("\n{log}") })]
    Smoke { reason: String, log: String },
    #[error("the change of the schema altered your data: {0}")]
    Totals(Difference),
    #[error(transparent)]
    Host(#[from] host::HostError),
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Content(#[from] ContentError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error(transparent)]
    Receipt(#[from] ReceiptError),
    #[error("{text:?} is not a version: {source}")]
    NotAVersion { text: String, source: semver::Error },
    #[error("cannot read {path}: {source}")]
    Read { path: PathBuf, source: io::Error },
    #[error("cannot write {path}: {source}")]
    Write { path: PathBuf, source: io::Error },
}

impl UpgradeError {
    /// True when a migration or its rollback failed.
    pub(crate) fn is_schema_fault(&self) -> bool {
        matches!(self, Self::Schema(error) if !matches!(error, SchemaError::Postgres(_)))
    }
}

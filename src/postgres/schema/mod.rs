//! The database schema: embedded migrations, the database's records, and migrating between them without losing data.

pub mod data_migration;
pub mod deferred;
mod dependents;
pub mod embedded;
mod ledger;
mod migrate;
mod rollback;
mod rollback_losses;
mod schema_state;
pub mod shape;
mod start_check;
pub mod tables;
mod totals_guard;

pub use dependents::blocking_dependents;
pub use embedded::{EmbeddedMigration, known};
pub use ledger::{applied, current_version, inspect, newest_release, own_rollbacks};
pub use migrate::{Applied, migrate};
pub use rollback::{Extent, RolledBack, rollback, to_undo};
pub use rollback_losses::rollback_losses;
pub use schema_state::{State, classify, damage, database_version, waiting};
pub use start_check::{refusal, require_current};
pub use totals_guard::TotalsGuard;

use crate::PgError;
use crate::error::LockHolder;
use crate::totals::Difference;

/// Why an operation on the schema failed.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// This text must not change, because users search for it.
    #[error(
        "database is at schema version {database} but this binary only knows up to {binary};\n\
         an older `leoflow` is being run against a newer database.\n\
         Upgrade the binary, or run `leoflow uninstall --purge` to start over\n\
         (this WIPES your data)"
    )]
    Newer { database: i64, binary: i64 },
    #[error("migration {} was changed after it had been applied to this database", .0.join(", "))]
    Edited(Vec<String>),
    #[error("the database's migration history has a gap: version {} is missing", join(.0))]
    Gap(Vec<i64>),
    #[error("the database's migration history is damaged: {0}")]
    Damaged(String),
    #[error("the database is at schema version {database}, but this binary needs {binary}")]
    NotMigrated { database: i64, binary: i64 },
    #[error("{action} failed and was undone: {reason}")]
    Failed { action: String, reason: String },
    #[error("{action} was undone: it waited too long for a lock that another session holds: {holder}")]
    Locked { action: String, holder: Box<LockHolder> },
    #[error("the batch was rolled back because it alters your data: {0}")]
    Totals(Difference),
    #[error("timed out waiting for another migration")]
    Busy,
    #[error("version {requested} is not the newest; the newest is {newest}")]
    NotNewest { requested: i64, newest: i64 },
    #[error("{0} is not a data migration that this release runs in batches")]
    NoDataMigration(String),
    #[error("there is no migration to undo")]
    NothingToUndo,
    #[error("migration {0} cannot be undone: it has no rollback SQL")]
    NotReversible(String),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

fn join(versions: &[i64]) -> String {
    versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

crate::from_query_error!(SchemaError);

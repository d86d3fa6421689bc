//! The database's schema: what this binary knows, what the database has, and getting from one to
//! the other without losing anything.

mod batches;
pub mod classify;
pub mod data_migration;
mod dependents;
pub mod embedded;
pub mod later;
mod ledger;
mod loss;
mod migrate;
mod rollback;
pub mod shape;
pub mod tables;

pub use classify::{State, classify, waiting};
pub use dependents::in_the_way;
pub use embedded::{Known, known};
pub use ledger::{applied, inspect, own_rollbacks};
pub use loss::lost;
pub use migrate::refusal;
pub use migrate::{Applied, migrate, require_current};
pub use rollback::{Extent, RolledBack, rollback, to_undo};

use crate::postgres::PgError;

/// Why the schema was left alone.
#[derive(Debug, thiserror::Error)]
pub enum SchemaError {
    /// Word for word what the design fixes: users search for it.
    #[error(
        "database is at schema version {database} but this binary only knows up to {binary};\n\
         an older `leoflow` is being run against a newer database.\n\
         Upgrade the binary, or run `leoflow uninstall --purge` to start over\n\
         (this WIPES your data)"
    )]
    Newer { database: i64, binary: i64 },
    #[error("migration {} was changed after it had been applied to this database", .0.join(", "))]
    Edited(Vec<String>),
    #[error("the database's history has a hole: version {} is missing", join(.0))]
    Gap(Vec<i64>),
    #[error("the database's record of its migrations is damaged: {0}")]
    Damaged(String),
    #[error("the database is at schema version {database}, this binary needs {binary}")]
    NotMigrated { database: i64, binary: i64 },
    #[error("migration {migration} failed and was undone: {reason}")]
    Failed { migration: String, reason: String },
    #[error("another migration has been running for too long")]
    Busy,
    #[error("version {asked} is not the newest; the newest is {newest}")]
    NotNewest { asked: i64, newest: i64 },
    #[error("{0} is no data migration of this version that runs in batches")]
    NoDataMigration(String),
    #[error("there is no migration to undo")]
    NothingToUndo,
    #[error("migration {0} cannot be undone: it came without rollback SQL")]
    NotReversible(String),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

fn join(versions: &[i64]) -> String {
    versions.iter().map(i64::to_string).collect::<Vec<_>>().join(", ")
}

impl From<tokio_postgres::Error> for SchemaError {
    fn from(error: tokio_postgres::Error) -> Self {
        Self::Postgres(error.into())
    }
}

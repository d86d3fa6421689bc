//! Errors of loading a dump.

use crate::backup::create::dump::DumpError;
use leoflow_engine::store::StoreError;
use leoflow_postgres::PgError;
use leoflow_postgres::schema::SchemaError;
use leoflow_postgres::totals::Difference;
use std::io;
use std::time::Duration;

#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Postgres(#[from] PgError),
    #[error(transparent)]
    Schema(#[from] SchemaError),
    #[error("cannot create a database for comparison: {0}")]
    Reference(SchemaError),
    #[error(transparent)]
    Program(#[from] DumpError),
    #[error("cannot read the dump: {0}")]
    Read(io::Error),
    #[error("{0}")]
    SchemaRefused(SchemaError),
    #[error("the dump is {found} than the {declared} bytes in the manifest")]
    DumpSize { declared: u64, found: &'static str },
    #[error("the database grows beyond the size in the manifest, {declared} bytes")]
    TooLarge { declared: u64 },
    #[error(
        "loading the database did not end within {} s: its dump contains a statement that does not end, or this \
         machine is too slow", limit.as_secs()
    )]
    TooSlow { limit: Duration },
    #[error("{table:?} has {found} rows, the manifest says {expected}")]
    Rows { table: String, expected: String, found: String },
    #[error("{0}")]
    Invariant(Difference),
    #[error("it contains objects that are not Leoflow's: {0}")]
    Foreign(String),
    #[error("its tables differ from Leoflow's: {0}")]
    Different(String),
    #[error("its tables have schema version {found}, the manifest says {declared}")]
    Version { declared: i64, found: i64 },
    #[error("the key in its config.yaml cannot decrypt its database: {0}")]
    Key(StoreError),
    #[error("the disk is full: there is no space for the backup's database next to the present one")]
    Full,
    #[error("PostgreSQL has no shared memory left, though the disk may have space: {0}")]
    NoSharedMemory(String),
    #[error("PostgreSQL stopped while the database was loaded: {0}")]
    ServerStopped(String),
    #[error("the copying thread ended unexpectedly")]
    ThreadEnded,
}

impl LoadError {
    /// True when the cause is the loaded data, not this machine.
    pub fn is_data_error(&self) -> bool {
        match self {
            Self::Postgres(error) | Self::Schema(SchemaError::Postgres(error)) => is_data_error(error),
            Self::Program(error) => matches!(error, DumpError::Failed { .. }),
            Self::Reference(_)
            | Self::Read(_)
            | Self::Full
            | Self::NoSharedMemory(_)
            | Self::ServerStopped(_)
            | Self::TooSlow { .. }
            | Self::ThreadEnded
            | Self::Schema(SchemaError::Busy) => false,
            _ => true,
        }
    }
}

/// False for the SQLSTATE classes of a lost connection (08), and of a server that lacks resources (53), is stopping
/// (57) or has a failing disk (58): <https://www.postgresql.org/docs/18/errcodes-appendix.html>.
fn is_data_error(error: &PgError) -> bool {
    let PgError::Query(error) = error else { return false };
    error.code().is_some_and(|code| !["53", "57", "58", "08"].contains(&&code.code()[..2]))
}

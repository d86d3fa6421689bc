//! Import errors of DAG files.

use crate::store::list::field::list_fields;
use crate::store::list::listing::{ListPage, Listing, Source};
use crate::store::rows::{execute, fetch_optional, from_row};
use crate::store::{Result, StoreError};
use deadpool_postgres::Transaction;
use jiff::Timestamp;
use leoflow_postgres::GenericClient;

from_row! {
    #[derive(Debug, Clone)]
    pub struct ImportError {
        pub id: i64,
        pub filename: String,
        pub stack_trace: String,
        pub created_at: Timestamp,
    }
}

pub async fn list(client: &impl GenericClient, listing: Listing<ImportErrorField>) -> Result<ListPage<ImportError>> {
    listing.fetch(client, &Source::new("*", "import_error")).await
}

pub async fn get(client: &impl GenericClient, id: i64) -> Result<ImportError> {
    let error = fetch_optional(client, "SELECT * FROM import_error WHERE id = $1", &[&id]).await?;
    error.ok_or_else(|| StoreError::NotFound { what: "import error", id: id.to_string() })
}

/// Saves an import error of a file or folder.
pub(super) async fn save_error(transaction: &Transaction<'_>, fileloc: &str, text: &str) -> Result<()> {
    let query = "INSERT INTO import_error (filename, stack_trace) VALUES ($1, $2)
                 ON CONFLICT (filename) DO UPDATE SET stack_trace = EXCLUDED.stack_trace, created_at = now()";
    // Replaces NUL characters, which Postgres text cannot store.
    execute(transaction, query, &[&fileloc, &text.replace('\0', "\u{fffd}")]).await
}

list_fields! {
    /// Fields of import errors, for lists.
    ImportErrorField, key: [Id];
    Id = whole("id"),
    CreatedAt = time("created_at"),
    Filename = text("filename"),
    StackTrace = text("stack_trace"),
}

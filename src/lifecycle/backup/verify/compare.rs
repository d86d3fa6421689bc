//! Compares a loaded database with the row counts and invariants in its backup's manifest.

use crate::backup::create::dump::count;
use crate::backup::create::survey::Survey;
use crate::backup::format::manifest::Manifest;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_postgres::PgError;
use leoflow_postgres::invariants::{self, Difference};
use std::time::Duration;
use tokio_postgres::Client;

/// Time limit of one invariant; longer than in a backup, because this machine may be slower than the one that made it.
const TIME_LIMIT: Duration = Duration::from_secs(120);

/// Why a loaded database does not match the manifest.
#[derive(Debug, thiserror::Error)]
pub enum CompareError {
    #[error("{table:?} has {found} rows, the manifest says {expected}")]
    Rows { table: String, expected: String, found: String },
    #[error("{0}")]
    Invariant(Difference),
    #[error(transparent)]
    Postgres(#[from] PgError),
}

/// Compares the row count of each table with the manifest.
pub(super) async fn compare_counts(
    client: &Client,
    inventory: &Survey,
    manifest: &Manifest,
) -> Result<(), CompareError> {
    let counts = count(client, inventory.tables()).await?;
    let row_count_text = |rows: Option<&i64>| rows.map_or("no such table".to_owned(), i64::to_string);
    for table in manifest.tables.keys().chain(counts.keys()) {
        let (expected, actual) = (manifest.tables.get(table), counts.get(table));
        if expected != actual {
            return Err(CompareError::Rows {
                table: table.clone(),
                expected: row_count_text(expected),
                found: row_count_text(actual),
            });
        }
    }
    Ok(())
}

/// Evaluates the manifest's invariants and compares the answers. A missing answer is only a warning, because it is no
/// sign of lost data. The queries come from the backup, so they run as the scratch role, which owns nothing else.
pub(super) async fn compare_invariants(
    client: &Client,
    manifest: &Manifest,
    reporter: &dyn Reporter,
) -> Result<(), CompareError> {
    let invariants = invariants::invariants_of(&manifest.invariants);
    let actual = invariants::ask_in_snapshot(client, None, &invariants, invariants::Limits::each(TIME_LIMIT)).await?;
    for unanswered in &actual.unanswered {
        reporter.report(Progress::Warning(format!("{unanswered}; it was not compared")));
    }
    match invariants::differences(&manifest.invariants, &actual.answers).into_iter().next() {
        Some(difference) => Err(CompareError::Invariant(difference)),
        None => Ok(()),
    }
}

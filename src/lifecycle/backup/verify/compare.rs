//! Compares a loaded database with the row counts and invariants in its backup's manifest.

use crate::backup::create::dump::count;
use crate::backup::create::survey::Survey;
use crate::backup::format::manifest::Manifest;
use leoflow_base::home::progress::{Progress, Reporter};
use leoflow_engine::store::totals::INVARIANTS;
use leoflow_postgres::PgError;
use leoflow_postgres::totals::{self, Answer, Difference, Limits};
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
/// sign of lost data. A query that this release does not have is not run, because it comes from the backup.
pub(super) async fn compare_invariants(
    client: &Client,
    manifest: &Manifest,
    reporter: &dyn Reporter,
) -> Result<(), CompareError> {
    let warn = |text: String| reporter.report(Progress::Warning(format!("{text}; it was not compared")));
    let asked = totals::answered(INVARIANTS, &manifest.invariants);
    for Answer { name, .. } in manifest.invariants.iter().filter(|answer| !asked.iter().any(|one| answer.is_of(one))) {
        warn(format!("the invariant {name:?} is not one of this release"));
    }
    let actual = totals::ask_in_snapshot(client, None, &asked, Limits::each(TIME_LIMIT)).await?;
    actual.unanswered.iter().for_each(|unanswered| warn(unanswered.to_string()));
    match totals::differences(&manifest.invariants, &actual.answers).into_iter().next() {
        Some(difference) => Err(CompareError::Invariant(difference)),
        None => Ok(()),
    }
}

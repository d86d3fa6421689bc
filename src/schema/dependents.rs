//! What a user has added to our tables and PostgreSQL refuses to lose: views, foreign keys, functions. Undoing a migration
//! fails while they are there.

use super::SchemaError;
use super::ledger::Undoable;
use super::loss::statements;
use super::rollback::{Extent, steps};
use crate::postgres::PgError;
use regex::Regex;
use std::sync::LazyLock;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

/// A busy table must not make requests wait for a plan.
const LIMITS: &str = "SET LOCAL lock_timeout = '500ms'; SET LOCAL statement_timeout = '5s'";
/// Statements that only change the catalog: the rest of a rollback script reads or writes rows, or scans them.
static DROPS: LazyLock<Regex> = LazyLock::new(|| {
    // A constant of this file, which the test below runs.
    Regex::new(r"(?is)^(drop |alter table (if exists )?(only )?\S+ drop )")
        .unwrap_or_else(|error| unreachable!("{error}"))
});

/// A line for each object of the user's own that depends on what undoing these migrations drops. PostgreSQL itself is asked:
/// the statements that drop something run in a transaction that is rolled back. An object that cannot be found because a table
/// is locked stops the rollback later, which then goes back.
pub async fn in_the_way(client: &mut Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let drops: Vec<String> = steps(client, extent)
        .await?
        .into_iter()
        .flat_map(|Undoable { rollback_sql, .. }| statements(&rollback_sql.unwrap_or_default()))
        .filter(|statement| DROPS.is_match(statement))
        .collect();
    let mut lines: Vec<String> = Vec::new();
    let mut transaction = client.transaction().await.map_err(PgError::from)?;
    transaction.batch_execute(LIMITS).await.map_err(PgError::from)?;
    for drop in &drops {
        let savepoint = transaction.savepoint("one").await.map_err(PgError::from)?;
        match savepoint.batch_execute(drop).await {
            Ok(()) => savepoint.commit().await.map_err(PgError::from)?,
            Err(error) => {
                let Some(refusal) = error.as_db_error() else { return Err(PgError::from(error).into()) };
                savepoint.rollback().await.map_err(PgError::from)?;
                if *refusal.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST {
                    lines.extend(dependents(refusal.detail().unwrap_or_else(|| refusal.message())));
                }
            }
        }
    }
    transaction.rollback().await.map_err(PgError::from)?;
    lines.sort();
    lines.dedup();
    Ok(lines)
}

/// The lines of PostgreSQL's detail, `view v depends on column c of table t` each.
fn dependents(detail: &str) -> Vec<String> {
    detail.lines().map(|line| format!("{line}, which is dropped")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_that_drop_something_are_tried() {
        for (statement, is_tried) in [
            ("ALTER TABLE variable DROP COLUMN note", true),
            ("ALTER TABLE IF EXISTS ONLY variable DROP CONSTRAINT a, DROP COLUMN b", true),
            ("DROP TABLE one, two", true),
            ("DROP FUNCTION f()", true),
            ("ALTER TABLE variable ADD CONSTRAINT c CHECK (true)", false),
            ("UPDATE variable SET value = 'drop table'", false),
            ("CREATE INDEX i ON variable (key)", false),
            ("DO $$ BEGIN DROP TABLE x; END $$", false),
        ] {
            assert_eq!(DROPS.is_match(statement), is_tried, "{statement}");
        }
    }
}

//! Objects of the user's own that depend on tables and columns that a rollback drops: views, foreign keys, functions. Undoing a
//! migration fails while they are there.

use super::SchemaError;
use super::ledger::Undoable;
use super::loss::statements;
use super::rollback::{Extent, steps};
use super::tables;
use crate::postgres::PgError;
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

/// All of it, in PostgreSQL's words: the plan of a rollback must not make requests wait.
const LIMIT: &str = "SET LOCAL transaction_timeout = '500ms'";
/// Statements that only change the catalog: the rest of a rollback script reads or writes rows, or scans them.
static DROPS: LazyLock<Regex> = LazyLock::new(|| {
    // A constant of this file, which the test below runs.
    Regex::new(r"(?is)^(drop |alter table (?:if exists )?(?:only )?\S+ drop )")
        .unwrap_or_else(|error| unreachable!("{error}"))
});
/// The table that a statement changes, or the first of those that it drops.
static TABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?is)^(?:drop table (?:if exists )?|alter table (?:if exists )?(?:only )?)(?:public\.)?([^\s,;]+)")
        .unwrap_or_else(|error| unreachable!("{error}"))
});

/// A line for each object that keeps PostgreSQL from undoing these migrations. PostgreSQL itself is asked: the statements that
/// drop something run in a transaction that is rolled back, on tables that nobody uses at that moment. Where one is in use,
/// nothing is found, and the rollback itself stops at the object and goes back.
pub async fn in_the_way(client: &mut Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let drops: Vec<String> = steps(client, extent)
        .await?
        .into_iter()
        .flat_map(|Undoable { rollback_sql, .. }| statements(&rollback_sql.unwrap_or_default()))
        .filter(|statement| DROPS.is_match(statement))
        .collect();
    let mut transaction = client.transaction().await.map_err(PgError::from)?;
    let found = match lock(&transaction, &drops).await {
        Ok(()) => try_drops(&mut transaction, &drops).await,
        Err(error) => Err(error),
    };
    match found {
        Ok(lines) => {
            transaction.rollback().await.map_err(PgError::from)?;
            Ok(lines.into_iter().collect())
        }
        // Busy, or over the limit, which ends the session.
        Err(error) if error.as_db_error().is_some() || error.is_closed() => Ok(Vec::new()),
        Err(error) => Err(PgError::from(error).into()),
    }
}

/// Without waiting: a request that waits for a table makes those behind it wait too.
async fn lock(transaction: &Transaction<'_>, drops: &[String]) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(LIMIT).await?;
    let tables: BTreeSet<&str> = drops.iter().filter_map(|drop| Some(TABLE.captures(drop)?.get(1)?.as_str())).collect();
    for table in tables {
        let exists = transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?;
        if exists.get(0) {
            transaction.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")).await?;
        }
    }
    Ok(())
}

async fn try_drops(
    transaction: &mut Transaction<'_>,
    drops: &[String],
) -> Result<BTreeSet<String>, tokio_postgres::Error> {
    let ours = tables::tables();
    let mut lines = BTreeSet::new();
    for drop in drops {
        let savepoint = transaction.savepoint("one").await?;
        let Err(error) = savepoint.batch_execute(drop).await else {
            savepoint.commit().await?;
            continue;
        };
        savepoint.rollback().await?;
        let refusal = error.as_db_error().filter(|refusal| *refusal.code() == SqlState::DEPENDENT_OBJECTS_STILL_EXIST);
        let Some(refusal) = refusal else { return Err(error) };
        lines.extend(refusal.detail().unwrap_or_default().lines().filter_map(|line| dependent(line, &ours)));
        // What follows finds it as the rollback would.
        let savepoint = transaction.savepoint("one").await?;
        savepoint.batch_execute(&format!("{} CASCADE", drop.trim_end_matches(';'))).await?;
        savepoint.commit().await?;
    }
    Ok(lines)
}

/// Of a line of PostgreSQL's detail, `view v depends on column c of table t`. A constraint of our own tables is no object of
/// the user's: the script drops it itself, in a statement that is not tried.
fn dependent(line: &str, ours: &BTreeSet<String>) -> Option<String> {
    let (object, _) = line.split_once(" depends on ")?;
    let of_table = object.rsplit_once(" on table ").or_else(|| object.rsplit_once(" of table "));
    let is_ours =
        of_table.is_some_and(|(_, table)| ours.contains(table.trim_start_matches("public.").trim_matches('"')));
    (!is_ours).then(|| format!("{line}, which is dropped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_statements_that_drop_something_are_tried() {
        for (statement, is_tried, table) in [
            ("ALTER TABLE variable DROP COLUMN note", true, Some("variable")),
            ("ALTER TABLE IF EXISTS ONLY variable DROP CONSTRAINT a, DROP COLUMN b", true, Some("variable")),
            ("DROP TABLE one, two", true, Some("one")),
            ("DROP TABLE IF EXISTS public.one", true, Some("one")),
            ("DROP FUNCTION f()", true, None),
            ("ALTER TABLE variable ADD CONSTRAINT c CHECK (true)", false, Some("variable")),
            ("UPDATE variable SET value = 'drop table'", false, None),
            ("CREATE INDEX i ON variable (key)", false, None),
            ("DO $$ BEGIN DROP TABLE x; END $$", false, None),
        ] {
            assert_eq!(DROPS.is_match(statement), is_tried, "{statement}");
            let found = TABLE.captures(statement).and_then(|found| found.get(1)).map(|found| found.as_str());
            assert_eq!(found, table, "{statement}");
        }
    }

    #[test]
    fn constraints_of_our_own_tables_are_not_the_users() {
        let ours = BTreeSet::from(["child".to_owned()]);
        let line = |text: &str| dependent(text, &ours).is_some();
        assert!(line("view my_report depends on column note of table variable"));
        assert!(line("constraint x on table mine depends on table variable"));
        assert!(line("function f() depends on type variable"));
        assert!(!line("constraint child_parent_fkey on table child depends on table parent"));
        assert!(!line("default value for column a of table child depends on sequence s"));
        assert!(!line("and 3 other objects (see server log for list)"));
    }
}

//! Finds the user's objects (views, foreign keys, functions) that depend on tables and columns that a rollback drops.
//! They make undoing a migration fail.

use super::ledger::Undoable;
use super::rollback::{Extent, undo_steps};
use super::{SchemaError, tables};
use crate::PgError;
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Transaction};

/// Time limit of the whole check: planning a rollback must not make requests wait.
const TIME_LIMIT: &str = "SET LOCAL transaction_timeout = '500ms'";
/// Matches statements that only change the catalog; all others read, write or scan rows.
static DROP_STATEMENT: LazyLock<Regex> = LazyLock::new(|| {
    // A constant pattern, which the test below compiles.
    Regex::new(r"(?is)^(drop |alter table (?:if exists )?(?:only )?\S+ drop )")
        .unwrap_or_else(|error| unreachable!("{error}"))
});
/// Captures the table that a statement alters, or the first one that it drops.
static ALTERED_TABLE: LazyLock<Regex> = LazyLock::new(|| {
    Regex::new(r"(?is)^(?:drop table (?:if exists )?|alter table (?:if exists )?(?:only )?)(?:public\.)?([^\s,;]+)")
        .unwrap_or_else(|error| unreachable!("{error}"))
});

/// Lists the objects that prevent undoing these migrations, one line each. Runs the drop statements in a transaction
/// that is rolled back, with NOWAIT locks. When a table is in use the list is empty; the rollback then fails at the
/// object and its transaction is undone.
pub async fn blocking_dependents(client: &mut Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let drops: Vec<String> = undo_steps(client, extent)
        .await?
        .into_iter()
        .flat_map(|Undoable { rollback_sql, .. }| drop_statements(&rollback_sql.unwrap_or_default()))
        .collect();
    let mut transaction = client.transaction().await.map_err(PgError::from)?;
    let dependents = match lock_tables(&transaction, &drops).await {
        Ok(()) => try_drops(&mut transaction, &drops).await,
        Err(error) => Err(error),
    };
    match dependents {
        Ok(lines) => {
            transaction.rollback().await.map_err(PgError::from)?;
            Ok(lines.into_iter().collect())
        }
        // A lock conflicts, or the time limit has ended the session.
        Err(error) if error.as_db_error().is_some() || error.is_closed() => Ok(Vec::new()),
        Err(error) => Err(PgError::from(error).into()),
    }
}

/// The drop statements of a script. A semicolon inside a text or a function body ends a statement here, too: at worst a
/// part of it fails, or its effect is rolled back.
fn drop_statements(script: &str) -> Vec<String> {
    let code: Vec<&str> = script.lines().map(|line| line.split_once("--").map_or(line, |(code, _)| code)).collect();
    code.join("\n")
        .split(';')
        .map(|text| text.split_whitespace().collect::<Vec<_>>().join(" "))
        .filter(|statement| DROP_STATEMENT.is_match(statement))
        .collect()
}

/// Locks the tables without waiting: a waiting lock request blocks later requests too.
async fn lock_tables(transaction: &Transaction<'_>, drops: &[String]) -> Result<(), tokio_postgres::Error> {
    transaction.batch_execute(TIME_LIMIT).await?;
    let tables: BTreeSet<&str> =
        drops.iter().filter_map(|drop| Some(ALTERED_TABLE.captures(drop)?.get(1)?.as_str())).collect();
    for table in tables {
        let exists = transaction.query_one("SELECT to_regclass($1) IS NOT NULL", &[&table]).await?;
        if exists.get(0) {
            transaction.batch_execute(&format!("LOCK TABLE {table} IN ACCESS EXCLUSIVE MODE NOWAIT")).await?;
        }
    }
    Ok(())
}

/// Runs the drop statements and returns the objects that make them fail.
async fn try_drops(
    transaction: &mut Transaction<'_>,
    drops: &[String],
) -> Result<BTreeSet<String>, tokio_postgres::Error> {
    let own_tables = tables::tables();
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
        lines.extend(
            refusal.detail().unwrap_or_default().lines().filter_map(|line| describe_dependent(line, &own_tables)),
        );
        // Later statements see the schema as they would in the rollback.
        let savepoint = transaction.savepoint("one").await?;
        savepoint.batch_execute(&format!("{drop} CASCADE")).await?;
        savepoint.commit().await?;
    }
    Ok(lines)
}

/// Converts a line of PostgreSQL's error detail, such as `view v depends on column c of table t`. Skips constraints of
/// our own tables: the script drops them in statements that this check does not run.
fn describe_dependent(line: &str, own_tables: &BTreeSet<String>) -> Option<String> {
    let (object, _) = line.split_once(" depends on ")?;
    let owner = object.rsplit_once(" on table ").or_else(|| object.rsplit_once(" of table "));
    let is_ours =
        owner.is_some_and(|(_, table)| own_tables.contains(table.trim_start_matches("public.").trim_matches('"')));
    (!is_ours).then(|| format!("{line}, which is dropped"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn drop_statements_are_found_in_a_script() {
        let script = "-- loses: table one\nDROP TABLE one,\n    two; UPDATE three SET a = 'x';\n\n\
                      -- drop it; later\nALTER TABLE four\n    DROP COLUMN a;\n";
        assert_eq!(drop_statements(script), ["DROP TABLE one, two", "ALTER TABLE four DROP COLUMN a"]);
    }

    #[test]
    fn only_drop_statements_are_run() {
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
            assert_eq!(DROP_STATEMENT.is_match(statement), is_tried, "{statement}");
            let captured =
                ALTERED_TABLE.captures(statement).and_then(|captures| captures.get(1)).map(|name| name.as_str());
            assert_eq!(captured, table, "{statement}");
        }
    }

    #[test]
    fn constraints_of_our_own_tables_are_not_the_users() {
        let own_tables = BTreeSet::from(["child".to_owned()]);
        let line = |text: &str| describe_dependent(text, &own_tables).is_some();
        assert!(line("view my_report depends on column note of table variable"));
        assert!(line("constraint x on table mine depends on table variable"));
        assert!(line("function f() depends on type variable"));
        assert!(!line("constraint child_parent_fkey on table child depends on table parent"));
        assert!(!line("default value for column a of table child depends on sequence s"));
        assert!(!line("and 3 other objects (see server log for list)"));
    }
}

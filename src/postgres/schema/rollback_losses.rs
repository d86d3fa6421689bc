//! Lists the data that undoing migrations loses: tables with their rows, columns with their values. Each rollback script
//! names its losses in lines `-- loses:`, so that an older release can list those of a migration it does not know.

use super::embedded::known;
use super::rollback::{Extent, undo_steps};
use super::{SchemaError, ledger::Undoable};
use crate::PgError;
use crate::identifier::quoted;
use leoflow_base::counted::counted;
use std::collections::BTreeSet;
use tokio_postgres::Client;

/// The losses of the scripts that have no header, as lines `V0001 loses: …`.
const BEFORE_HEADERS: &str = include_str!("losses.txt");

/// An entry of a header, which is a list of entries with commas; a header without losses is `nothing`.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
enum Loss {
    /// `table NAME`
    Table(String),
    /// `column NAME of TABLE`
    Column { table: String, column: String },
    /// `deleted rows of TABLE`: those that the previous release cannot store.
    DeletedRows(String),
    /// `changed rows of TABLE`: those that the previous release does not support.
    ChangedRows(String),
    /// An entry of a later release, or a script without a header; a text for users.
    Other(String),
}

impl Loss {
    fn parse(entry: &str) -> Self {
        let after = |prefix| entry.strip_prefix(prefix).map(str::to_owned);
        if let Some(table) = after("table ") {
            return Self::Table(table);
        }
        if let Some((column, table)) = entry.strip_prefix("column ").and_then(|rest| rest.split_once(" of ")) {
            return Self::Column { table: table.to_owned(), column: column.to_owned() };
        }
        let deleted = after("deleted rows of ").map(Self::DeletedRows);
        deleted.or_else(|| after("changed rows of ").map(Self::ChangedRows)).unwrap_or(Self::Other(entry.to_owned()))
    }
}

/// The losses that the header of a rollback script names.
fn stated_losses(step: &Undoable) -> Vec<Loss> {
    let entries = |text: &str, prefix: &str| -> Vec<String> {
        let lines = text.lines().filter_map(|line| line.strip_prefix(prefix));
        lines.flat_map(|line| line.split(", ")).map(|entry| entry.trim().to_owned()).collect()
    };
    let Undoable { version, rollback_sql, .. } = step;
    let mut stated = entries(rollback_sql.as_deref().unwrap_or_default(), "-- loses: ");
    if stated.is_empty() && known().iter().any(|known| known.version == *version && known.rollback == *rollback_sql) {
        stated = entries(BEFORE_HEADERS, &format!("V{version:04} loses: "));
    }
    if stated.is_empty() {
        return vec![Loss::Other(format!("{} is undone by a script that does not name what it loses", step.label()))];
    }
    stated.iter().filter(|entry| *entry != "nothing").map(|entry| Loss::parse(entry)).collect()
}

/// Lists what undoing these migrations loses, one line each, with current counts.
pub async fn rollback_losses(client: &Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let losses: Vec<Loss> = undo_steps(client, extent).await?.iter().flat_map(stated_losses).collect();
    let dropped: BTreeSet<&String> =
        losses.iter().filter_map(|loss| if let Loss::Table(table) = loss { Some(table) } else { None }).collect();
    let mut lines = Vec::new();
    for loss in &losses {
        if let Loss::Column { table, .. } | Loss::DeletedRows(table) | Loss::ChangedRows(table) = loss
            && dropped.contains(table)
        {
            continue;
        }
        let line = describe(client, loss).await?;
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Ok(lines)
}

/// Describes a loss in one line, with current counts.
async fn describe(client: &Client, loss: &Loss) -> Result<String, SchemaError> {
    Ok(match loss {
        Loss::Table(table) => match count(client, table, "*").await? {
            Some((rows, _)) => format!("table {table} is dropped, with {}", counted(rows, "row")),
            None => format!("table {table} is dropped"),
        },
        Loss::Column { table, column } => match count(client, table, &quoted(column)).await? {
            Some((values, rows)) => {
                let (values, rows) = (counted(values, "value"), counted(rows, "row"));
                format!("column {column} of {table} is dropped, with {values} in {rows}")
            }
            None => format!("column {column} of {table} is dropped"),
        },
        Loss::DeletedRows(table) => format!("rows of {table} that the previous release cannot store are deleted"),
        Loss::ChangedRows(table) => format!("rows of {table} that the previous release does not support are changed"),
        Loss::Other(text) => text.clone(),
    })
}

/// Counts the non-null values of an expression and all rows. `None` when the table or column does not exist.
async fn count(client: &Client, table: &str, expression: &str) -> Result<Option<(i64, i64)>, SchemaError> {
    let query = format!("SELECT count({expression}), count(*) FROM public.{}", quoted(table));
    match client.query_one(&query, &[]).await {
        Ok(row) => Ok(Some((row.get(0), row.get(1)))),
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(PgError::from(error).into()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::embedded::EmbeddedMigration;
    use super::super::shape;
    use super::super::tables::{HISTORY, LEDGER};
    use super::*;

    fn step(version: i64, script: &str) -> Undoable {
        Undoable { version, name: "x".to_owned(), rollback_sql: Some(script.to_owned()) }
    }

    #[test]
    fn the_header_names_tables_columns_and_rows() {
        let script = "-- loses: table one, column Even of dag_run\n-- loses: deleted rows of xcom, changed rows of dag\n\
                      -- loses: the colour of pool\nDROP TABLE one;";
        let column = Loss::Column { table: "dag_run".into(), column: "Even".into() };
        let expected = [
            Loss::Table("one".into()),
            column,
            Loss::DeletedRows("xcom".into()),
            Loss::ChangedRows("dag".into()),
            Loss::Other("the colour of pool".into()),
        ];
        assert_eq!(stated_losses(&step(9999, script)), expected);
        assert_eq!(stated_losses(&step(9999, "-- loses: nothing\nDROP INDEX i;")), []);
    }

    #[test]
    fn a_script_without_a_header_is_no_script_without_losses() {
        for version in [1, 9999] {
            let unknown = stated_losses(&step(version, "DROP TABLE one;"));
            assert!(matches!(&unknown[..], [Loss::Other(text)] if text.starts_with(&format!("V{version:04}__x is"))));
        }
    }

    /// The columns of each table at a schema version, without the tables of the migrator itself.
    fn columns(version: i64) -> BTreeSet<(&'static str, &'static str)> {
        let column = |line: &'static str| {
            let mut words = line.split(' ');
            let (table, kind, name) = (words.next()?, words.next()?, words.next()?);
            (kind == "column" && ![HISTORY, LEDGER].contains(&table)).then_some((table, name))
        };
        shape::expected(version).into_iter().flatten().filter_map(column).collect()
    }

    /// What undoing a migration removes from the schema, and the rows that its statements change.
    fn actual_losses(migration: &EmbeddedMigration, script: &str) -> BTreeSet<Loss> {
        let (newer, older) = (columns(migration.version), columns(migration.version - 1));
        let has_table = |name: &str| older.iter().any(|(table, _)| *table == name);
        let dropped = newer.difference(&older).map(|(table, column)| match has_table(table) {
            true => Loss::Column { table: (*table).to_owned(), column: (*column).to_owned() },
            false => Loss::Table((*table).to_owned()),
        });
        let rows = script.lines().filter_map(|line| {
            let name = |rest: &str| rest.split([' ', ';']).next().unwrap_or_default().to_owned();
            let deleted = line.strip_prefix("DELETE FROM ").or_else(|| line.strip_prefix("TRUNCATE "));
            let changed = line.strip_prefix("UPDATE ");
            deleted.map(|rest| Loss::DeletedRows(name(rest))).or_else(|| Some(Loss::ChangedRows(name(changed?))))
        });
        dropped.chain(rows).collect()
    }

    /// True for a loss in a table of a line `-- carried back: a, b`: the script moves its data to where the previous
    /// release reads them, or they are not needed.
    fn is_carried_back(script: &str, loss: &Loss) -> bool {
        let (Loss::Table(table) | Loss::Column { table, .. } | Loss::DeletedRows(table) | Loss::ChangedRows(table)) =
            loss
        else {
            return false;
        };
        let mut lines = script.lines().filter_map(|line| line.strip_prefix("-- carried back: "));
        lines.any(|line| line.split(", ").any(|name| name == table))
    }

    #[test]
    fn every_rollback_names_what_it_loses() {
        for migration in known() {
            let Some(script) = &migration.rollback else { continue };
            let stated = stated_losses(&step(migration.version, script));
            let mut actual = actual_losses(migration, script);
            actual.retain(|loss| !is_carried_back(script, loss));
            assert_eq!(stated.into_iter().collect::<BTreeSet<_>>(), actual, "{}", migration.file);
        }
    }
}

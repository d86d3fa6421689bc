//! Lists the data that undoing migrations loses: tables with their rows, columns with their values.

use super::rollback::{Extent, undo_steps};
use super::{SchemaError, ledger::Undoable};
use crate::PgError;
use crate::identifier::quoted;
use leoflow_base::counted::counted;
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tokio_postgres::Client;

/// The data that one statement of a rollback loses.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loss {
    Table(String),
    Column {
        table: String,
        column: String,
    },
    /// Rows are changed or deleted.
    Rows {
        table: String,
        are_deleted: bool,
    },
    /// A statement with unknown effect, shown verbatim.
    Unknown(String),
}

impl Loss {
    /// True when the loss is in this table.
    fn concerns(&self, name: &str) -> bool {
        match self {
            Self::Table(table) | Self::Column { table, .. } | Self::Rows { table, .. } => table == name,
            Self::Unknown(_) => false,
        }
    }
}

/// The tables of a line `-- carried back: a, b`: the script moves their data to where the previous release keeps it, or
/// the data is not needed.
fn carried_back(script: &str) -> BTreeSet<String> {
    let lines = script.lines().filter_map(|line| line.strip_prefix("-- carried back: "));
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// Lists what undoing these migrations loses, one line each, with current counts.
pub async fn rollback_losses(client: &Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let mut losses: Vec<Loss> = Vec::new();
    for Undoable { rollback_sql, .. } in undo_steps(client, extent).await? {
        let script = rollback_sql.unwrap_or_default();
        let carried = carried_back(&script);
        losses.extend(
            script_losses(&script).into_iter().filter(|loss| !carried.iter().any(|table| loss.concerns(table))),
        );
    }
    let dropped: BTreeSet<String> = losses
        .iter()
        .filter_map(|loss| if let Loss::Table(table) = loss { Some(table.clone()) } else { None })
        .collect();
    let mut lines = Vec::new();
    for loss in losses {
        match &loss {
            Loss::Column { table, .. } | Loss::Rows { table, .. } if dropped.contains(table) => continue,
            _ => {}
        }
        let line = describe(client, &loss).await?;
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
        Loss::Rows { table, are_deleted: true } => {
            format!("rows of {table} that the previous release cannot store are deleted")
        }
        Loss::Rows { table, are_deleted: false } => {
            format!("rows of {table} that the previous release does not support are changed")
        }
        Loss::Unknown(statement) => format!("this statement runs: {statement}"),
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

/// The data that a rollback script loses.
fn script_losses(sql: &str) -> Vec<Loss> {
    statements(sql).iter().flat_map(|statement| statement_losses(statement)).collect()
}

/// Compiles a pattern.
fn pattern(text: &'static str) -> Regex {
    // This cannot fail, because the patterns are constants, and the tests below compile them.
    Regex::new(text).unwrap_or_else(|error| unreachable!("{error}"))
}

static DROP_TABLE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^drop table (?:if exists )?(.+?)(?: cascade| restrict)?$"));
static ALTER_TABLE: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^alter table (?:if exists )?(?:only )?([\w.]+|\S+) (.+)$"));
static DROP_COLUMN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)^drop (?:column )?(?:if exists )?("[^"]+"|\w+)(?: cascade| restrict)?$"#));
/// Matches parts of an `ALTER TABLE` that keep every value.
static HARMLESS_PART: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(drop constraint |add |set \(|reset \(|validate |rename |alter (column )?\S+ (set|drop) (not null|default|statistics|storage))",
    )
});
static UPDATE_ROWS: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^update (?:only )?(\S+) "));
static DELETE_ROWS: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^(?:delete from (?:only )?|truncate (?:table )?)(\S+)"));
static CASCADES: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^drop .* cascade$"));
/// Matches statements on objects that hold no data.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)^(drop (index|trigger|function|view|type|sequence)|create |comment |alter (index|sequence))")
});

/// The data that a statement loses.
fn statement_losses(statement: &str) -> Vec<Loss> {
    let first_capture = |regex: &Regex| regex.captures(statement).map(|captures| unquoted(&captures[1]));
    if let Some(captures) = DROP_TABLE.captures(statement) {
        return captures[1].split(',').map(|name| Loss::Table(unquoted(name))).collect();
    }
    if let Some(captures) = ALTER_TABLE.captures(statement) {
        let table = unquoted(&captures[1]);
        let losses = split_at_commas(&captures[2]).into_iter().filter_map(|part| match DROP_COLUMN.captures(part) {
            Some(captures) => Some(Loss::Column { table: table.clone(), column: unquoted(&captures[1]) }),
            None if HARMLESS_PART.is_match(part) => None,
            None => Some(Loss::Unknown(format!("ALTER TABLE {table} {part}"))),
        });
        return losses.collect();
    }
    if let Some(table) = first_capture(&UPDATE_ROWS) {
        return vec![Loss::Rows { table, are_deleted: false }];
    }
    if let Some(table) = first_capture(&DELETE_ROWS) {
        return vec![Loss::Rows { table, are_deleted: true }];
    }
    // CASCADE drops objects that the statement does not name.
    let cascades = CASCADES.is_match(statement);
    if HARMLESS.is_match(statement) && !cascades { Vec::new() } else { vec![Loss::Unknown(statement.to_owned())] }
}

/// Splits at commas outside of parentheses and quotes.
fn split_at_commas(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0_u32, None);
    for (index, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(text[begin..index].trim());
                begin = index + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(text[begin..].trim());
    parts
}

/// A name without the schema `public` and without quotes.
fn unquoted(name: &str) -> String {
    let name = name.trim();
    name.strip_prefix("public.").unwrap_or(name).trim_matches('"').to_owned()
}

/// Splits a script into statements, without comments and with single spaces.
pub(super) fn statements(sql: &str) -> Vec<String> {
    let (mut texts, mut current, mut remaining) = (Vec::new(), String::new(), sql);
    while let Some(c) = remaining.chars().next() {
        let length = match c {
            '-' if remaining.starts_with("--") => {
                remaining = remaining.split_once('\n').map_or("", |(_, after)| after);
                current.push(' ');
                continue;
            }
            '/' if remaining.starts_with("/*") => {
                remaining = remaining.split_once("*/").map_or("", |(_, after)| after);
                current.push(' ');
                continue;
            }
            ';' => {
                texts.push(std::mem::take(&mut current));
                remaining = &remaining[1..];
                continue;
            }
            '\'' | '"' => remaining[1..].find(c).map_or(remaining.len(), |end| end + 2),
            '$' => dollar_quoted_length(remaining),
            _ => c.len_utf8(),
        };
        current.push_str(&remaining[..length]);
        remaining = &remaining[length..];
    }
    texts.push(current);
    let single_spaced = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    texts.iter().map(single_spaced).filter(|text| !text.is_empty()).collect()
}

/// The length of `$tag$…$tag$` at the start, or 1 for a single `$`.
fn dollar_quoted_length(text: &str) -> usize {
    let Some(tag_end) = text[1..].find('$').map(|end| end + 2) else { return 1 };
    let tag = &text[..tag_end];
    if !tag[1..tag_end - 1].chars().all(|c| c.is_alphanumeric() || c == '_') {
        return 1;
    }
    text[tag_end..].find(tag).map_or(text.len(), |end| tag_end + end + tag.len())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::schema::known;

    fn column(table: &str, column: &str) -> Loss {
        Loss::Column { table: table.to_owned(), column: column.to_owned() }
    }

    #[test]
    fn tables_columns_and_rows_are_named() {
        let script =
            "-- Back; to 'before'.\nALTER TABLE dag_run DROP COLUMN more, DROP CONSTRAINT x,\n  DROP COLUMN \"Even\";
            DROP TABLE IF EXISTS one, public.two CASCADE; /* ; */ DROP INDEX i;
            UPDATE task_try SET state = 'it''s; so' WHERE true; DELETE FROM xcom;
            ALTER TABLE dag ADD CONSTRAINT c CHECK (a = ';' OR a IN ('b', ',')), ALTER COLUMN a DROP NOT NULL;
            ALTER TABLE pool DROP slots, ALTER name TYPE int USING 0; DROP TYPE t CASCADE; DO $x$ BEGIN; END $x$;";
        assert_eq!(
            script_losses(script),
            [
                column("dag_run", "more"),
                column("dag_run", "Even"),
                Loss::Table("one".into()),
                Loss::Table("two".into()),
                Loss::Rows { table: "task_try".into(), are_deleted: false },
                Loss::Rows { table: "xcom".into(), are_deleted: true },
                column("pool", "slots"),
                Loss::Unknown("ALTER TABLE pool ALTER name TYPE int USING 0".into()),
                Loss::Unknown("DROP TYPE t CASCADE".into()),
                Loss::Unknown("DO $x$ BEGIN; END $x$".into()),
            ]
        );
    }

    #[test]
    fn carried_back_tables_are_no_loss() {
        let script = "-- carried back: one, two\nUPDATE two SET a = 1; DROP TABLE one; DROP TABLE three;";
        let carried = carried_back(script);
        let losses = script_losses(script).into_iter().filter(|loss| !carried.iter().any(|table| loss.concerns(table)));
        assert_eq!(losses.collect::<Vec<_>>(), [Loss::Table("three".into())]);
    }

    #[test]
    fn our_own_rollbacks_are_understood() {
        for migration in known() {
            let script = migration.rollback.as_deref().unwrap_or_default();
            let losses = script_losses(script);
            // A rollback of indexes alone loses nothing.
            let is_index_only = |line: &str| line.starts_with("DROP INDEX") || line.starts_with("CREATE INDEX");
            assert_eq!(losses.is_empty(), script.lines().all(is_index_only), "{}", migration.name);
            let unknown = losses.iter().find(|loss| matches!(loss, Loss::Unknown(_)));
            assert_eq!(unknown, None, "{}", migration.name);
        }
    }
}

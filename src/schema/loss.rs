//! What undoing migrations drops, told before it is done: tables with their rows, columns with their values.

use super::rollback::{Extent, steps};
use super::{SchemaError, ledger::Undoable};
use crate::postgres::PgError;
use regex::Regex;
use std::collections::BTreeSet;
use std::sync::LazyLock;
use tokio_postgres::Client;

/// What one statement of a rollback takes away.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Loss {
    Table(String),
    Column {
        table: String,
        column: String,
    },
    /// Rows stay and are not what they were, or go.
    Rows {
        table: String,
        go: bool,
    },
    /// Nobody has taught us what it does: it is shown as it is.
    Unknown(String),
}

impl Loss {
    fn is_of(&self, name: &str) -> bool {
        match self {
            Self::Table(table) | Self::Column { table, .. } | Self::Rows { table, .. } => table == name,
            Self::Unknown(_) => false,
        }
    }
}

/// The tables of a line `-- carried back: a, b`: the script itself puts what they hold to where the release before
/// has it, or nobody misses it.
fn carried_back(script: &str) -> BTreeSet<String> {
    let lines = script.lines().filter_map(|line| line.strip_prefix("-- carried back: "));
    lines.flat_map(|line| line.split(',')).map(|name| name.trim().to_owned()).collect()
}

/// A line for each thing that undoing these migrations loses, with counts of what is there now.
pub async fn lost(client: &Client, extent: Extent) -> Result<Vec<String>, SchemaError> {
    let mut losses: Vec<Loss> = Vec::new();
    for Undoable { rollback_sql, .. } in steps(client, extent).await? {
        let script = rollback_sql.unwrap_or_default();
        let carried = carried_back(&script);
        losses.extend(of_script(&script).into_iter().filter(|loss| !carried.iter().any(|table| loss.is_of(table))));
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
        let line = in_words(client, &loss).await?;
        if !lines.contains(&line) {
            lines.push(line);
        }
    }
    Ok(lines)
}

async fn in_words(client: &Client, loss: &Loss) -> Result<String, SchemaError> {
    Ok(match loss {
        Loss::Table(table) => match count(client, table, "*").await? {
            Some((rows, _)) => format!("table {table} is dropped, with {rows} row(s)"),
            None => format!("table {table} is dropped"),
        },
        Loss::Column { table, column } => match count(client, table, &quoted(column)).await? {
            Some((values, rows)) => {
                format!("column {column} of {table} is dropped, with {values} value(s) in {rows} row(s)")
            }
            None => format!("column {column} of {table} is dropped"),
        },
        Loss::Rows { table, go: true } => format!("rows of {table} that the release before cannot keep are deleted"),
        Loss::Rows { table, go: false } => format!("rows of {table} that the release before does not know are changed"),
        Loss::Unknown(statement) => format!("this is run: {statement}"),
    })
}

/// How many rows have one, and how many there are. `None` when there is no such thing.
async fn count(client: &Client, table: &str, what: &str) -> Result<Option<(i64, i64)>, SchemaError> {
    let query = format!("SELECT count({what}), count(*) FROM public.{}", quoted(table));
    match client.query_one(&query, &[]).await {
        Ok(row) => Ok(Some((row.get(0), row.get(1)))),
        Err(error) if error.as_db_error().is_some() => Ok(None),
        Err(error) => Err(PgError::from(error).into()),
    }
}

fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

fn of_script(sql: &str) -> Vec<Loss> {
    statements(sql).iter().flat_map(|statement| of_statement(statement)).collect()
}

fn pattern(text: &'static str) -> Regex {
    // A constant of this file, which the test below runs.
    Regex::new(text).unwrap_or_else(|error| unreachable!("{error}"))
}

static TABLES: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^drop table (?:if exists )?(.+?)(?: cascade| restrict)?$"));
static ALTER: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^alter table (?:if exists )?(?:only )?([\w.]+|\S+) (.+)$"));
static COLUMN: LazyLock<Regex> =
    LazyLock::new(|| pattern(r#"(?i)^drop (?:column )?(?:if exists )?("[^"]+"|\w+)(?: cascade| restrict)?$"#));
/// Of an `ALTER TABLE`, what leaves every value as it is.
static PART: LazyLock<Regex> = LazyLock::new(|| {
    pattern(
        r"(?i)^(drop constraint |add |set \(|reset \(|validate |rename |alter (column )?\S+ (set|drop) (not null|default|statistics|storage))",
    )
});
static CHANGED: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^update (?:only )?(\S+) "));
static DELETED: LazyLock<Regex> =
    LazyLock::new(|| pattern(r"(?i)^(?:delete from (?:only )?|truncate (?:table )?)(\S+)"));
static CASCADES: LazyLock<Regex> = LazyLock::new(|| pattern(r"(?i)^drop .* cascade$"));
/// They hold no data.
static HARMLESS: LazyLock<Regex> = LazyLock::new(|| {
    pattern(r"(?i)^(drop (index|trigger|function|view|type|sequence)|create |comment |alter (index|sequence))")
});

fn of_statement(statement: &str) -> Vec<Loss> {
    let first = |regex: &Regex| regex.captures(statement).map(|found| plain(&found[1]));
    if let Some(found) = TABLES.captures(statement) {
        return found[1].split(',').map(|name| Loss::Table(plain(name))).collect();
    }
    if let Some(found) = ALTER.captures(statement) {
        let table = plain(&found[1]);
        let losses = parts(&found[2]).into_iter().filter_map(|part| match COLUMN.captures(part) {
            Some(found) => Some(Loss::Column { table: table.clone(), column: plain(&found[1]) }),
            None if PART.is_match(part) => None,
            None => Some(Loss::Unknown(format!("ALTER TABLE {table} {part}"))),
        });
        return losses.collect();
    }
    if let Some(table) = first(&CHANGED) {
        return vec![Loss::Rows { table, go: false }];
    }
    if let Some(table) = first(&DELETED) {
        return vec![Loss::Rows { table, go: true }];
    }
    // What goes with it is not written there.
    let cascades = CASCADES.is_match(statement);
    if HARMLESS.is_match(statement) && !cascades { Vec::new() } else { vec![Loss::Unknown(statement.to_owned())] }
}

/// What stands between commas that are in no brackets and no quotes.
fn parts(text: &str) -> Vec<&str> {
    let (mut parts, mut begin, mut depth, mut quote) = (Vec::new(), 0, 0_u32, None);
    for (at, c) in text.char_indices() {
        match (quote, c) {
            (Some(open), _) => quote = Some(open).filter(|open| *open != c),
            (None, '\'' | '"') => quote = Some(c),
            (None, '(') => depth += 1,
            (None, ')') => depth = depth.saturating_sub(1),
            (None, ',') if depth == 0 => {
                parts.push(text[begin..at].trim());
                begin = at + 1;
            }
            (None, _) => {}
        }
    }
    parts.push(text[begin..].trim());
    parts
}

fn plain(name: &str) -> String {
    let name = name.trim();
    name.strip_prefix("public.").unwrap_or(name).trim_matches('"').to_owned()
}

/// Without comments, and with one space where there was more.
pub(super) fn statements(sql: &str) -> Vec<String> {
    let (mut all, mut now, mut rest) = (Vec::new(), String::new(), sql);
    while let Some(c) = rest.chars().next() {
        let length = match c {
            '-' if rest.starts_with("--") => {
                rest = rest.split_once('\n').map_or("", |(_, after)| after);
                now.push(' ');
                continue;
            }
            '/' if rest.starts_with("/*") => {
                rest = rest.split_once("*/").map_or("", |(_, after)| after);
                now.push(' ');
                continue;
            }
            ';' => {
                all.push(std::mem::take(&mut now));
                rest = &rest[1..];
                continue;
            }
            '\'' | '"' => rest[1..].find(c).map_or(rest.len(), |end| end + 2),
            '$' => quoted_by_dollars(rest),
            _ => c.len_utf8(),
        };
        now.push_str(&rest[..length]);
        rest = &rest[length..];
    }
    all.push(now);
    let tidy = |text: &String| text.split_whitespace().collect::<Vec<_>>().join(" ");
    all.iter().map(tidy).filter(|text| !text.is_empty()).collect()
}

/// The length of `$tag$…$tag$` at the start, or of the one sign that it is.
fn quoted_by_dollars(text: &str) -> usize {
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
            of_script(script),
            [
                column("dag_run", "more"),
                column("dag_run", "Even"),
                Loss::Table("one".into()),
                Loss::Table("two".into()),
                Loss::Rows { table: "task_try".into(), go: false },
                Loss::Rows { table: "xcom".into(), go: true },
                column("pool", "slots"),
                Loss::Unknown("ALTER TABLE pool ALTER name TYPE int USING 0".into()),
                Loss::Unknown("DROP TYPE t CASCADE".into()),
                Loss::Unknown("DO $x$ BEGIN; END $x$".into()),
            ]
        );
    }

    #[test]
    fn what_the_script_itself_carries_back_is_no_loss() {
        let script = "-- carried back: one, two\nUPDATE two SET a = 1; DROP TABLE one; DROP TABLE three;";
        let carried = carried_back(script);
        let lost = of_script(script).into_iter().filter(|loss| !carried.iter().any(|table| loss.is_of(table)));
        assert_eq!(lost.collect::<Vec<_>>(), [Loss::Table("three".into())]);
    }

    #[test]
    fn our_own_rollbacks_are_understood() {
        for migration in known() {
            let script = migration.rollback.as_deref().unwrap_or_default();
            let losses = of_script(script);
            // One that is about indexes alone takes nothing.
            let is_of_indexes = |line: &str| line.starts_with("DROP INDEX") || line.starts_with("CREATE INDEX");
            assert_eq!(losses.is_empty(), script.lines().all(is_of_indexes), "{}", migration.name);
            let unknown = losses.iter().find(|loss| matches!(loss, Loss::Unknown(_)));
            assert_eq!(unknown, None, "{}", migration.name);
        }
    }
}

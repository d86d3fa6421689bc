//! The shape (the expected definition) of our tables, line by line, for each schema version. A backup compares the
//! database with it, so that no backup contains tables that a restore would refuse. A test compares the files with what
//! the migrations create.

use super::{SchemaError, known, ledger, waiting};
use std::collections::BTreeSet;
use tokio_postgres::GenericClient;

macro_rules! shapes {
    ($($version:literal)*) => { &[$(include_str!(concat!("shapes/", $version, ".txt"))),*] };
}

/// The shape of each version, oldest first.
const SHAPES: &[&str] = shapes!(
    "0001" "0002" "0003" "0004" "0005" "0006" "0007" "0008" "0009" "0010" "0011" "0012" "0013" "0014" "0015" "0016"
    "0017" "0018" "0019" "0020" "0021"
);

/// One line for each column, constraint, index and comment of the tables in `public`, with the table's name first.
/// Privileges are left out, because a backup does not restore them. Names are looked up in `public`.
pub const QUERY: &str = "
    SELECT c.relname || ' column ' || a.attname || ' ' || format_type(a.atttypid, a.atttypmod)
           || CASE WHEN a.attnotnull THEN ' not null' ELSE '' END
           || CASE WHEN a.attidentity = '' THEN '' ELSE ' identity ' || a.attidentity::text END
           || coalesce(' default ' || pg_get_expr(d.adbin, d.adrelid), '')
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    UNION ALL
    SELECT c.relname || ' constraint ' || k.conname || ' ' || pg_get_constraintdef(k.oid)
    FROM pg_class c JOIN pg_constraint k ON k.conrelid = c.oid AND k.contype <> 'n'
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    UNION ALL
    SELECT c.relname || ' index ' || pg_get_indexdef(i.indexrelid)
    FROM pg_class c JOIN pg_index i ON i.indrelid = c.oid
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
      AND NOT EXISTS (SELECT FROM pg_constraint k WHERE k.conindid = i.indexrelid)
    UNION ALL
    SELECT c.relname || ' comment ' || o.description
    FROM pg_class c JOIN pg_description o ON o.objoid = c.oid AND o.classoid = 'pg_class'::regclass
    WHERE c.relnamespace = 'public'::regnamespace AND c.relkind = 'r'
    ORDER BY 1";

/// The lines of a version; `None` for one that this binary does not know.
pub fn expected(version: i64) -> Option<impl Iterator<Item = &'static str>> {
    let index = usize::try_from(version).ok()?.checked_sub(1)?;
    SHAPES.get(index).map(|text| text.lines())
}

/// Lists the differences between `tables` and what the migrations up to `version` create. Empty for a version that this
/// binary does not know.
pub async fn differences(
    client: &impl GenericClient,
    version: i64,
    tables: &[String],
) -> Result<Vec<String>, SchemaError> {
    // A shape includes all migrations up to its version, so none fits while a deferred one below it waits.
    let records = ledger::inspect(client).await?;
    if waiting(known(), &records).iter().any(|known| known.version < version) {
        return Ok(Vec::new());
    }
    let Some(expected) = expected(version) else { return Ok(Vec::new()) };
    let expected: BTreeSet<&str> = expected.collect();
    let rows = client.query(QUERY, &[]).await?;
    let is_ours =
        |line: &String| line.split_once(' ').is_some_and(|(table, _)| tables.iter().any(|name| name == table));
    let actual: BTreeSet<String> = rows.iter().map(|row| row.get::<_, String>(0)).filter(is_ours).collect();
    let unexpected = actual.iter().filter(|line| !expected.contains(line.as_str())).cloned();
    let missing = expected.iter().filter(|line| !actual.contains(**line)).map(|line| format!("no {line}"));
    Ok(unexpected.chain(missing).collect())
}

//! The names of our tables, parsed from the migrations.

use super::embedded::known;
use std::collections::BTreeSet;

/// The table of refinery, the library that applies migrations.
pub(crate) const HISTORY: &str = "refinery_schema_history";
/// Our own table of applied migrations.
pub(crate) const LEDGER: &str = "leoflow_ledger";
/// The tables that have rows from the first start on.
pub const RECORDS: [&str; 3] = [HISTORY, LEDGER, "instance_fact"];

/// All tables that migrations create, and refinery's.
pub fn tables() -> BTreeSet<String> {
    let created_tables = |sql: &str| -> Vec<String> {
        sql.lines()
            .filter_map(|line| line.strip_prefix("CREATE TABLE "))
            .map(|text| text.strip_prefix("IF NOT EXISTS ").unwrap_or(text))
            .map(|text| text.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
            .collect()
    };
    let names = known().iter().flat_map(|known| created_tables(known.migration.sql().unwrap_or_default()));
    names.chain([HISTORY.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tables_that_migrations_create() {
        let tables = tables();
        for name in RECORDS.iter().chain(&["variable", "dag_run", "task_try", "import_error"]) {
            assert!(tables.contains(*name), "{name}");
        }
    }
}

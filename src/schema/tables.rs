//! The names of our tables, read from the migrations themselves.

use super::embedded::known;
use std::collections::BTreeSet;

/// refinery's own.
pub const HISTORY: &str = "refinery_schema_history";
pub const LEDGER: &str = "leoflow_ledger";
/// What every database has from its first start on, whatever the user did.
pub const RECORDS: [&str; 3] = [HISTORY, LEDGER, "instance_fact"];

/// Every table that some migration makes, and refinery's.
pub fn tables() -> BTreeSet<String> {
    let made = |sql: &str| -> Vec<String> {
        sql.lines()
            .filter_map(|line| line.strip_prefix("CREATE TABLE "))
            .map(|rest| rest.strip_prefix("IF NOT EXISTS ").unwrap_or(rest))
            .map(|rest| rest.chars().take_while(|c| c.is_ascii_alphanumeric() || *c == '_').collect())
            .collect()
    };
    let all = known().iter().flat_map(|known| made(known.migration.sql().unwrap_or_default()));
    all.chain([HISTORY.to_owned()]).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn finds_the_tables_that_the_migrations_make() {
        let tables = tables();
        for name in RECORDS.iter().chain(&["variable", "dag_run", "task_try", "import_error"]) {
            assert!(tables.contains(*name), "{name}");
        }
    }
}

//! Reads columns whose values must be among those that this version knows.

use super::StoreError;
use crate::model::keys::{InstanceKey, RunKey, TryKey};
use tokio_postgres::Row;

/// Reads a column with a name from a fixed set, such as a state. `parse` returns `None` for an unknown name.
pub fn named<T>(row: &Row, column: &'static str, parse: impl Fn(&str) -> Option<T>) -> Result<T, StoreError> {
    let name: &str = row.get(column);
    parse(name).ok_or_else(|| unknown(column, name))
}

/// Reads a column with a name from a fixed set, or NULL.
pub fn named_or_null<T>(
    row: &Row,
    column: &'static str,
    parse: impl Fn(&str) -> Option<T>,
) -> Result<Option<T>, StoreError> {
    let name: Option<&str> = row.get(column);
    name.map(|name| parse(name).ok_or_else(|| unknown(column, name))).transpose()
}

fn unknown(column: &'static str, value: &str) -> StoreError {
    StoreError::UnknownValue { column, value: value.to_owned() }
}

/// Reads the columns `dag_id` and `run_id`.
pub fn run_key(row: &Row) -> RunKey {
    RunKey { dag_id: row.get("dag_id"), run_id: row.get("run_id") }
}

/// Reads the columns of `run_key`, `task_id` and `map_index`.
pub fn instance_key(row: &Row) -> InstanceKey {
    InstanceKey { run: run_key(row), task_id: row.get("task_id"), map_index: row.get("map_index") }
}

/// Reads the columns of `instance_key` and `try_number`.
pub fn try_key(row: &Row) -> TryKey {
    TryKey { instance: instance_key(row), try_number: row.get("try_number") }
}

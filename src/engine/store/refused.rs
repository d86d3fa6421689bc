//! Error texts for values that PostgreSQL refuses to store.

use leoflow_postgres::PgError;
use tokio_postgres::error::SqlState;

/// Returns the text for a SQLSTATE; PostgreSQL's own text names tables and constraints, which mean nothing to a user.
pub fn explain(error: tokio_postgres::Error) -> String {
    let details = error.as_db_error();
    match error.code() {
        Some(&SqlState::CHECK_VIOLATION) => {
            let table = details.and_then(|details| details.table()).unwrap_or_default();
            let constraint = details.and_then(|details| details.constraint()).unwrap_or_default();
            check_violation(table, constraint)
        }
        Some(&(SqlState::CHARACTER_NOT_IN_REPERTOIRE | SqlState::UNTRANSLATABLE_CHARACTER)) => NUL.to_owned(),
        Some(&SqlState::NUMERIC_VALUE_OUT_OF_RANGE) => "a number is out of range".to_owned(),
        Some(&SqlState::DATETIME_FIELD_OVERFLOW) => "a date is out of range".to_owned(),
        Some(code) if code.code().starts_with("54") => "a value is too large to be stored".to_owned(),
        _ => PgError::from(error).to_string(),
    }
}

const NUL: &str = "a text contains the NUL character, which cannot be stored";

/// PostgreSQL calls the constraint of a column `TABLE_COLUMN_check`.
fn check_violation(table: &str, constraint: &str) -> String {
    let column = constraint.strip_prefix(table).and_then(|rest| rest.strip_prefix('_')?.strip_suffix("_check"));
    let name = column.map_or_else(|| "a value".to_owned(), |column| format!("the value of {column}"));
    format!("{name} is empty, too long or out of range")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_violated_check_names_the_field() {
        let slots = check_violation("pool", "pool_slots_check");
        assert_eq!(slots, "the value of slots is empty, too long or out of range");
        assert_eq!(check_violation("dag_run", "other"), "a value is empty, too long or out of range");
    }
}

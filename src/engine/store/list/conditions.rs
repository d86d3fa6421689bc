//! SQL conditions with their parameters.

use super::column::Column;
use std::fmt::Write;
use tokio_postgres::types::ToSql;

pub type Value = Box<dyn ToSql + Sync + Send>;

/// Conditions joined by AND, with their parameters.
#[derive(Default)]
pub struct Conditions {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// Adds a condition; `sql` has `{}` in place of each value.
    pub fn add(&mut self, sql: &str, values: Vec<Value>) {
        self.parts.push(sql.to_owned());
        self.values.extend(values);
    }

    /// Adds a condition with one value.
    pub fn with(&mut self, sql: &str, value: impl ToSql + Sync + Send + 'static) {
        self.add(sql, vec![Box::new(value)]);
    }

    /// Adds a condition with a value, or none for `None`.
    pub fn maybe(&mut self, sql: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            self.with(sql, value);
        }
    }

    /// Adds the condition that the column has one of the values, or none if there are no values.
    pub fn any(&mut self, column: Column, values: Vec<String>) {
        if !values.is_empty() {
            let (sql, kind) = (column.sql, column.field_type.sql());
            self.with(&format!("({sql}) = ANY (({{}}::text[])::{kind}[])"), values);
        }
    }

    /// Adds the condition that `query`, which ends in a WHERE clause, has a row that meets the `nested` conditions.
    /// Adds none if there are no nested conditions.
    pub fn exists(&mut self, query: &str, nested: Self) {
        if nested.parts.is_empty() {
            return;
        }
        self.values.extend(nested.values);
        self.parts.push(format!("EXISTS ({query} AND ({}))", nested.parts.join(") AND (")));
    }

    /// The SQL with numbered parameters.
    pub fn sql(&self) -> String {
        if self.parts.is_empty() {
            return "TRUE".to_owned();
        }
        let joined = format!("({})", self.parts.join(") AND ("));
        let mut parts = joined.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (index, part) in parts.enumerate() {
            // Writing to a string cannot fail.
            let _ = write!(text, "${}{part}", index + 1);
        }
        text
    }

    /// The parameters, in the order of their numbers.
    pub fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_are_numbered_in_order() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.sql(), "TRUE");
        conditions.with("a = {}", 1_i32);
        conditions.add("b = {} OR c = {}", vec![Box::new("x"), Box::new("y")]);
        conditions.add("d", Vec::new());
        assert_eq!(conditions.sql(), "(a = $1) AND (b = $2 OR c = $3) AND (d)");
        let mut nested = Conditions::default();
        for number in 0..9 {
            nested.with("e = {}", number);
        }
        conditions.exists("SELECT FROM f WHERE g", nested);
        let sql = conditions.sql();
        assert!(
            sql.ends_with(
                "AND (EXISTS (SELECT FROM f WHERE g AND (e = $4) AND (e = $5) AND (e = $6) AND (e = $7) \
                               AND (e = $8) AND (e = $9) AND (e = $10) AND (e = $11) AND (e = $12)))"
            ),
            "{sql}"
        );
        assert_eq!(conditions.values().len(), 12);
    }
}

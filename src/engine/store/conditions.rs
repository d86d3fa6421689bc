//! What holds for the rows of a list, in SQL, with values beside it; and columns, which lists are ordered by.

use crate::engine::keys::RunKey;
use std::fmt::Write;
use tokio_postgres::types::ToSql;

pub type Value = Box<dyn ToSql + Sync + Send>;

/// A column, or an expression over some, with its SQL type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub sql: &'static str,
    pub kind: &'static str,
}

impl Column {
    pub const fn text(sql: &'static str) -> Self {
        Self { sql, kind: "text" }
    }

    pub const fn time(sql: &'static str) -> Self {
        Self { sql, kind: "timestamptz" }
    }

    pub const fn whole(sql: &'static str) -> Self {
        Self { sql, kind: "bigint" }
    }

    pub const fn number(sql: &'static str) -> Self {
        Self { sql, kind: "float8" }
    }

    pub const fn flag(sql: &'static str) -> Self {
        Self { sql, kind: "boolean" }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    pub column: Column,
    pub descending: bool,
}

/// Conditions that all hold, in SQL, with their values beside them.
#[derive(Default)]
pub struct Conditions {
    parts: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// `sql` has `{}` where each of the values stands.
    pub fn add(&mut self, sql: &str, values: Vec<Value>) {
        self.parts.push(sql.to_owned());
        self.values.extend(values);
    }

    /// One that has one value.
    pub fn with(&mut self, sql: &str, value: impl ToSql + Sync + Send + 'static) {
        self.add(sql, vec![Box::new(value)]);
    }

    /// One that says something only if there is a value.
    pub fn maybe(&mut self, sql: &str, value: Option<impl ToSql + Sync + Send + 'static>) {
        if let Some(value) = value {
            self.with(sql, value);
        }
    }

    /// Where there are several, one of them is enough.
    pub fn any(&mut self, column: Column, values: Vec<String>) {
        if !values.is_empty() {
            let (sql, kind) = (column.sql, column.kind);
            self.with(&format!("({sql}) = ANY (({{}}::text[])::{kind}[])"), values);
        }
    }

    /// There is such a row of a query that all of these hold for; nothing where there are none.
    pub fn some(&mut self, query: &str, inner: Self) {
        if inner.parts.is_empty() {
            return;
        }
        self.values.extend(inner.values);
        self.parts.push(format!("EXISTS ({query} AND ({}))", inner.parts.join(") AND (")));
    }

    /// The task instances `ti` of one run.
    pub fn add_run(&mut self, run: &RunKey) {
        self.add("ti.dag_id = {} AND ti.run_id = {}", vec![Box::new(run.dag_id.clone()), Box::new(run.run_id.clone())]);
    }

    /// With the values numbered as they come.
    pub fn sql(&self) -> String {
        if self.parts.is_empty() {
            return "TRUE".to_owned();
        }
        let whole = format!("({})", self.parts.join(") AND ("));
        let mut parts = whole.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (at, part) in parts.enumerate() {
            // Writing to a text does not fail.
            let _ = write!(text, "${}{part}", at + 1);
        }
        text
    }

    pub fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_numbered_as_they_come() {
        let mut conditions = Conditions::default();
        assert_eq!(conditions.sql(), "TRUE");
        conditions.with("a = {}", 1_i32);
        conditions.add("b = {} OR c = {}", vec![Box::new("x"), Box::new("y")]);
        conditions.add("d", Vec::new());
        assert_eq!(conditions.sql(), "(a = $1) AND (b = $2 OR c = $3) AND (d)");
        let mut inner = Conditions::default();
        for number in 0..9 {
            inner.with("e = {}", number);
        }
        conditions.some("SELECT FROM f WHERE g", inner);
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

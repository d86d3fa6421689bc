//! Columns of lists, with their types and orders.

use std::cmp::Ordering;

/// Type of a field's values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FieldType {
    Text,
    Time,
    Whole,
    Number,
}

impl FieldType {
    /// Name of the Postgres type.
    pub(super) fn sql(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Time => "timestamptz",
            Self::Whole => "bigint",
            Self::Number => "float8",
        }
    }
}

/// A column or SQL expression, with its type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Column {
    pub sql: &'static str,
    pub field_type: FieldType,
}

impl Column {
    pub const fn text(sql: &'static str) -> Self {
        Self { sql, field_type: FieldType::Text }
    }

    pub const fn time(sql: &'static str) -> Self {
        Self { sql, field_type: FieldType::Time }
    }

    pub const fn whole(sql: &'static str) -> Self {
        Self { sql, field_type: FieldType::Whole }
    }

    pub const fn number(sql: &'static str) -> Self {
        Self { sql, field_type: FieldType::Number }
    }
}

/// A field to order by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order<F> {
    pub(crate) field: F,
    pub(crate) descending: bool,
}

impl<F> Order<F> {
    pub fn ascending(field: F) -> Self {
        Self { field, descending: false }
    }

    pub fn descending(field: F) -> Self {
        Self { field, descending: true }
    }

    /// Compares two rows that do not come from the database; `compare` compares them by a field.
    pub fn compare(&self, compare: impl Fn(F) -> Ordering) -> Ordering
    where
        F: Copy,
    {
        let ascending = compare(self.field);
        if self.descending { ascending.reverse() } else { ascending }
    }
}

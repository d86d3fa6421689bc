//! Cursors for keyset pagination. A cursor holds the sort values of the last row of a page, after which the next page
//! starts, or of its first row, before which the previous page ends.

use super::column::{Column, Order};
use super::conditions::Value;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Prefix of a cursor that leads to the previous page.
const BACKWARD: char = '~';

/// The direction in which a list is read from a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadDirection {
    Forward,
    Backward,
}

/// Where a page starts or ends: at the first row, after a row, or before a row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    First,
    After(Vec<Option<String>>),
    Before(Vec<Option<String>>),
}

impl Cursor {
    /// Returns `None` for an invalid cursor.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::First);
        }
        let backward = text.strip_prefix(BACKWARD);
        let bytes = URL_SAFE_NO_PAD.decode(backward.unwrap_or(text).trim_end_matches('=')).ok()?;
        let values = serde_json::from_slice(&bytes).ok()?;
        Some(if backward.is_some() { Self::Before(values) } else { Self::After(values) })
    }

    /// Formats a cursor from the values of a row.
    pub fn write(values: &[Option<String>], direction: ReadDirection) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::json!(values).to_string());
        match direction {
            ReadDirection::Forward => text,
            ReadDirection::Backward => format!("{BACKWARD}{text}"),
        }
    }

    pub fn values(&self) -> &[Option<String>] {
        match self {
            Self::First => &[],
            Self::After(values) | Self::Before(values) => values,
        }
    }
}

/// SQL condition, with its parameters, for the rows after the row with these values or, backward, before it. As in
/// Postgres, NULLs come last in ascending order and first in descending order.
pub fn after_cursor(
    order: &[Order<Column>],
    values: &[Option<String>],
    direction: ReadDirection,
) -> (String, Vec<Value>) {
    let is_backward = direction == ReadDirection::Backward;
    let (mut sql, mut parameters): (String, Vec<Value>) = (String::new(), Vec::new());
    for (index, (Order { field: Column { sql: column, field_type }, descending }, value)) in
        order.iter().zip(values).enumerate()
    {
        let kind = field_type.sql();
        let nulls_last = *descending == is_backward;
        let (or_equal, strictly_after) = match (value, nulls_last) {
            (None, true) => (format!("({column}) IS NULL"), "FALSE".to_owned()),
            (None, false) => ("TRUE".to_owned(), format!("({column}) IS NOT NULL")),
            (Some(_), _) => {
                let sign = if nulls_last { '>' } else { '<' };
                let or_null = if nulls_last { format!(" OR ({column}) IS NULL") } else { String::new() };
                let compare = |sign: &str| format!("(({column}) {sign} ({{}}::text)::{kind}{or_null})");
                (compare(&format!("{sign}=")), compare(&sign.to_string()))
            }
        };
        let is_last = index + 1 == order.len();
        let parameter_count = if value.is_none() { 0 } else { 1 + usize::from(!is_last) };
        parameters.extend((0..parameter_count).map(|_| Box::new(value.clone()) as Value));
        sql += &if is_last { strictly_after } else { format!("{or_equal} AND ({strictly_after} OR (") };
    }
    sql += &"))".repeat(order.len().saturating_sub(1));
    (sql, parameters)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: Column = Column::text("state");
    const ID: Column = Column::whole("id");

    #[test]
    fn compares_the_columns_one_after_the_other() {
        let order = [Order::descending(STATE), Order::descending(ID)];
        let (sql, values) = after_cursor(&order, &[Some("failed".into()), Some("7".into())], ReadDirection::Forward);
        let expected =
            "((state) <= ({}::text)::text) AND (((state) < ({}::text)::text) OR (((id) < ({}::text)::bigint)))";
        assert_eq!((sql.as_str(), values.len()), (expected, 3));
        let (sql, values) = after_cursor(&order, &[None, Some("7".into())], ReadDirection::Backward);
        let expected = "(state) IS NULL AND (FALSE OR (((id) > ({}::text)::bigint OR (id) IS NULL)))";
        assert_eq!((sql.as_str(), values.len()), (expected, 1));
    }

    #[test]
    fn a_written_cursor_parses_to_the_same_values() {
        let values = vec![Some("a|b".to_owned()), None];
        assert_eq!(Cursor::parse(&Cursor::write(&values, ReadDirection::Forward)), Some(Cursor::After(values.clone())));
        assert_eq!(Cursor::parse(&Cursor::write(&values, ReadDirection::Backward)), Some(Cursor::Before(values)));
        assert_eq!(Cursor::parse(""), Some(Cursor::First));
        for invalid in ["x", "~", "!!", "bm90IGpzb24"] {
            assert_eq!(Cursor::parse(invalid), None, "{invalid}");
        }
    }
}

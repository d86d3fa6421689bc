//! Cursors: the last row of a page, from which the next one goes on.

use super::conditions::{Column, Order, Value};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;

/// Marks a cursor that leads back.
const BACKWARD: char = '~';

/// Where a page begins, or ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Cursor {
    First,
    After(Vec<Option<String>>),
    Before(Vec<Option<String>>),
}

impl Cursor {
    /// `None` for what is none.
    pub fn parse(text: &str) -> Option<Self> {
        if text.is_empty() {
            return Some(Self::First);
        }
        let back = text.strip_prefix(BACKWARD);
        let bytes = URL_SAFE_NO_PAD.decode(back.unwrap_or(text).trim_end_matches('=')).ok()?;
        let values = serde_json::from_slice(&bytes).ok()?;
        Some(if back.is_some() { Self::Before(values) } else { Self::After(values) })
    }

    pub fn write(values: &[Option<String>], is_backward: bool) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::json!(values).to_string());
        if is_backward { format!("{BACKWARD}{text}") } else { text }
    }

    pub fn values(&self) -> &[Option<String>] {
        match self {
            Self::First => &[],
            Self::After(values) | Self::Before(values) => values,
        }
    }
}

/// The rows that come after these values, as `ORDER BY` has them: NULL last where it ascends, first where it descends.
pub fn beyond(order: &[Order], values: &[Option<String>], is_backward: bool) -> (String, Vec<Value>) {
    let (mut sql, mut all): (String, Vec<Value>) = (String::new(), Vec::new());
    for (at, (Order { column: Column { sql: column, kind }, descending }, value)) in
        order.iter().zip(values).enumerate()
    {
        let nulls_last = *descending == is_backward;
        let (or_equal, beyond) = match (value, nulls_last) {
            (None, true) => (format!("({column}) IS NULL"), "FALSE".to_owned()),
            (None, false) => ("TRUE".to_owned(), format!("({column}) IS NOT NULL")),
            (Some(_), _) => {
                let sign = if nulls_last { '>' } else { '<' };
                let or_null = if nulls_last { format!(" OR ({column}) IS NULL") } else { String::new() };
                let compared = |sign: &str| format!("(({column}) {sign} ({{}}::text)::{kind}{or_null})");
                (compared(&format!("{sign}=")), compared(&sign.to_string()))
            }
        };
        let is_last = at + 1 == order.len();
        let uses = if value.is_none() { 0 } else { 1 + usize::from(!is_last) };
        all.extend((0..uses).map(|_| Box::new(value.clone()) as Value));
        sql += &if is_last { beyond } else { format!("{or_equal} AND ({beyond} OR (") };
    }
    sql += &"))".repeat(order.len().saturating_sub(1));
    (sql, all)
}

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: Column = Column::text("state");
    const ID: Column = Column::whole("id");

    #[test]
    fn what_comes_after_a_row_is_told_column_by_column() {
        let order = [Order { column: STATE, descending: true }, Order { column: ID, descending: true }];
        let (sql, values) = beyond(&order, &[Some("failed".into()), Some("7".into())], false);
        let expected =
            "((state) <= ({}::text)::text) AND (((state) < ({}::text)::text) OR (((id) < ({}::text)::bigint)))";
        assert_eq!((sql.as_str(), values.len()), (expected, 3));
        let (sql, values) = beyond(&order, &[None, Some("7".into())], true);
        let expected = "(state) IS NULL AND (FALSE OR (((id) > ({}::text)::bigint OR (id) IS NULL)))";
        assert_eq!((sql.as_str(), values.len()), (expected, 1));
    }

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let values = vec![Some("a|b".to_owned()), None];
        assert_eq!(Cursor::parse(&Cursor::write(&values, false)), Some(Cursor::After(values.clone())));
        assert_eq!(Cursor::parse(&Cursor::write(&values, true)), Some(Cursor::Before(values)));
        assert_eq!(Cursor::parse(""), Some(Cursor::First));
        for wrong in ["x", "~", "!!", "bm90IGpzb24"] {
            assert_eq!(Cursor::parse(wrong), None, "{wrong}");
        }
    }
}

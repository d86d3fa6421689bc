//! Lists: which rows, in which order, and which page of them. A page is told by how many come before it, or by a cursor: the
//! last row of the page before.

use super::StoreError;
use crate::engine::keys::RunKey;
use crate::postgres::GenericClient;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use std::fmt::Write;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// With a cursor no more are counted: that is what it is for. Airflow's number.
pub const COUNTED: i64 = 50_000;

/// Marks a cursor that leads back.
const BACKWARD: char = '~';

type Value = Box<dyn ToSql + Sync + Send>;

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
    sql: Vec<String>,
    values: Vec<Value>,
}

impl Conditions {
    /// `sql` has `{}` where each of the values stands.
    pub fn add(&mut self, sql: &str, values: Vec<Value>) {
        self.sql.push(sql.to_owned());
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
        if inner.sql.is_empty() {
            return;
        }
        self.values.extend(inner.values);
        self.sql.push(format!("EXISTS ({query} AND ({}))", inner.sql.join(") AND (")));
    }

    /// The task instances `ti` of one run.
    pub fn add_run(&mut self, run: &RunKey) {
        self.add("ti.dag_id = {} AND ti.run_id = {}", vec![Box::new(run.dag_id.clone()), Box::new(run.run_id.clone())]);
    }

    /// With the values numbered as they come.
    fn sql(&self) -> String {
        if self.sql.is_empty() {
            return "TRUE".to_owned();
        }
        let whole = format!("({})", self.sql.join(") AND ("));
        let mut parts = whole.split("{}");
        let mut text = parts.next().unwrap_or_default().to_owned();
        for (at, part) in parts.enumerate() {
            // Writing to a text does not fail.
            let _ = write!(text, "${}{part}", at + 1);
        }
        text
    }

    fn values(&self) -> Vec<&(dyn ToSql + Sync)> {
        self.values.iter().map(|value| &**value as &(dyn ToSql + Sync)).collect()
    }
}

/// What a list is asked for.
#[derive(Default)]
pub struct Listing {
    pub conditions: Conditions,
    pub order: Vec<Order>,
    /// All, without one.
    pub limit: Option<i64>,
    pub offset: i64,
    pub cursor: Option<Cursor>,
}

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

    fn write(values: &[Option<String>], is_backward: bool) -> String {
        let text = URL_SAFE_NO_PAD.encode(serde_json::json!(values).to_string());
        if is_backward { format!("{BACKWARD}{text}") } else { text }
    }

    fn values(&self) -> &[Option<String>] {
        match self {
            Self::First => &[],
            Self::After(values) | Self::Before(values) => values,
        }
    }
}

/// One page, and how many there are in all; with a cursor at most [`COUNTED`].
#[derive(Debug)]
pub struct Found<T> {
    pub rows: Vec<T>,
    pub total: i64,
    pub total_limit: Option<i64>,
    pub next: Option<String>,
    pub previous: Option<String>,
}

impl<T> Found<T> {
    pub fn map<U>(self, of: impl Fn(T) -> U) -> Found<U> {
        let rows = self.rows.into_iter().map(of).collect();
        Found { rows, total: self.total, total_limit: self.total_limit, next: self.next, previous: self.previous }
    }
}

impl<T> Found<Result<T, StoreError>> {
    /// The first error, where some could not be read.
    pub fn sound(self) -> Result<Found<T>, StoreError> {
        let rows = self.rows.into_iter().collect::<Result<_, _>>()?;
        Ok(Found { rows, total: self.total, total_limit: self.total_limit, next: self.next, previous: self.previous })
    }
}

/// The cursor is one of another list, or of another order.
#[derive(Debug)]
pub struct OtherCursor;

/// Where rows come from. What is looked up for each row is best a subselect among the columns: it is asked for those of the
/// page alone. `key` tells them apart, so that pages do not overlap.
pub struct Source<'a> {
    pub columns: &'a str,
    pub from: &'a str,
    /// What has one row for each, with the alias: counted only where a condition is about it or one after it.
    pub joins: &'a [(&'a str, &'a str)],
    pub key: &'a [Column],
}

impl<'a> Source<'a> {
    /// Of one table, or of some that are joined for whatever is asked.
    pub fn of(columns: &'a str, from: &'a str, key: &'a [Column]) -> Self {
        Self { columns, from, joins: &[], key }
    }

    fn counted(&self, conditions: &str) -> String {
        let last = self.joins.iter().rposition(|(alias, _)| mentions(conditions, alias));
        let needed = &self.joins[..last.map_or(0, |at| at + 1)];
        needed.iter().fold(self.from.to_owned(), |from, (_, join)| format!("{from} {join}"))
    }

    /// All of it, for one row or a page.
    pub fn shown(&self) -> String {
        self.joins.iter().fold(self.from.to_owned(), |from, (_, join)| format!("{from} {join}"))
    }
}

/// Whether some SQL is about the table with that alias.
fn mentions(sql: &str, alias: &str) -> bool {
    sql.match_indices(&format!("{alias}.")).any(|(at, _)| {
        let before = sql[..at].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

impl Listing {
    pub fn first(limit: i64, order: Order) -> Self {
        Self { order: vec![order], limit: Some(limit), ..Self::default() }
    }

    /// Orders by that where nobody has asked for anything.
    pub fn usually(&mut self, column: Column) {
        if self.order.is_empty() {
            self.order.push(Order { column, descending: false });
        }
    }

    fn whole_order(&self, key: &[Column]) -> Vec<Order> {
        // As Airflow has it, the key goes the way of the first.
        let descending = self.order.first().is_some_and(|first| first.descending);
        let mut order = self.order.clone();
        let missing = key.iter().filter(|column| order.iter().all(|order| order.column != **column));
        let missing: Vec<Order> = missing.map(|column| Order { column: *column, descending }).collect();
        order.extend(missing);
        order
    }

    /// Whether its cursor can be one of this list in this order.
    pub fn check_cursor(&self, key: &[Column]) -> Result<(), OtherCursor> {
        let wanted = self.whole_order(key).len();
        match &self.cursor {
            Some(Cursor::After(values) | Cursor::Before(values)) if values.len() != wanted => Err(OtherCursor),
            _ => Ok(()),
        }
    }

    pub async fn fetch<T>(
        mut self,
        client: &impl GenericClient,
        source: &Source<'_>,
        read: impl Fn(&Row) -> T,
    ) -> Result<Found<T>, StoreError> {
        let columns = source.columns;
        let order = self.whole_order(source.key);
        let conditions = self.conditions.sql();
        let counted = format!("FROM {} WHERE {conditions}", source.counted(&conditions));
        let from = source.shown();
        let Some(cursor) = self.cursor.take() else {
            let total =
                client.query_one(&format!("SELECT count(*) {counted}"), &self.conditions.values()).await?.get(0);
            let count = self.conditions.values.len();
            let order = order_by(&order, false);
            let query = format!(
                "SELECT {columns} FROM {from} WHERE {conditions} ORDER BY {order} LIMIT ${} OFFSET ${}",
                count + 1,
                count + 2
            );
            let mut values = self.conditions.values();
            values.extend([&self.limit as &(dyn ToSql + Sync), &self.offset]);
            let rows = client.query(&query, &values).await?.iter().map(read).collect();
            return Ok(Found { rows, total, total_limit: None, next: None, previous: None });
        };
        let count = format!("SELECT count(*) FROM (SELECT {counted} LIMIT {COUNTED}) AS counted");
        let total = client.query_one(&count, &self.conditions.values()).await?.get(0);
        let is_backward = matches!(cursor, Cursor::Before(_));
        if cursor != Cursor::First {
            let (sql, values) = beyond(&order, cursor.values(), is_backward);
            self.conditions.add(&sql, values);
        }
        let limit = self.limit.unwrap_or(COUNTED);
        let keys: Vec<String> = order.iter().map(|order| format!("({})::text", order.column.sql)).collect();
        let query = format!(
            "SELECT {columns}, ARRAY[{}] AS cursor_values FROM {from} WHERE {} ORDER BY {} LIMIT {}",
            keys.join(", "),
            self.conditions.sql(),
            order_by(&order, is_backward),
            limit.saturating_add(1)
        );
        let mut rows = client.query(&query, &self.conditions.values()).await?;
        let has_more = i64::try_from(rows.len()).is_ok_and(|found| found > limit);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if is_backward {
            rows.reverse();
        }
        let (has_previous, has_next) = if is_backward { (has_more, true) } else { (cursor != Cursor::First, has_more) };
        let values = |row: &Row| row.get::<_, Vec<Option<String>>>("cursor_values");
        let next = rows.last().filter(|_| has_next).map(|row| Cursor::write(&values(row), false));
        let previous = rows.first().filter(|_| has_previous).map(|row| Cursor::write(&values(row), true));
        Ok(Found { rows: rows.iter().map(read).collect(), total, total_limit: Some(COUNTED), next, previous })
    }
}

fn order_by(order: &[Order], is_backward: bool) -> String {
    let term = |order: &Order| {
        format!("{} {}", order.column.sql, if order.descending == is_backward { "ASC" } else { "DESC" })
    };
    order.iter().map(term).collect::<Vec<_>>().join(", ")
}

/// The rows that come after these values, as `ORDER BY` has them: NULL last where it ascends, first where it descends.
fn beyond(order: &[Order], values: &[Option<String>], is_backward: bool) -> (String, Vec<Value>) {
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
    fn what_is_joined_is_counted_only_where_a_condition_is_about_it() {
        let joins = &[("r", "JOIN run r ON true"), ("v", "JOIN version v ON true")];
        let source = Source { columns: "*", from: "task t", joins, key: &[ID] };
        assert_eq!(source.counted("(t.state = $1)"), "task t");
        assert_eq!(
            source.counted("(v.number = $1) AND (driver.x)"),
            "task t JOIN run r ON true JOIN version v ON true"
        );
        assert_eq!(source.shown(), "task t JOIN run r ON true JOIN version v ON true");
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

    #[test]
    fn the_key_tells_rows_apart_that_are_equal() {
        let listing = Listing { order: vec![Order { column: STATE, descending: true }], ..Listing::default() };
        assert_eq!(order_by(&listing.whole_order(&[ID]), false), "state DESC, id DESC");
        assert_eq!(order_by(&listing.whole_order(&[ID]), true), "state ASC, id ASC");
        assert_eq!(order_by(&Listing::default().whole_order(&[ID]), false), "id ASC");
        let other = Listing { cursor: Some(Cursor::After(vec![None])), ..Listing::default() };
        assert!(other.check_cursor(&[ID]).is_ok() && other.check_cursor(&[STATE, ID]).is_err());
    }
}

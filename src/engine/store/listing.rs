//! Lists: which rows, in which order, and which page of them. A page is told by how many come before it, or by a cursor: the
//! last row of the page before.

use super::StoreError;
pub use super::conditions::{Column, Conditions, Order};
pub use super::cursor::Cursor;
use super::cursor::beyond;
use crate::postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// With a cursor no more are counted: that is what it is for. Airflow's number.
pub const COUNTED: i64 = 50_000;

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

impl Listing {
    /// The page of rows that no datastore has, in the order in which they come.
    pub fn page_of<T>(&self, rows: Vec<T>) -> Found<T> {
        let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
        let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let rows = rows.into_iter().skip(number(self.offset)).take(self.limit.map_or(usize::MAX, number)).collect();
        Found { rows, total, total_limit: None, next: None, previous: None }
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
        self.filter_map(|row| Some(of(row)))
    }

    /// Those alone that there is something of.
    pub fn filter_map<U>(self, of: impl Fn(T) -> Option<U>) -> Found<U> {
        let rows = self.rows.into_iter().filter_map(of).collect();
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
/// page alone. `key` tells them apart, so that pages do not overlap: it is never NULL, and no two rows have the same, joins
/// included. Conditions and orders call what is joined by its alias.
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

    /// The query for a page. Which rows are on it is found out without what is only looked up for those that are shown.
    fn rows(&self, columns: &str, conditions: &str, order: &str, page: &str) -> String {
        let from = self.shown();
        // Where all are shown there is nothing to find out.
        if self.joins.is_empty() || page.is_empty() {
            return format!("SELECT {columns} FROM {from} WHERE {conditions} ORDER BY {order} {page}");
        }
        let of_keys = |of: &dyn Fn(&str, usize) -> String| {
            let parts = self.key.iter().enumerate().map(|(at, key)| of(key.sql, at));
            parts.collect::<Vec<_>>()
        };
        let keys = of_keys(&|sql, at| format!("{sql} AS key_{at}")).join(", ");
        let same = of_keys(&|sql, at| format!("{sql} = key_{at}")).join(" AND ");
        let needed = self.counted(&format!("{conditions} {order}"));
        let found = format!("SELECT {keys} FROM {needed} WHERE {conditions} ORDER BY {order} {page}");
        format!("SELECT {columns} FROM {from} JOIN ({found}) AS page ON {same} ORDER BY {order}")
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
        let Some(cursor) = self.cursor.take() else {
            let total =
                client.query_one(&format!("SELECT count(*) {counted}"), &self.conditions.values()).await?.get(0);
            let mut values = self.conditions.values();
            let count = values.len();
            let mut page = String::new();
            if self.limit.is_some() || self.offset > 0 {
                page = format!("LIMIT ${} OFFSET ${}", count + 1, count + 2);
                values.extend([&self.limit as &(dyn ToSql + Sync), &self.offset]);
            }
            let query = source.rows(columns, &conditions, &order_by(&order, false), &page);
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
        let columns = format!("{columns}, ARRAY[{}] AS cursor_values", keys.join(", "));
        let page = format!("LIMIT {}", limit.saturating_add(1));
        let query = source.rows(&columns, &self.conditions.sql(), &order_by(&order, is_backward), &page);
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

#[cfg(test)]
mod tests {
    use super::*;

    const STATE: Column = Column::text("state");
    const ID: Column = Column::whole("id");

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
        // Only the rows of the page are joined with all.
        let page = source.rows("*", "t.state = $1", "r.date, t.id", "LIMIT 5");
        let found =
            "SELECT id AS key_0 FROM task t JOIN run r ON true WHERE t.state = $1 ORDER BY r.date, t.id LIMIT 5";
        let joined = "task t JOIN run r ON true JOIN version v ON true";
        assert_eq!(page, format!("SELECT * FROM {joined} JOIN ({found}) AS page ON id = key_0 ORDER BY r.date, t.id"));
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

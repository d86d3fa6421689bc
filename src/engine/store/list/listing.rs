//! Lists with filters, order and pages. A page is selected by an offset, or by a cursor that identifies the last row of
//! the previous page.

pub use super::conditions::{Column, Conditions, Order};
pub use super::cursor::Cursor;
use super::cursor::after_cursor;
use crate::store::StoreError;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Maximum number of rows that are counted in cursor mode, to avoid counting all. The number is Airflow's.
pub const COUNTED: i64 = 50_000;

/// Parameters of a list.
#[derive(Default)]
pub struct Listing {
    pub conditions: Conditions,
    pub order: Vec<Order>,
    /// `None` returns all rows.
    pub limit: Option<i64>,
    pub offset: i64,
    pub cursor: Option<Cursor>,
}

impl Listing {
    /// A page of rows that do not come from the datastore, in their given order.
    pub fn page_of<T>(&self, rows: Vec<T>) -> ListPage<T> {
        let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
        let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let rows = rows.into_iter().skip(number(self.offset)).take(self.limit.map_or(usize::MAX, number)).collect();
        ListPage { rows, total, total_limit: None, next: None, previous: None }
    }
}

/// One page, with the total number of rows, which is at most [`COUNTED`] with a cursor.
#[derive(Debug)]
pub struct ListPage<T> {
    pub rows: Vec<T>,
    pub total: i64,
    /// The maximum of `total`, if there is one.
    pub total_limit: Option<i64>,
    /// Cursors of the next and the previous page; `None` without a cursor, or if there is no such page.
    pub next: Option<String>,
    pub previous: Option<String>,
}

impl<T> ListPage<T> {
    pub fn map<U>(self, convert: impl Fn(T) -> U) -> ListPage<U> {
        self.filter_map(|row| Some(convert(row)))
    }

    /// Keeps only the rows for which `convert` returns a value.
    pub fn filter_map<U>(self, convert: impl Fn(T) -> Option<U>) -> ListPage<U> {
        let rows = self.rows.into_iter().filter_map(convert).collect();
        ListPage { rows, total: self.total, total_limit: self.total_limit, next: self.next, previous: self.previous }
    }
}

impl<T> ListPage<Result<T, StoreError>> {
    /// Returns the first error of a row, if any.
    pub fn transpose(self) -> Result<ListPage<T>, StoreError> {
        let rows = self.rows.into_iter().collect::<Result<_, _>>()?;
        Ok(ListPage {
            rows,
            total: self.total,
            total_limit: self.total_limit,
            next: self.next,
            previous: self.previous,
        })
    }
}

/// Error: the cursor belongs to another list or order.
#[derive(Debug)]
pub struct InvalidCursor;

/// Tables and columns of a list. Lookups for each row should be subselects among the columns, which run only for the
/// rows of the page. `key` must be unique and never NULL, even with the joins, so that pages do not overlap. Conditions
/// and orders refer to joined tables by alias.
pub struct Source<'a> {
    pub columns: &'a str,
    pub from: &'a str,
    /// Alias and SQL of joins that do not change the number of rows. The count leaves out the joins after the last one
    /// that a condition refers to.
    pub joins: &'a [(&'a str, &'a str)],
    pub key: &'a [Column],
}

impl<'a> Source<'a> {
    /// A source without optional joins.
    pub fn new(columns: &'a str, from: &'a str, key: &'a [Column]) -> Self {
        Self { columns, from, joins: &[], key }
    }

    /// The FROM clause with only the joins that the conditions need.
    fn needed_from(&self, conditions: &str) -> String {
        let last = self.joins.iter().rposition(|(alias, _)| mentions(conditions, alias));
        let needed = &self.joins[..last.map_or(0, |index| index + 1)];
        needed.iter().fold(self.from.to_owned(), |from, (_, join)| format!("{from} {join}"))
    }

    /// The SQL query for a page. It first selects the keys of the page, without the joins that are needed only for
    /// display. `page` is the LIMIT clause.
    fn page_query(&self, columns: &str, conditions: &str, order: &str, page: &str) -> String {
        let from = self.full_from();
        // If all rows are returned, their keys need not be selected first.
        if self.joins.is_empty() || page.is_empty() {
            return format!("SELECT {columns} FROM {from} WHERE {conditions} ORDER BY {order} {page}");
        }
        let key_terms = |term: &dyn Fn(&str, usize) -> String| {
            let parts = self.key.iter().enumerate().map(|(index, key)| term(key.sql, index));
            parts.collect::<Vec<_>>()
        };
        let keys = key_terms(&|sql, index| format!("{sql} AS key_{index}")).join(", ");
        let key_condition = key_terms(&|sql, index| format!("{sql} = key_{index}")).join(" AND ");
        let needed = self.needed_from(&format!("{conditions} {order}"));
        let selected = format!("SELECT {keys} FROM {needed} WHERE {conditions} ORDER BY {order} {page}");
        format!("SELECT {columns} FROM {from} JOIN ({selected}) AS page ON {key_condition} ORDER BY {order}")
    }

    /// The FROM clause with all joins.
    pub fn full_from(&self) -> String {
        self.joins.iter().fold(self.from.to_owned(), |from, (_, join)| format!("{from} {join}"))
    }
}

/// True if the SQL refers to the alias.
fn mentions(sql: &str, alias: &str) -> bool {
    sql.match_indices(&format!("{alias}.")).any(|(position, _)| {
        let before = sql[..position].chars().next_back();
        before.is_none_or(|c| !c.is_alphanumeric() && c != '_')
    })
}

impl Listing {
    /// Selects the first `limit` rows in an order.
    pub fn first(limit: i64, order: Order) -> Self {
        Self { order: vec![order], limit: Some(limit), ..Self::default() }
    }

    /// Sets the default order, if none was requested.
    pub fn order_by_default(&mut self, column: Column) {
        if self.order.is_empty() {
            self.order.push(Order { column, descending: false });
        }
    }

    /// The requested order, followed by the columns of the key that it lacks.
    fn full_order(&self, key: &[Column]) -> Vec<Order> {
        // As in Airflow, the key columns follow the direction of the first column.
        let descending = self.order.first().is_some_and(|first| first.descending);
        let mut order = self.order.clone();
        let missing = key.iter().filter(|column| order.iter().all(|order| order.column != **column));
        let missing: Vec<Order> = missing.map(|column| Order { column: *column, descending }).collect();
        order.extend(missing);
        order
    }

    /// Verifies that the cursor fits this list and order.
    pub fn check_cursor(&self, key: &[Column]) -> Result<(), InvalidCursor> {
        let expected = self.full_order(key).len();
        match &self.cursor {
            Some(Cursor::After(values) | Cursor::Before(values)) if values.len() != expected => Err(InvalidCursor),
            _ => Ok(()),
        }
    }

    /// Reads the page. `read` converts a row.
    pub async fn fetch<T>(
        mut self,
        client: &impl GenericClient,
        source: &Source<'_>,
        read: impl Fn(&Row) -> T,
    ) -> Result<ListPage<T>, StoreError> {
        let columns = source.columns;
        let order = self.full_order(source.key);
        let conditions = self.conditions.sql();
        let counted = format!("FROM {} WHERE {conditions}", source.needed_from(&conditions));
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
            let query = source.page_query(columns, &conditions, &order_by(&order, false), &page);
            let rows = client.query(&query, &values).await?.iter().map(read).collect();
            return Ok(ListPage { rows, total, total_limit: None, next: None, previous: None });
        };
        let count = format!("SELECT count(*) FROM (SELECT {counted} LIMIT {COUNTED}) AS counted");
        let total = client.query_one(&count, &self.conditions.values()).await?.get(0);
        let is_backward = matches!(cursor, Cursor::Before(_));
        if cursor != Cursor::First {
            let (sql, values) = after_cursor(&order, cursor.values(), is_backward);
            self.conditions.add(&sql, values);
        }
        let limit = self.limit.unwrap_or(COUNTED);
        let keys: Vec<String> = order.iter().map(|order| format!("({})::text", order.column.sql)).collect();
        let columns = format!("{columns}, ARRAY[{}] AS cursor_values", keys.join(", "));
        let page = format!("LIMIT {}", limit.saturating_add(1));
        let query = source.page_query(&columns, &self.conditions.sql(), &order_by(&order, is_backward), &page);
        let mut rows = client.query(&query, &self.conditions.values()).await?;
        let has_more = i64::try_from(rows.len()).is_ok_and(|count| count > limit);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if is_backward {
            rows.reverse();
        }
        let (has_previous, has_next) = if is_backward { (has_more, true) } else { (cursor != Cursor::First, has_more) };
        let cursor_values = |row: &Row| row.get::<_, Vec<Option<String>>>("cursor_values");
        let next = rows.last().filter(|_| has_next).map(|row| Cursor::write(&cursor_values(row), false));
        let previous = rows.first().filter(|_| has_previous).map(|row| Cursor::write(&cursor_values(row), true));
        Ok(ListPage { rows: rows.iter().map(read).collect(), total, total_limit: Some(COUNTED), next, previous })
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
    fn counts_only_the_joins_that_a_condition_needs() {
        let joins = &[("r", "JOIN run r ON true"), ("v", "JOIN version v ON true")];
        let source = Source { columns: "*", from: "task t", joins, key: &[ID] };
        assert_eq!(source.needed_from("(t.state = $1)"), "task t");
        assert_eq!(
            source.needed_from("(v.number = $1) AND (driver.x)"),
            "task t JOIN run r ON true JOIN version v ON true"
        );
        assert_eq!(source.full_from(), "task t JOIN run r ON true JOIN version v ON true");
        // Only the rows of the page are joined with all tables.
        let page = source.page_query("*", "t.state = $1", "r.date, t.id", "LIMIT 5");
        let selected =
            "SELECT id AS key_0 FROM task t JOIN run r ON true WHERE t.state = $1 ORDER BY r.date, t.id LIMIT 5";
        let joined = "task t JOIN run r ON true JOIN version v ON true";
        assert_eq!(
            page,
            format!("SELECT * FROM {joined} JOIN ({selected}) AS page ON id = key_0 ORDER BY r.date, t.id")
        );
    }

    #[test]
    fn the_key_breaks_ties_in_the_order() {
        let listing = Listing { order: vec![Order { column: STATE, descending: true }], ..Listing::default() };
        assert_eq!(order_by(&listing.full_order(&[ID]), false), "state DESC, id DESC");
        assert_eq!(order_by(&listing.full_order(&[ID]), true), "state ASC, id ASC");
        assert_eq!(order_by(&Listing::default().full_order(&[ID]), false), "id ASC");
        let other = Listing { cursor: Some(Cursor::After(vec![None])), ..Listing::default() };
        assert!(other.check_cursor(&[ID]).is_ok() && other.check_cursor(&[STATE, ID]).is_err());
    }
}

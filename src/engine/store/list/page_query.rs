//! The SQL of a page of a list: a subquery selects the keys of the page, then the rows are read with all joins.

use super::column::Column;
use super::conditions::Conditions;
use super::cursor::{Cursor, ReadDirection, after_cursor};
use super::page::{ListPage, Order, Page};
use crate::store::StoreError;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Maximum number of rows that are counted in cursor mode and for the dashboard, to avoid counting all; in cursor mode
/// also the limit of a page without one. The number is Airflow's.
pub(crate) const MAX_COUNTED: i64 = 50_000;

/// Tables and columns of a list. Lookups for each row should be subselects among the columns, which run only for the
/// rows of the page. Conditions and orders refer to joined tables by alias.
pub(crate) struct Source<'a> {
    pub columns: &'a str,
    pub from: &'a str,
    /// Alias and SQL of joins that do not change the number of rows. The count leaves out the joins after the last one
    /// that a condition refers to.
    pub joins: &'a [(&'a str, &'a str)],
}

impl<'a> Source<'a> {
    /// A source without optional joins.
    pub fn new(columns: &'a str, from: &'a str) -> Self {
        Self { columns, from, joins: &[] }
    }

    /// The FROM clause with only the joins that the conditions need.
    fn needed_from(&self, conditions: &str) -> String {
        let last = self.joins.iter().rposition(|(alias, _)| mentions(conditions, alias));
        let needed = &self.joins[..last.map_or(0, |index| index + 1)];
        needed.iter().fold(self.from.to_owned(), |from, (_, join)| format!("{from} {join}"))
    }

    /// The SQL query for a page. It first selects the keys of the page, without the joins that are needed only for
    /// display. `page` is the LIMIT clause.
    fn page_sql(&self, key: &[Column], columns: &str, conditions: &str, order: &str, page: &str) -> String {
        let from = self.full_from();
        // If all rows are returned, their keys need not be selected first.
        if self.joins.is_empty() || page.is_empty() {
            return format!("SELECT {columns} FROM {from} WHERE {conditions} ORDER BY {order} {page}");
        }
        let key_terms = |term: &dyn Fn(&str, usize) -> String| {
            let parts = key.iter().enumerate().map(|(index, key)| term(key.sql, index));
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

/// A page of a list, from the tables of `source`.
pub(super) struct PageQuery<'a> {
    pub source: &'a Source<'a>,
    pub key: &'a [Column],
    pub conditions: Conditions,
    /// Includes the columns of the key, so that it decides between any two rows.
    pub order: Vec<Order<Column>>,
    pub page: Page,
}

impl PageQuery<'_> {
    /// Reads the page that the offset selects. `read` converts a row.
    pub async fn fetch<T>(
        self,
        client: &impl GenericClient,
        read: impl Fn(&Row) -> T,
    ) -> Result<ListPage<T>, StoreError> {
        let Self { source, key, conditions, order, page } = self;
        let condition = conditions.sql();
        let count = format!("SELECT count(*) {}", counted(source, &condition));
        let total = client.query_one(&count, &conditions.values()).await?.get(0);
        let mut values = conditions.values();
        let count = values.len();
        let mut limit = String::new();
        if page.limit.is_some() || page.offset > 0 {
            limit = format!("LIMIT ${} OFFSET ${}", count + 1, count + 2);
            values.extend([&page.limit as &(dyn ToSql + Sync), &page.offset]);
        }
        let query = source.page_sql(key, source.columns, &condition, &order_by(&order, ReadDirection::Forward), &limit);
        let rows = client.query(&query, &values).await?.iter().map(read).collect();
        Ok(ListPage { rows, total, total_limit: None, next: None, previous: None })
    }

    /// Reads the page that starts or ends at the cursor. `read` converts a row.
    pub async fn fetch_from<T>(
        self,
        client: &impl GenericClient,
        cursor: &Cursor,
        read: impl Fn(&Row) -> T,
    ) -> Result<ListPage<T>, StoreError> {
        let Self { source, key, mut conditions, order, page } = self;
        let counted = counted(source, &conditions.sql());
        let count = format!("SELECT count(*) FROM (SELECT {counted} LIMIT {MAX_COUNTED}) AS counted");
        let total = client.query_one(&count, &conditions.values()).await?.get(0);
        let is_backward = matches!(cursor, Cursor::Before(_));
        let direction = if is_backward { ReadDirection::Backward } else { ReadDirection::Forward };
        if *cursor != Cursor::First {
            let (sql, values) = after_cursor(&order, cursor.values(), direction);
            conditions.add(&sql, values);
        }
        let limit = page.limit.unwrap_or(MAX_COUNTED);
        let keys: Vec<String> = order.iter().map(|order| format!("({})::text", order.field.sql)).collect();
        let columns = format!("{}, ARRAY[{}] AS cursor_values", source.columns, keys.join(", "));
        let one_more = format!("LIMIT {}", limit.saturating_add(1));
        let query = source.page_sql(key, &columns, &conditions.sql(), &order_by(&order, direction), &one_more);
        let mut rows = client.query(&query, &conditions.values()).await?;
        let has_more = i64::try_from(rows.len()).is_ok_and(|count| count > limit);
        rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
        if is_backward {
            rows.reverse();
        }
        let (has_previous, has_next) =
            if is_backward { (has_more, true) } else { (*cursor != Cursor::First, has_more) };
        let cursor_values = |row: &Row| row.get::<_, Vec<Option<String>>>("cursor_values");
        let next =
            rows.last().filter(|_| has_next).map(|row| Cursor::write(&cursor_values(row), ReadDirection::Forward));
        let previous = rows
            .first()
            .filter(|_| has_previous)
            .map(|row| Cursor::write(&cursor_values(row), ReadDirection::Backward));
        Ok(ListPage { rows: rows.iter().map(read).collect(), total, total_limit: Some(MAX_COUNTED), next, previous })
    }
}

/// The FROM and WHERE clauses of the count.
fn counted(source: &Source<'_>, conditions: &str) -> String {
    format!("FROM {} WHERE {conditions}", source.needed_from(conditions))
}

/// The terms of the ORDER BY clause; they are reversed when the rows are read backward.
pub(super) fn order_by(order: &[Order<Column>], direction: ReadDirection) -> String {
    let is_backward = direction == ReadDirection::Backward;
    let term = |order: &Order<Column>| {
        format!("{} {}", order.field.sql, if order.descending == is_backward { "ASC" } else { "DESC" })
    };
    order.iter().map(term).collect::<Vec<_>>().join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const ID: Column = Column::whole("id");

    #[test]
    fn counts_only_the_joins_that_a_condition_needs() {
        let joins = &[("r", "JOIN run r ON true"), ("v", "JOIN version v ON true")];
        let source = Source { columns: "*", from: "task t", joins };
        assert_eq!(source.needed_from("(t.state = $1)"), "task t");
        assert_eq!(
            source.needed_from("(v.number = $1) AND (driver.x)"),
            "task t JOIN run r ON true JOIN version v ON true"
        );
        assert_eq!(source.full_from(), "task t JOIN run r ON true JOIN version v ON true");
        // Only the rows of the page are joined with all tables.
        let page = source.page_sql(&[ID], "*", "t.state = $1", "r.date, t.id", "LIMIT 5");
        let selected =
            "SELECT id AS key_0 FROM task t JOIN run r ON true WHERE t.state = $1 ORDER BY r.date, t.id LIMIT 5";
        let joined = "task t JOIN run r ON true JOIN version v ON true";
        assert_eq!(
            page,
            format!("SELECT * FROM {joined} JOIN ({selected}) AS page ON id = key_0 ORDER BY r.date, t.id")
        );
    }
}

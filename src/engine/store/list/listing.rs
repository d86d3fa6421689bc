//! Lists with filters, order and pages. A page is selected by an offset, or by a cursor that identifies the row before
//! or after it.

use super::column::{Column, Order};
use super::conditions::Conditions;
use super::cursor::{Cursor, ReadDirection, after_cursor};
use super::field::{Filter, ListField};
use super::filter::FieldTest;
use crate::store::Result;
use crate::store::rows::{FromRow, fetch_one};
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

/// Parameters of a list: the rows that pass all tests and the filter, ordered by the fields in turn. The default lists
/// all rows.
pub struct Listing<F: ListField> {
    pub filter: F::Filter,
    pub order: Vec<Order<F>>,
    pub page: Page,
    tests: Vec<(F, FieldTest)>,
    selects_none: bool,
    cursor: Option<Cursor>,
}

impl<F: ListField> Default for Listing<F> {
    fn default() -> Self {
        Self::of(F::Filter::default())
    }
}

/// Why a cursor is refused.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CursorError {
    Malformed,
    /// The cursor belongs to another list or order.
    OtherList,
}

impl<F: ListField> Listing<F> {
    /// Lists all rows that the filter selects.
    pub fn of(filter: F::Filter) -> Self {
        let (order, tests) = (Vec::new(), Vec::new());
        Self { filter, order, page: Page::default(), tests, selects_none: false, cursor: None }
    }

    pub fn with_page(self, page: Page) -> Self {
        Self { page, ..self }
    }

    /// Adds a test of a field.
    pub fn test(&mut self, field: F, test: FieldTest) {
        self.tests.push((field, test));
    }

    /// Selects no row, for a filter that no row can pass.
    pub fn select_none(&mut self) {
        self.selects_none = true;
    }

    /// Sets the default order, if none was requested.
    pub fn order_by_default(&mut self, default: Order<F>) {
        if self.order.is_empty() {
            self.order.push(default);
        }
    }

    /// Starts the page at a cursor that an earlier page of the list, in the same order, returned.
    pub fn start_at(&mut self, cursor: &str) -> Result<(), CursorError> {
        let cursor = Cursor::parse(cursor).ok_or(CursorError::Malformed)?;
        if cursor != Cursor::First && cursor.values().len() != self.full_order().len() {
            return Err(CursorError::OtherList);
        }
        self.cursor = Some(cursor);
        Ok(())
    }

    /// The requested order, followed by the columns of the key that it lacks.
    fn full_order(&self) -> Vec<Order<Column>> {
        let to_column = |order: &Order<F>| Order { field: order.field.column(), descending: order.descending };
        let mut order: Vec<_> = self.order.iter().map(to_column).collect();
        // As in Airflow, the key columns follow the direction of the first column.
        let descending = order.first().is_some_and(|first| first.descending);
        for column in key::<F>() {
            if order.iter().all(|order| order.field != column) {
                order.push(Order { field: column, descending });
            }
        }
        order
    }

    fn conditions(self) -> Conditions {
        let mut conditions = Conditions::default();
        for (field, test) in self.tests {
            test.add_to(&mut conditions, field.column());
        }
        self.filter.add_to(&mut conditions);
        if self.selects_none {
            conditions.add("FALSE", Vec::new());
        }
        conditions
    }

    /// Reads the page.
    pub(crate) async fn fetch<T: FromRow>(
        self,
        client: &impl GenericClient,
        source: &Source<'_>,
    ) -> Result<ListPage<T>> {
        self.fetch_with(client, source, T::from_row).await?.transpose()
    }

    /// Reads the page. `read` converts a row.
    pub(crate) async fn fetch_with<T>(
        mut self,
        client: &impl GenericClient,
        source: &Source<'_>,
        read: impl Fn(&Row) -> T,
    ) -> Result<ListPage<T>> {
        let (order, page, cursor) = (self.full_order(), self.page, self.cursor.take());
        let conditions = self.conditions();
        let condition = conditions.sql();
        let counted = format!("FROM {} WHERE {condition}", source.needed_from(&condition));
        let Some(cursor) = cursor else {
            let total = fetch_one(client, &format!("SELECT count(*) {counted}"), &conditions.values()).await?;
            let mut values = conditions.values();
            let mut limit = String::new();
            if page.limit.is_some() || page.offset > 0 {
                limit = format!("LIMIT ${} OFFSET ${}", values.len() + 1, values.len() + 2);
                values.extend([&page.limit as &(dyn ToSql + Sync), &page.offset]);
            }
            let order = order_by(&order, ReadDirection::Forward);
            let query = source.page_sql(&key::<F>(), source.columns, &condition, &order, &limit);
            let rows = client.query(&query, &values).await?.iter().map(read).collect();
            return Ok(ListPage { rows, total, total_limit: None, next: None, previous: None });
        };
        let count = format!("SELECT count(*) FROM (SELECT {counted} LIMIT {MAX_COUNTED}) AS counted");
        let total = fetch_one(client, &count, &conditions.values()).await?;
        let limit = page.limit.unwrap_or(MAX_COUNTED);
        let (rows, next, previous) = cursor_page::<F>(client, source, conditions, &order, &cursor, limit).await?;
        let rows = rows.iter().map(read).collect();
        Ok(ListPage { rows, total, total_limit: Some(MAX_COUNTED), next, previous })
    }
}

/// Reads at most `limit` rows that start or end at the cursor, with the cursors of the next and the previous page.
async fn cursor_page<F: ListField>(
    client: &impl GenericClient,
    source: &Source<'_>,
    mut conditions: Conditions,
    order: &[Order<Column>],
    cursor: &Cursor,
    limit: i64,
) -> Result<(Vec<Row>, Option<String>, Option<String>)> {
    let is_backward = matches!(cursor, Cursor::Before(_));
    let direction = if is_backward { ReadDirection::Backward } else { ReadDirection::Forward };
    if *cursor != Cursor::First {
        let (sql, values) = after_cursor(order, cursor.values(), direction);
        conditions.add(&sql, values);
    }
    let keys: Vec<String> = order.iter().map(|order| format!("({})::text", order.field.sql)).collect();
    let columns = format!("{}, ARRAY[{}] AS cursor_values", source.columns, keys.join(", "));
    let one_more = format!("LIMIT {}", limit.saturating_add(1));
    let query = source.page_sql(&key::<F>(), &columns, &conditions.sql(), &order_by(order, direction), &one_more);
    let mut rows = client.query(&query, &conditions.values()).await?;
    let has_more = i64::try_from(rows.len()).is_ok_and(|count| count > limit);
    rows.truncate(usize::try_from(limit).unwrap_or(usize::MAX));
    if is_backward {
        rows.reverse();
    }
    let (has_previous, has_next) = if is_backward { (has_more, true) } else { (*cursor != Cursor::First, has_more) };
    let write = |row: &Row, direction| Cursor::write(&row.get::<_, Vec<Option<String>>>("cursor_values"), direction);
    let next = rows.last().filter(|_| has_next).map(|row| write(row, ReadDirection::Forward));
    let previous = rows.first().filter(|_| has_previous).map(|row| write(row, ReadDirection::Backward));
    Ok((rows, next, previous))
}

fn key<F: ListField>() -> Vec<Column> {
    F::KEY.iter().map(|field| field.column()).collect()
}

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
    pub(crate) fn full_from(&self) -> String {
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

/// The terms of the ORDER BY clause; they are reversed when the rows are read backward.
pub(super) fn order_by(order: &[Order<Column>], direction: ReadDirection) -> String {
    let is_backward = direction == ReadDirection::Backward;
    let term = |order: &Order<Column>| {
        format!("{} {}", order.field.sql, if order.descending == is_backward { "ASC" } else { "DESC" })
    };
    order.iter().map(term).collect::<Vec<_>>().join(", ")
}

/// Rows to return and rows to skip; by default all.
#[derive(Debug, Clone, Copy, Default)]
pub struct Page {
    /// `None` returns all rows.
    pub limit: Option<i64>,
    pub offset: i64,
}

impl Page {
    pub fn first(limit: i64) -> Self {
        Self { limit: Some(limit), offset: 0 }
    }

    /// Selects the page from rows that do not come from the database, in their given order.
    pub fn of<T>(&self, rows: Vec<T>) -> ListPage<T> {
        let number = |count: i64| usize::try_from(count).unwrap_or(usize::MAX);
        let total = i64::try_from(rows.len()).unwrap_or(i64::MAX);
        let rows = rows.into_iter().skip(number(self.offset)).take(self.limit.map_or(usize::MAX, number)).collect();
        ListPage { rows, total, total_limit: None, next: None, previous: None }
    }
}

/// One page of a list.
#[derive(Debug)]
pub struct ListPage<T> {
    pub rows: Vec<T>,
    /// Number of rows on all pages, at most `total_limit` if that is set.
    pub total: i64,
    /// Set only in cursor mode.
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
        let Self { rows, total, total_limit, next, previous } = self;
        ListPage { rows: rows.into_iter().filter_map(convert).collect(), total, total_limit, next, previous }
    }
}

impl<T> ListPage<Result<T>> {
    /// Returns the first error of a row, if any.
    pub fn transpose(self) -> Result<ListPage<T>> {
        let Self { rows, total, total_limit, next, previous } = self;
        Ok(ListPage { rows: rows.into_iter().collect::<Result<_, _>>()?, total, total_limit, next, previous })
    }
}

#[cfg(test)]
mod tests {
    use super::super::cursor::ReadDirection;
    use super::*;
    use crate::store::list::field::list_fields;
    use crate::store::list::listing::order_by;

    list_fields! {
        TaskField, key: [Id];
        Id = whole("id"),
        State = text("state"),
    }

    #[test]
    fn the_key_breaks_ties_in_the_order() {
        let listing = Listing { order: vec![Order::descending(TaskField::State)], ..Listing::default() };
        assert_eq!(order_by(&listing.full_order(), ReadDirection::Forward), "state DESC, id DESC");
        assert_eq!(order_by(&listing.full_order(), ReadDirection::Backward), "state ASC, id ASC");
        assert_eq!(order_by(&Listing::<TaskField>::default().full_order(), ReadDirection::Forward), "id ASC");
    }

    #[test]
    fn a_cursor_must_fit_the_order() {
        let cursor = Cursor::write(&[None], ReadDirection::Forward);
        let mut by_state = Listing { order: vec![Order::ascending(TaskField::State)], ..Listing::default() };
        assert_eq!(by_state.start_at(&cursor), Err(CursorError::OtherList));
        assert_eq!(by_state.start_at("!!"), Err(CursorError::Malformed));
        assert_eq!(by_state.start_at(""), Ok(()));
        assert_eq!(Listing::<TaskField>::default().start_at(&cursor), Ok(()));
    }

    #[test]
    fn tests_are_joined_by_and() {
        let mut listing = Listing::default();
        listing.test(TaskField::State, FieldTest::OneOf(vec!["failed".into()]));
        listing.test(TaskField::Id, FieldTest::OneOf(Vec::new()));
        listing.select_none();
        assert_eq!(listing.conditions().sql(), "((state) = ANY (($1::text[])::text[])) AND (FALSE)");
    }

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

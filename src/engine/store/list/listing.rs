//! Lists with filters, order and pages. A page is selected by an offset, or by a cursor that identifies the row before
//! or after it.

use super::column::Column;
use super::conditions::Conditions;
use super::cursor::Cursor;
use super::field::{Filter, ListField};
use super::filter::FieldTest;
pub use super::page::{ListPage, Order, Page};
use super::page_query::{PageQuery, Source};
use crate::store::StoreError;
use crate::store::rows::FromRow;
use leoflow_postgres::GenericClient;
use tokio_postgres::Row;

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
    ) -> Result<ListPage<T>, StoreError> {
        self.fetch_with(client, source, T::from_row).await?.transpose()
    }

    /// Reads the page. `read` converts a row.
    pub(crate) async fn fetch_with<T>(
        mut self,
        client: &impl GenericClient,
        source: &Source<'_>,
        read: impl Fn(&Row) -> T,
    ) -> Result<ListPage<T>, StoreError> {
        let (order, page, cursor) = (self.full_order(), self.page, self.cursor.take());
        let query = PageQuery { source, key: &key::<F>(), conditions: self.conditions(), order, page };
        match cursor {
            None => query.fetch(client, read).await,
            Some(cursor) => query.fetch_from(client, &cursor, read).await,
        }
    }
}

fn key<F: ListField>() -> Vec<Column> {
    F::KEY.iter().map(|field| field.column()).collect()
}

#[cfg(test)]
mod tests {
    use super::super::cursor::ReadDirection;
    use super::*;
    use crate::store::list::field::list_fields;
    use crate::store::list::page_query::order_by;

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
}

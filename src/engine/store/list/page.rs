//! Orders and pages of lists.

use crate::store::StoreError;
use std::cmp::Ordering;

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

impl<T> ListPage<Result<T, StoreError>> {
    /// Returns the first error of a row, if any.
    pub fn transpose(self) -> Result<ListPage<T>, StoreError> {
        let Self { rows, total, total_limit, next, previous } = self;
        Ok(ListPage { rows: rows.into_iter().collect::<Result<_, _>>()?, total, total_limit, next, previous })
    }
}

//! Lists with filters, order and pages.

pub(crate) mod column;
pub(crate) mod conditions;
pub(crate) mod cursor;
pub mod field;
pub mod filter;
pub mod listing;
pub mod overview;
pub(crate) mod page;
pub(crate) mod page_query;

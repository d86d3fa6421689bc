//! Lists with filters, order and pages.

pub mod column;
pub(crate) mod conditions;
pub(crate) mod cursor;
pub mod field;
pub mod filter;
pub mod listing;
pub mod overview;

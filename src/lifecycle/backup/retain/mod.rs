//! Lists the backups in the home, and selects old ones for removal.

pub mod catalog;
pub mod notes;
pub mod retention;

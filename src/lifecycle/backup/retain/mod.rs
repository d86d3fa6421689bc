//! Lists the backups in the home, and removes old ones.

pub mod catalog;
pub mod notes;
pub mod retention;

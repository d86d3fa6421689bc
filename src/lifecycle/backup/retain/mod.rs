//! The backups in the home: which ones there are, and which ones are removed.

pub mod catalog;
pub mod notes;
pub mod retention;

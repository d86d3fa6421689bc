//! The terminal: results, notes, prompts and progress.

pub mod home_hints;
pub mod printer;
pub mod report;
pub mod tail;

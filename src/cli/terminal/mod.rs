//! The terminal: results, notes, prompts and progress.

pub mod instance_hints;
pub mod printer;
pub mod report;

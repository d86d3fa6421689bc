//! An error of the system, with what was attempted.

use std::io;
use std::path::Path;

/// The text is a message for the user.
#[derive(Debug, thiserror::Error)]
#[error("{attempt}: {source}")]
pub struct IoError {
    /// A path or a phrase.
    attempt: String,
    source: io::Error,
}

/// Adds to an error what was attempted.
pub fn io(attempt: impl ToString) -> impl Fn(io::Error) -> IoError {
    let attempt = attempt.to_string();
    move |source| IoError { attempt: attempt.clone(), source }
}

pub fn unreadable(path: &Path) -> impl Fn(io::Error) -> IoError + use<> {
    io(format!("failed to read {}", path.display()))
}

pub fn unwritable(path: &Path) -> impl Fn(io::Error) -> IoError + use<> {
    io(format!("failed to write {}", path.display()))
}

//! Reads the text files of a project that declare its requirements.

use super::error::DeclarationError;
use crate::io_error::unreadable;
use leoflow_base::sys::fs::files;
use std::path::{Path, PathBuf};

/// Size limit, bytes. The lock file of a large project has some hundred thousand bytes.
pub const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// Reads a file; `None` if it does not exist. Adds its path to `read`, existing or not.
pub fn text_of(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<String>, DeclarationError> {
    read.push(path.to_owned());
    Ok(files::read_text(path, SIZE_LIMIT).map_err(unreadable(path))?)
}

/// Like `text_of`, for a file whose encoding is unknown.
pub fn bytes_of(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<Vec<u8>>, DeclarationError> {
    read.push(path.to_owned());
    Ok(files::read_regular(path, SIZE_LIMIT).map_err(unreadable(path))?)
}

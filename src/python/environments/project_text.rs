//! Reading the text files of a project that declare what it needs.

use crate::sys::files;
use std::io;
use std::path::{Path, PathBuf};

/// Bytes; a locked file of a large project has some hundred thousand.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// A text of a project, or `None` where there is no such file. `read` notes what was looked at, there or not.
pub fn text_of(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<String>, String> {
    read.push(path.to_owned());
    files::read_text(path, SIZE_LIMIT).map_err(|error| unreadable(path, &error))
}

fn unreadable(path: &Path, error: &io::Error) -> String {
    format!("{} cannot be read: {error}", path.display())
}

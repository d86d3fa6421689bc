//! Reads the text files of a project that declare its requirements.

use leoflow_base::sys::fs::files;
use std::path::{Path, PathBuf};

/// Size limit, bytes; a lock file of a large project has some hundred thousand.
const SIZE_LIMIT: u64 = 4 * 1024 * 1024;

/// Reads a file; `None` if it does not exist. `read` collects the paths, existing or not.
pub fn text_of(path: &Path, read: &mut Vec<PathBuf>) -> Result<Option<String>, String> {
    read.push(path.to_owned());
    files::read_text(path, SIZE_LIMIT).map_err(|error| format!("failed to read {}: {error}", path.display()))
}

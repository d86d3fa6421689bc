//! The files that go over `config.yaml`: `config-*.yaml` beside it.

use std::io;
use std::path::{Path, PathBuf};

/// Whether a file of this name goes over `config.yaml`.
pub fn goes_over(name: &str) -> bool {
    name.strip_prefix("config-").and_then(|rest| rest.strip_suffix(".yaml")).is_some_and(|rest| !rest.is_empty())
}

/// Those that go over the one at `config`, in the order of their names.
pub fn over(config: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    let entries = match config.parent().map(std::fs::read_dir).transpose() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(found),
        entries => entries?,
    };
    for entry in entries.into_iter().flatten() {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(goes_over) {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

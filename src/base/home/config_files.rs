//! The files that override `config.yaml`: `config-*.yaml` beside it.

use std::io;
use std::path::{Path, PathBuf};

/// True for the name of a file that overrides `config.yaml`.
pub(crate) fn is_override_name(name: &str) -> bool {
    name.strip_prefix("config-")
        .and_then(|suffix| suffix.strip_suffix(".yaml"))
        .is_some_and(|suffix| !suffix.is_empty())
}

/// Lists the files that override the one at `config`, sorted by name.
pub fn override_files(config: &Path) -> io::Result<Vec<PathBuf>> {
    let mut paths = Vec::new();
    let entries = match config.parent().map(std::fs::read_dir).transpose() {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(paths),
        entries => entries?,
    };
    for entry in entries.into_iter().flatten() {
        let path = entry?.path();
        if path.file_name().and_then(|name| name.to_str()).is_some_and(is_override_name) {
            paths.push(path);
        }
    }
    paths.sort();
    Ok(paths)
}

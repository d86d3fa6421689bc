//! What `doctor` says of Python, and of the environments of projects.

use super::check::Check;
use crate::home::Home;
use crate::python::{self, environments};
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// What a running server says of it.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ServersPython {
    /// The one that it has for DAGs.
    pub python: Option<PathBuf>,
    /// Environments that could not be made.
    pub failed: Vec<Failed>,
}

#[derive(Debug, Deserialize)]
pub struct Failed {
    files: Vec<String>,
    detail: String,
}

pub fn python_found(known: Option<&Path>) -> Check {
    match python::find(known) {
        Ok(python) => Check::ok("python", format!("{} ({})", python.path.display(), python.version)),
        Err(reason) => Check::warning(
            "python",
            reason,
            "install Python 3.10 or newer, or name one: leoflow config set python PATH",
        ),
    }
}

pub fn environments(home: &Home, failed: &[Failed]) -> Check {
    const NAME: &str = "environments";
    if let Some(one) = failed.first() {
        let first = one.detail.lines().next().unwrap_or_default();
        let detail = format!("that of {} could not be made: {first}", one.files.join(", "));
        return Check::warning(NAME, detail, "leoflow env list shows all of it; change what the project wants");
    }
    let built = environments::count(home);
    let with = environments::find_uv(home).map_or("uv is got when it is needed".to_owned(), |uv| uv.to_string());
    Check::ok(NAME, format!("{built} built; {with}"))
}

//! Which Python runs the user's DAGs.

use crate::sys::{command, env_vars};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The oldest Python that Airflow 3 runs on.
pub const MINIMUM: (u32, u32) = (3, 10);

/// Longer than any Python takes to start.
const LIMIT: Duration = Duration::from_secs(10);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Python {
    pub path: PathBuf,
    pub version: String,
}

/// The configured one, else the first on the search path that is new enough. The error says what
/// there was instead.
pub fn find(configured: Option<&Path>) -> Result<Python, String> {
    if let Some(path) = configured {
        return ask(path);
    }
    let names = ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"];
    let mut reasons = Vec::new();
    for folder in env_vars::search_path() {
        for path in names.map(|name| folder.join(name)).iter().filter(|path| path.is_file()) {
            match ask(path) {
                Ok(found) => return Ok(found),
                Err(reason) => reasons.push(reason),
            }
        }
    }
    if reasons.is_empty() { Err("no python3 on PATH".to_owned()) } else { Err(reasons.join("; ")) }
}

fn ask(path: &Path) -> Result<Python, String> {
    let mut command = Command::new(path);
    command.args(["-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3])"]);
    let output = command::output_within(&mut command, LIMIT)
        .map_err(|error| format!("{} does not run: {error}", path.display()))?;
    let version = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= MINIMUM => Ok(Python { path: path.to_owned(), version }),
        (Some(_), Some(_)) => {
            Err(format!("{} is Python {version}; {}.{} or newer is needed", path.display(), MINIMUM.0, MINIMUM.1))
        }
        _ => Err(format!("{} does not say its version", path.display())),
    }
}

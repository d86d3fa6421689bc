//! Which Python runs the user's DAGs.

use crate::sys::transient::is_transient;
use crate::sys::{command, env_vars};
use std::fmt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The oldest Python that Airflow 3 runs on.
pub const MINIMUM: (u32, u32) = (3, 10);

/// Longer than any Python takes to start.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no Python to run DAGs with.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NoPython {
    /// For people.
    pub reason: String,
    /// Whether the system refused for now: no process, no descriptor, no room.
    pub is_transient: bool,
}

impl From<NoPython> for String {
    fn from(missing: NoPython) -> Self {
        missing.reason
    }
}

impl fmt::Display for NoPython {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.reason)
    }
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Python {
    pub path: PathBuf,
    pub version: String,
}

/// The configured one, else the first on the search path that is new enough. The error says what
/// there was instead.
pub fn find(configured: Option<&Path>) -> Result<Python, NoPython> {
    if let Some(path) = configured {
        return ask(path);
    }
    let names = ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"];
    let (mut reasons, mut is_transient) = (Vec::new(), false);
    for folder in env_vars::search_path() {
        for path in names.map(|name| folder.join(name)).iter().filter(|path| path.is_file()) {
            match ask(path) {
                Ok(found) => return Ok(found),
                Err(refused) => {
                    is_transient |= refused.is_transient;
                    reasons.push(refused.reason);
                }
            }
        }
    }
    let reason = if reasons.is_empty() { "no python3 on PATH".to_owned() } else { reasons.join("; ") };
    Err(NoPython { reason, is_transient })
}

/// Every Python of this machine that is new enough: on the search path, of pyenv, asdf and uv. Asks each, which takes a
/// moment; the newest comes first.
pub fn all() -> Vec<Python> {
    let on_path = env_vars::search_path().into_iter().flat_map(|folder| programs_in(&folder));
    let homes = env_vars::user_home().into_iter().flat_map(|home| {
        [home.join(".pyenv/versions"), home.join(".local/share/uv/python"), home.join(".asdf/installs/python")]
    });
    let kept = homes.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let kept = kept.map(|entry| entry.path().join("bin/python3")).filter(|path| path.is_file());
    of(on_path.chain(kept))
}

/// Those of these programs that are a Python, and new enough; the newest comes first.
pub fn of(programs: impl Iterator<Item = PathBuf>) -> Vec<Python> {
    let mut found: Vec<Python> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for path in programs {
        if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))
            && let Ok(python) = ask(&path)
        {
            found.push(python);
        }
    }
    found.sort_by_key(|python| std::cmp::Reverse(numbers(&python.version)));
    found.dedup_by(|other, one| one.path == other.path);
    found
}

/// `python3` and those with a version in their names.
fn programs_in(folder: &Path) -> Vec<PathBuf> {
    let is_one = |name: &str| {
        let rest = name.strip_prefix("python3");
        rest.is_some_and(|rest| {
            rest.is_empty() || rest.strip_prefix('.').is_some_and(|minor| minor.parse::<u32>().is_ok())
        })
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| is_one(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// `3.12.1` as numbers, which is how versions compare.
pub fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

impl Python {
    /// `3.12`.
    pub fn minor(&self) -> String {
        self.version.split('.').take(2).collect::<Vec<_>>().join(".")
    }
}

fn ask(path: &Path) -> Result<Python, NoPython> {
    let mut command = Command::new(path);
    command.args(["-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.executable)"]);
    let output = command::output_within(&mut command, LIMIT).map_err(|error| NoPython {
        reason: format!("{} does not run: {error}", path.display()),
        is_transient: is_transient(&error),
    })?;
    let refused = |reason| Err(NoPython { reason, is_transient: false });
    let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (version, program) = said.split_once(' ').unwrap_or((&said, ""));
    let mut numbers = version.split('.').map(|part| part.parse::<u32>().ok());
    match (numbers.next().flatten(), numbers.next().flatten()) {
        (Some(major), Some(minor)) if (major, minor) >= MINIMUM => {
            Ok(Python { path: beyond_shim(path, Path::new(program)), version: version.to_owned() })
        }
        (Some(_), Some(_)) => {
            refused(format!("{} is Python {version}; {}.{} or newer is needed", path.display(), MINIMUM.0, MINIMUM.1))
        }
        _ => refused(format!("{} does not say its version", path.display())),
    }
}

/// What pyenv, asdf and mise put on the path are scripts that look for the real Python each time, which
/// takes longer than a small DAG file. Other scripts stay: what they set up may be needed.
fn beyond_shim(path: &Path, program: &Path) -> PathBuf {
    let is_shim = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "shims");
    if is_shim && program.is_absolute() && program.is_file() { program.to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_python_behind_a_shim_but_not_the_one_behind_another_script() {
        let real = std::env::current_exe().unwrap();
        assert_eq!(beyond_shim(Path::new("/home/ada/.pyenv/shims/python3"), &real), real);
        let script = Path::new("/home/ada/bin/python3");
        assert_eq!(beyond_shim(script, &real), script);
        // One that does not say where it is.
        let shim = Path::new("/home/ada/.asdf/shims/python3");
        assert_eq!(beyond_shim(shim, Path::new("")), shim);
    }
}

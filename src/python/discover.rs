//! Finds the Python that runs the user's DAGs.

use leoflow_base::sys::env_vars;
use leoflow_base::sys::process::command;
use leoflow_base::sys::transient::is_transient;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// The oldest Python that Airflow 3 runs on.
pub const MINIMUM: (u32, u32) = (3, 10);

/// The file that shows that a virtual environment is one of `linked_venv`, as in `virtual_env.py`.
pub(crate) const LINK_MARKER: &str = "leoflow-link.json";
/// Time limit for a Python to print its version; longer than any Python takes to start.
const LIMIT: Duration = Duration::from_secs(10);

/// Why there is no Python to run DAGs with.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct NoPython {
    /// Message for the user.
    pub reason: String,
    /// True for a transient error of the system: no process, descriptor or disk space left.
    pub is_transient: bool,
}

#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Python {
    pub path: PathBuf,
    pub version: String,
}

/// Returns the configured Python, else the first on the search path that is new enough. The error says for each Python
/// why it cannot be used.
pub fn find(configured: Option<&Path>) -> Result<Python, NoPython> {
    if let Some(path) = configured {
        return inspect(path);
    }
    let names = ["python3", "python3.13", "python3.12", "python3.11", "python3.10", "python"];
    let (mut reasons, mut is_transient) = (Vec::new(), false);
    for folder in search_folders() {
        for path in names.map(|name| folder.join(name)).iter().filter(|path| path.is_file()) {
            match inspect(path) {
                Ok(python) => return Ok(python),
                Err(unusable) => {
                    is_transient |= unusable.is_transient;
                    reasons.push(unusable.reason);
                }
            }
        }
    }
    let reason = if reasons.is_empty() { "no python3 on PATH".to_owned() } else { reasons.join("; ") };
    Err(NoPython { reason, is_transient })
}

/// The folders of the search path. A terminal may have activated a virtual environment for editors, whose Python has the
/// variables and packages of one project.
fn search_folders() -> impl Iterator<Item = PathBuf> {
    env_vars::search_path().into_iter().filter(|folder| !folder.with_file_name(LINK_MARKER).exists())
}

/// Lists every Python of this machine that is new enough, newest first: those on the search path and those that pyenv,
/// asdf and uv have installed. Runs each one, which takes a moment.
pub fn all() -> Vec<Python> {
    let on_path = search_folders().flat_map(|folder| programs_in(&folder));
    let homes = env_vars::user_home().into_iter().flat_map(|home| {
        [home.join(".pyenv/versions"), home.join(".local/share/uv/python"), home.join(".asdf/installs/python")]
    });
    let installed = homes.filter_map(|folder| std::fs::read_dir(folder).ok()).flatten().flatten();
    let installed = installed.map(|entry| entry.path().join("bin/python3")).filter(|path| path.is_file());
    usable_pythons(on_path.chain(installed))
}

/// Returns the Pythons among these programs that run and are new enough, newest first.
pub fn usable_pythons(programs: impl Iterator<Item = PathBuf>) -> Vec<Python> {
    let mut pythons: Vec<Python> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for path in programs {
        if seen.insert(path.canonicalize().unwrap_or_else(|_| path.clone()))
            && let Ok(python) = inspect(&path)
        {
            pythons.push(python);
        }
    }
    pythons.sort_by_key(|python| std::cmp::Reverse(numbers(&python.version)));
    pythons.dedup_by(|next, previous| previous.path == next.path);
    pythons
}

/// Lists `python3` and `python3.N` in a folder.
fn programs_in(folder: &Path) -> Vec<PathBuf> {
    let is_python = |name: &str| {
        name.strip_prefix("python3").is_some_and(|suffix| {
            suffix.is_empty() || suffix.strip_prefix('.').is_some_and(|minor| minor.parse::<u32>().is_ok())
        })
    };
    let entries = std::fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter(|entry| is_python(&entry.file_name().to_string_lossy())).map(|entry| entry.path()).collect()
}

/// Splits `3.12.1` into numbers for comparing versions.
pub fn numbers(version: &str) -> Vec<u32> {
    version.split('.').filter_map(|part| part.parse().ok()).collect()
}

impl Python {
    /// `3.12`.
    pub fn minor(&self) -> String {
        self.version.split('.').take(2).collect::<Vec<_>>().join(".")
    }
}

fn inspect(path: &Path) -> Result<Python, NoPython> {
    let unusable = |reason| Err(NoPython { reason, is_transient: false });
    if command::is_apple_stub(path) {
        return unusable(format!("{} needs the command line tools: xcode-select --install", path.display()));
    }
    let mut command = Command::new(path);
    command.args(["-I", "-S", "-c", "import sys; print('%d.%d.%d' % sys.version_info[:3], sys.executable)"]);
    let output = command::output_within(&mut command, LIMIT).map_err(|error| NoPython {
        reason: format!("failed to run {}: {error}", path.display()),
        is_transient: is_transient(&error),
    })?;
    let printed = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    let (version, program) = printed.split_once(' ').unwrap_or((&printed, ""));
    match numbers(version)[..] {
        [major, minor, ..] if (major, minor) >= MINIMUM => {
            Ok(Python { path: resolve_shim(path, Path::new(program)), version: version.to_owned() })
        }
        [_, _, ..] => {
            unusable(format!("{} is Python {version}; {}.{} or newer is needed", path.display(), MINIMUM.0, MINIMUM.1))
        }
        _ => unusable(format!("{} does not print its version", path.display())),
    }
}

/// Resolves a shim of pyenv, asdf or mise to its Python: a shim searches for the real Python on each start, which takes
/// longer than parsing a small DAG file. Other scripts are kept, because they may set up what their Python needs.
fn resolve_shim(path: &Path, program: &Path) -> PathBuf {
    let is_shim = path.parent().and_then(Path::file_name).is_some_and(|folder| folder == "shims");
    if is_shim && program.is_absolute() && program.is_file() { program.to_owned() } else { path.to_owned() }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_mac_without_command_line_tools_has_no_python() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            leoflow_base::sys::fs::files::write_atomic(&path, text.as_bytes(), 0o755).unwrap();
            path
        };
        let python = write("python3", "#!/bin/sh\necho run >> \"$0.runs\"\necho 3.12.1 \"$0\"\n");
        write("xcode-select", "#!/bin/sh\nexit 2\n");
        assert!(inspect(&python).unwrap_err().reason.contains("xcode-select --install"));
        assert!(!folder.path().join("python3.runs").exists(), "it opens a window");
        write("xcode-select", "#!/bin/sh\necho /Library/Developer/CommandLineTools\n");
        assert_eq!(inspect(&python).unwrap().version, "3.12.1");
    }

    #[test]
    fn resolves_shims_but_no_other_scripts() {
        let real = std::env::current_exe().unwrap();
        assert_eq!(resolve_shim(Path::new("/home/ada/.pyenv/shims/python3"), &real), real);
        let script = Path::new("/home/ada/bin/python3");
        assert_eq!(resolve_shim(script, &real), script);
        // The shim's Python does not print its path.
        let shim = Path::new("/home/ada/.asdf/shims/python3");
        assert_eq!(resolve_shim(shim, Path::new("")), shim);
    }
}

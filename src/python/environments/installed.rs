//! Lists what is installed in an environment, and checks that it works.

use super::error::EnvironmentError;
use crate::io_error::io;
use leoflow_base::sys::process::command;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Time limit for one check. Importing Airflow's own SDK takes some five seconds before it is compiled, and much longer
/// on a slow disk.
const LIMIT: Duration = Duration::from_secs(180);
/// Imports modules that a broken Python often lacks, and lists the installed packages.
const IMPORT_BASICS: &str = "import importlib.metadata as m, ssl, json; list(m.distributions())";
/// Imports the modules that every process of an environment with Airflow's SDK needs, which also compiles them.
const IMPORT_AIRFLOW: &str = "import airflow.sdk.execution_time.task_runner, airflow.sdk.execution_time.supervisor";

/// The environment's Python.
pub fn program(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

/// The environment's site-packages folders.
pub(super) fn site_packages(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let libraries = std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    libraries.map(|entry| entry.path().join("site-packages"))
}

/// `(name, version)` of the installed packages, sorted.
pub fn installed(folder: &Path) -> Vec<(String, String)> {
    let packages =
        site_packages(folder).filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten().filter_map(
            |entry| {
                let name = entry.file_name().to_string_lossy().into_owned();
                let (name, version) = name.strip_suffix(".dist-info")?.rsplit_once('-')?;
                Some((name.to_lowercase().replace('_', "-"), version.to_owned()))
            },
        );
    let mut packages: Vec<(String, String)> = packages.collect();
    packages.sort();
    packages.dedup();
    packages
}

/// True if Apache Airflow's own SDK is installed.
pub(crate) fn has_airflow(folder: &Path) -> bool {
    site_packages(folder).any(|place| place.join("airflow/sdk/__init__.py").is_file())
}

/// Whether the same packages have worked on this machine before.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum History {
    New,
    /// They were imported before, and their compiled modules are present.
    HasWorked,
}

/// Checks that the environment's Python runs and finds its packages; imports Airflow's SDK unless that `HasWorked`
/// before. `scratch` is a folder for files that Airflow writes.
pub fn check(folder: &Path, scratch: &Path, history: History) -> Result<(), EnvironmentError> {
    run_code(folder, scratch, IMPORT_BASICS)?;
    match history {
        History::New if has_airflow(folder) => run_code(folder, scratch, IMPORT_AIRFLOW),
        History::New | History::HasWorked => Ok(()),
    }
}

fn run_code(folder: &Path, scratch: &Path, code: &str) -> Result<(), EnvironmentError> {
    let mut python = Command::new(program(folder));
    python.args(["-I", "-X", "utf8", "-c", code]);
    python.env("AIRFLOW_HOME", scratch.join("airflow")).env("_AIRFLOW_PROCESS_CONTEXT", "client");
    let output = command::output_within(&mut python, LIMIT).map_err(io("the environment's Python failed to run"))?;
    if output.status.success() {
        return Ok(());
    }
    let reason = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
    Err(EnvironmentError::Broken(reason))
}

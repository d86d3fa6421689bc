//! What is in an environment that was installed, and whether that works.

use crate::sys::command;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// With nothing compiled Airflow's own SDK takes some five seconds, and many more on a slow disk.
const LIMIT: Duration = Duration::from_secs(180);
const PLAIN: &str = "import importlib.metadata as m, ssl, json; list(m.distributions())";
/// What every process of such an environment loads. It is compiled by that, here and once.
const AIRFLOW: &str = "import airflow.sdk.execution_time.task_runner, airflow.sdk.execution_time.supervisor";

/// Its Python.
pub fn program(folder: &Path) -> PathBuf {
    folder.join("bin/python")
}

/// Where its packages are.
pub(super) fn places(folder: &Path) -> impl Iterator<Item = PathBuf> {
    let libraries = std::fs::read_dir(folder.join("lib")).into_iter().flatten().flatten();
    libraries.map(|entry| entry.path().join("site-packages"))
}

/// `(name, version)` of what is in an environment that is built, in order.
pub fn installed(folder: &Path) -> Vec<(String, String)> {
    let named =
        places(folder).filter_map(|place| std::fs::read_dir(place).ok()).flatten().flatten().filter_map(|entry| {
            let name = entry.file_name().to_string_lossy().into_owned();
            let (name, version) = name.strip_suffix(".dist-info")?.rsplit_once('-')?;
            Some((name.to_lowercase().replace('_', "-"), version.to_owned()))
        });
    let mut found: Vec<(String, String)> = named.collect();
    found.sort();
    found.dedup();
    found
}

/// Whether Apache Airflow's own SDK is in it.
pub fn has_airflow(folder: &Path) -> bool {
    places(folder).any(|place| place.join("airflow/sdk/__init__.py").is_file())
}

/// Whether its Python runs, and finds what was installed. `room` is for what Airflow writes; the error is for people.
/// `has_worked`: the same has been imported here before, and what that has compiled is there.
pub fn check(folder: &Path, room: &Path, has_worked: bool) -> Result<(), String> {
    ask(folder, room, PLAIN)?;
    if has_airflow(folder) && !has_worked { ask(folder, room, AIRFLOW) } else { Ok(()) }
}

fn ask(folder: &Path, room: &Path, code: &str) -> Result<(), String> {
    let mut asked = Command::new(program(folder));
    asked.args(["-I", "-X", "utf8", "-c", code]);
    asked.env("AIRFLOW_HOME", room.join("airflow")).env("_AIRFLOW_PROCESS_CONTEXT", "client");
    let output = command::output_within(&mut asked, LIMIT).map_err(|error| format!("its Python: {error}"))?;
    if output.status.success() {
        return Ok(());
    }
    let why = command::failure(&String::from_utf8_lossy(&output.stderr), output.status);
    Err(format!("its Python does not work: {why}"))
}

//! Airflow's own clients of its API, and its description of it, which tests share as they share PostgreSQL.

use super::postgres::{cache, held, uv};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/requirements.txt");

/// A Python that has them, and the wheel with Airflow's OpenAPI files; `None` where the package index is away.
pub struct Clients {
    pub python: PathBuf,
    pub wheel: PathBuf,
}

impl Clients {
    pub fn get() -> Option<Self> {
        let _held = held("lock-clients");
        let folder = cache().join("clients");
        let requirements = std::fs::read_to_string(REQUIREMENTS).unwrap();
        let core = format!("apache_airflow_core-{}-py3-none-any.whl", leoflow::web_ui::VERSION);
        let made = Self { python: folder.join("bin/python"), wheel: folder.join(&core) };
        let finished = folder.join("requirements.txt");
        if std::fs::read_to_string(&finished).is_ok_and(|text| text == requirements) && made.wheel.exists() {
            return Some(made);
        }
        let _ = std::fs::remove_dir_all(&folder);
        let mut pip = Command::new("python3");
        pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "-d"]);
        pip.arg(&folder).arg(format!("apache-airflow-core=={}", leoflow::web_ui::VERSION));
        let made_all = done(Command::new(uv()).args(["venv", "--quiet"]).arg(&folder))
            && done(
                Command::new(uv())
                    .args(["pip", "install", "--quiet", "-r", REQUIREMENTS, "--python"])
                    .arg(&made.python),
            )
            && done(&mut pip);
        if !made_all {
            return None;
        }
        std::fs::write(finished, requirements).unwrap();
        Some(made)
    }

    /// Runs a file of `tests/clients`; returns whether all was well, and what it has printed.
    pub fn run(&self, file: &str, arguments: &[&str], home: &Path) -> (bool, String) {
        let mut command = Command::new(&self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)).args(arguments);
        // Nothing of theirs is written beside the sources, or into the real home.
        command.env("HOME", home).env("TMPDIR", home).env("PYTHONDONTWRITEBYTECODE", "1").env_remove("AIRFLOW_HOME");
        let output = command.output().unwrap();
        let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), said)
    }
}

fn done(command: &mut Command) -> bool {
    let command = command.env("UV_NO_CACHE", "1").env("PIP_NO_CACHE_DIR", "1").env("UV_PYTHON_DOWNLOADS", "never");
    command.status().is_ok_and(|status| status.success())
}

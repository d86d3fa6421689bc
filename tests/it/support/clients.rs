//! Airflow's own API clients and its OpenAPI description, shared by all tests like PostgreSQL.

use super::postgres::{cache, cache_lock, uv};
use std::path::{Path, PathBuf};
use std::process::Command;

const REQUIREMENTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/requirements.txt");

/// A Python with the clients, and wheels with Airflow's OpenAPI files.
pub struct Clients {
    pub python: PathBuf,
    /// Of the version of the web UI.
    pub wheel: PathBuf,
    /// Of the newest version that was tried.
    pub newest_wheel: PathBuf,
}

impl Clients {
    /// Installs the clients on first use; `None` if the installation fails, such as without a package index.
    pub fn get() -> Option<Self> {
        let _lock = cache_lock("lock-clients");
        let folder = cache().join("clients");
        let requirements = std::fs::read_to_string(REQUIREMENTS).unwrap();
        let versions = [leoflow::web_ui::version(), super::airflow::newest_version()];
        let [wheel, newest_wheel] =
            versions.map(|version| folder.join(format!("apache_airflow_core-{version}-py3-none-any.whl")));
        let clients = Self { python: folder.join("bin/python"), wheel, newest_wheel };
        let completion_marker = folder.join("requirements.txt");
        if std::fs::read_to_string(&completion_marker).is_ok_and(|text| text == requirements)
            && clients.wheel.exists()
            && clients.newest_wheel.exists()
        {
            return Some(clients);
        }
        let _ = std::fs::remove_dir_all(&folder);
        let download = |version: &str| {
            let mut pip = Command::new("python3");
            pip.args(["-m", "pip", "download", "--quiet", "--no-deps", "--disable-pip-version-check", "-d"]);
            run_uncached(pip.arg(&folder).arg(format!("apache-airflow-core=={version}")))
        };
        let is_installed = run_uncached(Command::new(uv()).args(["venv", "--quiet"]).arg(&folder))
            && run_uncached(
                Command::new(uv())
                    .args(["pip", "install", "--quiet", "-r", REQUIREMENTS, "--python"])
                    .arg(&clients.python),
            )
            && versions.into_iter().all(download);
        if !is_installed {
            return None;
        }
        std::fs::write(completion_marker, requirements).unwrap();
        Some(clients)
    }

    /// Runs a file of `tests/clients`; returns whether it succeeded, and its output.
    pub fn run(&self, file: &str, arguments: &[&str], home: &Path) -> (bool, String) {
        let mut command = Command::new(&self.python);
        command.arg(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients").join(file)).args(arguments);
        // Keeps the clients from writing beside the sources or into the real home. Modules are compiled once: uv
        // installs them uncompiled, and compiling them takes longer than the calls.
        command.env("HOME", home).env("TMPDIR", home).env_remove("AIRFLOW_HOME").env_remove("PYTHONDONTWRITEBYTECODE");
        command.env("PYTHONPYCACHEPREFIX", cache().join("clients-compiled"));
        let output = command.output().unwrap();
        let text = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).concat();
        (output.status.success(), text)
    }
}

/// Runs a command without the caches of uv and pip; true if it succeeded.
fn run_uncached(command: &mut Command) -> bool {
    let command = command.env("UV_NO_CACHE", "1").env("PIP_NO_CACHE_DIR", "1").env("UV_PYTHON_DOWNLOADS", "never");
    command.status().is_ok_and(|status| status.success())
}

//! An environment with Apache Airflow's own SDK and some of its providers, which tests share as they share PostgreSQL.

use super::TestHome;
use super::postgres::{cache, held, uv};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// What a project says that wants it. Where this is changed another one is made.
const SETTINGS: &str = "airflow: 3.3.2\ndependencies: [apache-airflow-providers-http==6.3.0, \
                        apache-airflow-providers-sqlite==4.3.4, apache-airflow-providers-ftp]\n";

/// Another version, with which `scripts/compare-airflow --sdk` runs what the usual one is tested with.
pub fn older_version() -> Option<String> {
    std::env::var("LEOFLOW_TEST_AIRFLOW").ok()
}

/// The settings, and what the folder of their environment is called.
fn wanted() -> (String, String) {
    match older_version() {
        Some(version) => (format!("airflow: {version}\n"), format!("airflow-{version}")),
        None => (SETTINGS.to_owned(), "airflow".to_owned()),
    }
}

/// Its Python.
pub fn python() -> PathBuf {
    environment().join("bin/python")
}

/// The folder of the environment.
fn environment() -> &'static PathBuf {
    static MADE: OnceLock<PathBuf> = OnceLock::new();
    MADE.get_or_init(|| {
        let (settings, name) = wanted();
        let _held = held("lock-airflow");
        let root = cache().join(name);
        let (home, project) = (root.join("home"), root.join("workspace/project"));
        let found = || {
            let entries = std::fs::read_dir(home.join("venvs")).ok()?;
            entries.flatten().map(|entry| entry.path()).find(|path| path.join("bin/python").exists())
        };
        let is_it = std::fs::read_to_string(project.join("leoflow.yaml")).is_ok_and(|text| text == settings);
        if let Some(made) = found().filter(|_| is_it) {
            return made;
        }
        let _ = std::fs::remove_dir_all(&root);
        std::fs::create_dir_all(&project).unwrap();
        std::fs::write(project.join("leoflow.yaml"), settings).unwrap();
        std::fs::write(project.join("dag.py"), "from airflow.sdk import DAG\nDAG('nothing')\n").unwrap();
        let output = Command::new(super::LEOFLOW)
            .arg("--home")
            .arg(&home)
            .arg("validate")
            .arg(&project)
            .env("LEOFLOW_UV", uv())
            .env("LEOFLOW_WORKSPACE", root.join("workspace"))
            .output()
            .unwrap();
        assert!(output.status.success(), "{output:?}");
        // What it was unpacked from is no use to anybody here.
        let _ = std::fs::remove_dir_all(home.join("tools"));
        found().expect("the environment was built")
    })
}

impl TestHome {
    /// Gives all DAGs of its workspace the shared environment, before it is started.
    pub fn with_airflow(self) -> Self {
        let made = environment();
        let folder = self.home.join("venvs");
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(made, folder.join(made.file_name().unwrap())).unwrap();
        std::fs::create_dir_all(self.workspace()).unwrap();
        std::fs::write(self.workspace().join("leoflow.yaml"), wanted().0).unwrap();
        self
    }
}

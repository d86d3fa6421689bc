//! An environment with Apache Airflow's own SDK and some of its providers, shared by all tests like PostgreSQL.

use super::postgres::{cache, cache_lock, uv};
use super::{TestHome, template};
use std::path::PathBuf;
use std::process::Command;
use std::sync::OnceLock;

/// The project settings (`leoflow.yaml`) of the environment. A change rebuilds the environment.
const SETTINGS: &str = "airflow: 3.3.2\ndependencies: [apache-airflow-providers-http==6.3.0, \
                        apache-airflow-providers-sqlite==4.3.4, apache-airflow-providers-ftp]\n";

/// Another Airflow version, for which `scripts/compare-airflow --sdk` runs the same tests.
pub fn other_version() -> Option<String> {
    std::env::var("LEOFLOW_TEST_AIRFLOW").ok()
}

/// The newest version that was tried.
pub fn newest_version() -> &'static str {
    leoflow::airflow_minors::minors().last().unwrap().tried
}

/// Returns the settings and the name of the folder of their environment.
fn settings_and_folder(version: Option<&str>) -> (String, String) {
    match version {
        Some(version) => (format!("airflow: {version}\n"), format!("airflow-{version}")),
        None => (SETTINGS.to_owned(), "airflow".to_owned()),
    }
}

/// Returns the Python of the environment of a version; `None` is the one that all tests use.
pub fn python(version: Option<&str>) -> PathBuf {
    environment(version).join("bin/python")
}

/// Returns the environment's folder, built on first use.
fn environment(version: Option<&str>) -> &'static PathBuf {
    static ENVIRONMENTS: [OnceLock<PathBuf>; 2] = [const { OnceLock::new() }; 2];
    // No test uses more than one other version.
    ENVIRONMENTS[usize::from(version.is_some())].get_or_init(|| {
        let (settings, name) = settings_and_folder(version);
        let _lock = cache_lock("lock-airflow");
        let root = cache().join(name);
        let (home, project) = (root.join("home"), root.join("workspace/project"));
        let find_environment = || {
            let entries = std::fs::read_dir(home.join("venvs")).ok()?;
            entries.flatten().map(|entry| entry.path()).find(|path| path.join("bin/python").exists())
        };
        let is_current = std::fs::read_to_string(project.join("leoflow.yaml")).is_ok_and(|text| text == settings);
        if let Some(environment) = find_environment().filter(|_| is_current) {
            return environment;
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
        // Removes the tools, which no test needs, to save disk space.
        let _ = std::fs::remove_dir_all(home.join("tools"));
        find_environment().expect("the environment was built")
    })
}

impl TestHome {
    /// Gives all DAGs of the workspace the shared environment; call it before the start.
    pub fn with_airflow(self) -> Self {
        let version = other_version();
        self.with_airflow_version(version.as_deref())
    }

    /// The same with the newest version that was tried.
    pub fn with_newest_airflow(self) -> Self {
        self.with_airflow_version(Some(newest_version()))
    }

    fn with_airflow_version(self, version: Option<&str>) -> Self {
        let environment = environment(version);
        *self.unreported_password.lock().unwrap() = template::copy_template_home(&self);
        let folder = self.home.join("venvs");
        std::fs::create_dir_all(&folder).unwrap();
        std::os::unix::fs::symlink(environment, folder.join(environment.file_name().unwrap())).unwrap();
        std::fs::create_dir_all(self.workspace()).unwrap();
        std::fs::write(self.workspace().join("leoflow.yaml"), settings_and_folder(version).0).unwrap();
        // Keeps warm Pythons for the whole test: each restart imports the SDK again, which takes seconds.
        self.with_limit("LEOFLOW_IDLE_LIMIT", "600")
    }
}

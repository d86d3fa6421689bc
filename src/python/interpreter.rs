//! A Python that is ready to run the user's DAGs: which one, with which of our files.

use super::{discover, shim, support};
use crate::home::Home;
use crate::sys::env_vars;
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};

/// Marks the processes of a task, in their environment.
pub const TASK_MARK: &str = "LEOFLOW_TASK";

/// What our Python package is asked to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Find the DAGs of a file.
    Parse,
    /// Run one try of one task.
    Task,
    /// Run a whole DAG in the foreground.
    Test,
    /// Answer what only the file's own code knows.
    Ask,
}

impl Job {
    fn word(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Task => "task",
            Self::Test => "test",
            Self::Ask => "ask",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    pub program: PathBuf,
    shim: PathBuf,
    compiled: PathBuf,
    /// Packages that DAG files expect, once they are there.
    support: PathBuf,
}

impl Interpreter {
    /// The configured Python, or the first on the path that is new enough. The error is for people.
    pub fn prepare(home: &Home, configured: Option<&Path>) -> Result<Self, String> {
        let python = discover::find(configured).map_err(|reason| {
            let (major, minor) = discover::MINIMUM;
            format!(
                "Leoflow needs Python {major}.{minor} or newer to run DAGs, and has none: {reason}\n\
                 Install one with the system's package manager, or name one as `python` in {}.",
                home.config().display()
            )
        })?;
        let shim =
            shim::install(home).map_err(|error| format!("{} cannot be written: {error}", home.python().display()))?;
        let support = support::folder(home);
        Ok(Self { program: python.path, shim, compiled: home.python().join("compiled"), support })
    }

    /// The arguments for a job. The environment's PYTHON* variables do not count: they are for the
    /// user's shell. Compiled modules go below the home; nothing is written to the workspace.
    pub fn arguments(&self, job: Job, options: &Value) -> Vec<OsString> {
        let mut prefix = OsString::from("pycache_prefix=");
        prefix.push(&self.compiled);
        let mut options = options.clone();
        if let Some(map) = options.as_object_mut().filter(|_| self.support.is_dir()) {
            map.insert("support".to_owned(), self.support.to_string_lossy().into());
        }
        let entry = self.shim.join("_leoflow_entry.py").into_os_string();
        [
            "-E".into(),
            "-X".into(),
            "utf8".into(),
            "-X".into(),
            prefix,
            entry,
            job.word().into(),
            options.to_string().into(),
        ]
        .into()
    }
}

/// What every program of a user needs, whoever has started it. docs/running-tasks.md has the list.
const PASSED: &[&str] = &[
    "CURL_CA_BUNDLE",
    "HOME",
    "HOSTNAME",
    "HTTPS_PROXY",
    "HTTP_PROXY",
    "LANG",
    "LANGUAGE",
    "LD_LIBRARY_PATH",
    "LOGNAME",
    "NO_PROXY",
    "PATH",
    "REQUESTS_CA_BUNDLE",
    "SHELL",
    "SSL_CERT_DIR",
    "SSL_CERT_FILE",
    "TERM",
    "TMPDIR",
    "TZ",
    "USER",
    "http_proxy",
    "https_proxy",
    "no_proxy",
];
const PASSED_PREFIXES: &[&str] = &["AIRFLOW_", "LC_", "XDG_"];

/// What DAGs and tasks get of our environment. The rest is of whoever happened to start Lite: what a project needs
/// stands in its `.env`, so that it is there after every start.
pub fn environment() -> Vec<(OsString, OsString)> {
    let is_passed =
        |name: &str| PASSED.contains(&name) || PASSED_PREFIXES.iter().any(|prefix| name.starts_with(prefix));
    env_vars::all().into_iter().filter(|(name, _)| is_passed(&name.to_string_lossy())).collect()
}

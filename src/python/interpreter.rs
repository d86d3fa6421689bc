//! A Python that is ready to run the user's DAGs: which one, with which of our files.

use super::{discover, environments, package, support};
use crate::home::Home;
use crate::sys::{command, env_vars};
use serde_json::Value;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

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
    /// Wait in the place of deferred tasks.
    Triggers,
    /// Fork for each try or parse.
    Zygote,
}

impl Job {
    /// What it is called on the command line and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Task => "task",
            Self::Test => "test",
            Self::Ask => "ask",
            Self::Triggers => "triggers",
            Self::Zygote => "zygote",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Interpreter {
    pub program: PathBuf,
    package: PathBuf,
    /// Whether it is one of an environment, which keeps its compiled modules itself.
    is_of_environment: bool,
    home: Home,
    /// Whether Airflow's own SDK parses and runs the DAGs: it does in an environment that has it.
    pub is_airflows: bool,
}

impl Interpreter {
    /// The configured Python, or the first on the path that is new enough, or one that was got. The error is for people.
    pub fn prepare(home: &Home, configured: Option<&Path>) -> Result<Self, String> {
        let got = |reason| match environments::managed_plain(home) {
            Some(python) if configured.is_none() => Ok(python),
            _ => Err(reason),
        };
        let python = discover::find(configured).or_else(got).map_err(|reason| {
            let (major, minor) = discover::MINIMUM;
            format!(
                "Leoflow needs Python {major}.{minor} or newer to run DAGs, and has none: {reason}\n\
                 Install one with the system's package manager, or name one as `python` in {}.",
                home.config().display()
            )
        })?;
        let package = package::install(home)
            .map_err(|error| format!("{} cannot be written: {error}", home.python().display()))?;
        Ok(Self { program: python.path, package, is_of_environment: false, home: home.clone(), is_airflows: false })
    }

    /// The same with the Python and the packages of an environment.
    pub fn in_environment(&self, folder: &Path) -> Self {
        let is_airflows = environments::has_airflow(folder);
        Self { program: environments::program(folder), is_of_environment: true, is_airflows, ..self.clone() }
    }

    /// The version that is asked for, which takes a moment; the error is for people.
    pub fn python(&self) -> Result<discover::Python, String> {
        discover::find(Some(&self.program))
    }

    /// The arguments for a job. The environment's PYTHON* variables do not count: they are for the
    /// user's shell. Compiled modules go below the home; nothing is written to the workspace.
    pub fn arguments(&self, job: Job, options: &Value) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["-E", "-X", "utf8"].map(Into::into).into();
        if !self.is_of_environment {
            let mut prefix = OsString::from("pycache_prefix=");
            prefix.push(self.package.with_file_name("compiled"));
            arguments.extend(["-X".into(), prefix]);
        }
        let options = self.options(options);
        let entry = self.package.join("_leoflow_entry.py").into_os_string();
        arguments.extend([entry, job.word().into(), options.to_string().into()]);
        arguments
    }

    /// Options with where it finds what DAGs and tasks expect.
    pub fn options(&self, options: &Value) -> Value {
        let mut options = options.clone();
        if let Some(map) = options.as_object_mut() {
            // It need not be there yet.
            let (uv, cache) = environments::uv_of_tasks(&self.home);
            map.insert("uv".to_owned(), uv.to_string_lossy().into());
            map.insert("uv_cache".to_owned(), cache.to_string_lossy().into());
            let packages = support::folder(&self.home);
            if self.is_airflows {
                // Where it keeps what it writes.
                map.insert("airflow_home".to_owned(), self.home.python().join("airflow").to_string_lossy().into());
            } else if packages.is_dir() {
                map.insert("support".to_owned(), packages.to_string_lossy().into());
            }
        }
        options
    }

    /// Whether it is still there, with our files.
    fn is_intact(&self) -> bool {
        self.program.is_file() && self.package.join("_leoflow_entry.py").is_file()
    }

    /// Where packages that are installed for it go. Asks it, which takes a moment.
    pub fn site_folders(&self) -> Vec<PathBuf> {
        let mut command = Command::new(&self.program);
        command.args([
            "-E",
            "-c",
            "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')",
        ]);
        let said = command::output_within(&mut command, ASKING_LIMIT).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
    }
}

const ASKING_LIMIT: Duration = Duration::from_secs(10);

/// The one that a process runs the user's code with: looked for until there is one, and made ready again when
/// somebody has removed our files.
pub struct SharedInterpreter {
    home: Home,
    configured: Option<PathBuf>,
    found: tokio::sync::Mutex<Option<Interpreter>>,
}

impl SharedInterpreter {
    pub fn new(home: Home, configured: Option<PathBuf>) -> Self {
        Self { home, configured, found: tokio::sync::Mutex::default() }
    }

    /// Whether somebody has said which.
    pub fn is_configured(&self) -> bool {
        self.configured.is_some()
    }

    /// The error is for people.
    pub async fn get(&self) -> Result<Interpreter, String> {
        let mut found = self.found.lock().await;
        if let Some(one) = found.as_ref().filter(|one| one.is_intact()) {
            return Ok(one.clone());
        }
        let (home, configured) = (self.home.clone(), self.configured.clone());
        let prepared = tokio::task::spawn_blocking(move || Interpreter::prepare(&home, configured.as_deref())).await;
        let one = prepared.map_err(|error| error.to_string())??;
        *found = Some(one.clone());
        Ok(one)
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

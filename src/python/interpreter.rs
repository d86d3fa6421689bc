//! A Python that is ready to run the user's DAGs: which one, with which of our files.

use super::discover::{self, NoPython};
use super::{environments, package, support};
use crate::config;
use crate::home::{Home, lock};
use crate::sys::transient::is_transient;
use crate::sys::{blocking, command, env_vars};
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
    /// Where the web page is, for links in what tasks send.
    base_url: Option<Box<str>>,
    /// Whether Airflow's own SDK parses and runs the DAGs: it does in an environment that has it.
    pub is_airflows: bool,
}

impl Interpreter {
    /// The configured Python, or the first on the path that is new enough, or one that was got. The error is for people.
    pub fn prepare(home: &Home, configured: Option<&Path>) -> Result<Self, NoPython> {
        let got = |missing| match environments::managed_plain(home) {
            Some(python) if configured.is_none() => Ok(python),
            _ => Err(missing),
        };
        let python = discover::find(configured).or_else(got).map_err(|missing| {
            let (major, minor) = discover::MINIMUM;
            let reason = format!(
                "Leoflow needs Python {major}.{minor} or newer to run DAGs, and has none: {missing}\n\
                 Install one with the system's package manager, or name one as `python` in {}.",
                home.config().display()
            );
            NoPython { reason, ..missing }
        })?;
        let package = package::install(home).map_err(|error| NoPython {
            reason: format!("{} cannot be written: {error}", home.python().display()),
            is_transient: is_transient(&error),
        })?;
        let base_url = base_url(home);
        let (program, home) = (python.path, home.clone());
        Ok(Self { program, package, is_of_environment: false, home, base_url, is_airflows: false })
    }

    /// The same with the Python and the packages of an environment.
    pub fn in_environment(&self, folder: &Path) -> Self {
        let is_airflows = environments::has_airflow(folder);
        Self { program: environments::program(folder), is_of_environment: true, is_airflows, ..self.clone() }
    }

    /// The version that is asked for, which takes a moment; the error is for people.
    pub fn python(&self) -> Result<discover::Python, NoPython> {
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
            if let Some(url) = &self.base_url {
                map.insert("base_url".to_owned(), (&**url).into());
            }
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
    pub async fn get(&self) -> Result<Interpreter, NoPython> {
        let mut found = self.found.lock().await;
        if let Some(one) = found.as_ref().filter(|one| one.is_intact()) {
            return Ok(one.clone());
        }
        let (home, configured) = (self.home.clone(), self.configured.clone());
        let prepared = blocking::run(move || Interpreter::prepare(&home, configured.as_deref())).await;
        let lost = |error: tokio::task::JoinError| NoPython { reason: error.to_string(), is_transient: false };
        let one = prepared.map_err(lost)??;
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

/// Where the instance serves that runs, or would serve.
fn base_url(home: &Home) -> Option<Box<str>> {
    if let Some(url) = lock::holder(home).and_then(|holder| holder.url) {
        return Some(url.into());
    }
    // A file that cannot be read is an error of the command that needs it.
    let config = config::load(&home.config()).ok()??.config;
    Some(format!("http://{}:{}", config.own_address(), config.port).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn every_process_learns_where_the_page_is() {
        let folder = tempfile::tempdir().unwrap();
        let home = crate::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        std::fs::write(home.config(), "port: 9123\n").unwrap();
        let interpreter = Interpreter {
            program: "/bin/python3".into(),
            package: folder.path().into(),
            is_of_environment: false,
            base_url: base_url(&home),
            home,
            is_airflows: false,
        };
        assert_eq!(interpreter.options(&json!({}))["base_url"], "http://127.0.0.1:9123");
    }
}

//! A Python that is ready to run the user's DAGs, with the small package (our own `airflow.sdk`, see `package.rs`).

use super::discover::{self, NoPython};
use super::passed_variables::environment;
use super::{environments, package, support};
use leoflow_base::config;
use leoflow_base::home::{self, Home, lock};
use leoflow_base::sys::blocking;
use leoflow_base::sys::fs::disk;
use leoflow_base::sys::process::Signal;
use leoflow_base::sys::process::command;
use leoflow_base::sys::process::spawn::Spawn;
use leoflow_base::sys::transient::is_transient;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// Environment variable that marks the processes of one task try, or of one child that parses or answers a question, with
/// its id. Descendants inherit it, so leftovers can be found.
pub const TASK_MARK: &str = "LEOFLOW_TASK";
/// Free bytes below which Python keeps no compiled modules: when the disk becomes full, it keeps truncated ones.
/// <https://github.com/python/cpython/issues/126606>
const NEEDED_FOR_COMPILED: u64 = 64 << 20;
/// Start of the marks of children that import DAG files; those of tries are hashes.
pub(crate) const PARSE_MARK: &str = "parse-";

/// Start of the marks of the children that import DAG files and that the process `parent` has started.
pub(crate) fn parse_marks_of(parent: u32) -> String {
    format!("{PARSE_MARK}{parent:08x}")
}

/// True for the mark of a child that imports a DAG file and that the process `parent` has started.
pub fn is_parse_mark_of(mark: &str, parent: u32) -> bool {
    mark.starts_with(&parse_marks_of(parent))
}

/// True for the mark of a child that imports a DAG file.
pub fn is_parse_mark(mark: &str) -> bool {
    mark.starts_with(PARSE_MARK)
}

/// A job of our Python package.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Job {
    /// Finds the DAGs of a file.
    Parse,
    /// Runs one try of one task.
    Task,
    /// Runs a whole DAG in the foreground.
    Test,
    /// Answers a question that needs the DAG file's own code, see `leoflow/entry/ask.py`.
    Ask,
    /// Runs the triggers of deferred tasks.
    Triggers,
    /// Forks for each try or parse.
    Zygote,
    /// Runs a user's command with a project's variables and import folders.
    Shell,
    /// Reads what files need from their sources.
    Survey,
    /// Writes a virtual environment for editors.
    Link,
    /// Runs a project's tests.
    Pytest,
}

impl Job {
    /// The name on the command line and in messages.
    pub fn word(self) -> &'static str {
        match self {
            Self::Parse => "parse",
            Self::Task => "task",
            Self::Test => "test",
            Self::Ask => "ask",
            Self::Triggers => "triggers",
            Self::Zygote => "zygote",
            Self::Shell => "shell",
            Self::Survey => "survey",
            Self::Link => "link",
            Self::Pytest => "pytest",
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Interpreter {
    pub program: PathBuf,
    /// Folder of the small package.
    pub(crate) package: PathBuf,
    /// True for an environment's Python, which writes compiled modules into the environment.
    is_of_environment: bool,
    pub(crate) home: Home,
    /// The options that [`home_options`] returned when the interpreter was prepared.
    home_options: Map<String, Value>,
    /// True if the environment contains Airflow's own SDK, which then parses and runs the DAGs.
    pub has_airflow_sdk: bool,
}

impl Interpreter {
    /// Uses the configured Python. If none is configured, uses the first on the search path that is new enough, else one
    /// that Leoflow installed. Installs the small package.
    pub fn prepare(home: &Home, configured: Option<&Path>) -> Result<Self, NoPython> {
        let managed = |missing| match environments::managed_plain(home) {
            Some(python) if configured.is_none() => Ok(python),
            _ => Err(missing),
        };
        let python = discover::find(configured).or_else(managed).map_err(|missing| {
            let (major, minor) = discover::MINIMUM;
            let config = home.config();
            let reason = match configured {
                Some(_) => format!(
                    "Leoflow needs Python {major}.{minor} or newer to run DAGs, and the configured one is not usable: \
                     {missing}\nChange or remove `python` in {}.",
                    config.display()
                ),
                None => format!(
                    "Leoflow needs Python {major}.{minor} or newer to run DAGs, but found none: {missing}\n\
                     Install one with the system's package manager, or set `python` in {}.",
                    config.display()
                ),
            };
            NoPython { reason, ..missing }
        })?;
        let package = package::install(home).map_err(|error| NoPython {
            reason: format!("failed to write {}: {error}", home.python().display()),
            is_transient: is_transient(&error),
        })?;
        Ok(Self {
            program: python.path,
            package,
            is_of_environment: false,
            home: home.clone(),
            home_options: home_options(home),
            has_airflow_sdk: false,
        })
    }

    /// Returns the Python of the environment in `folder`.
    pub fn in_environment(&self, folder: &Path) -> Self {
        let has_airflow_sdk = environments::has_airflow(folder);
        Self { program: environments::program(folder), is_of_environment: true, has_airflow_sdk, ..self.clone() }
    }

    /// The folder of the environment; `None` for a Python outside of an environment.
    pub(crate) fn environment_folder(&self) -> Option<&Path> {
        self.program.parent().and_then(Path::parent).filter(|_| self.is_of_environment)
    }

    /// The folder for files and the database of a project's own Airflow SDK; `None` without that SDK. It is in the
    /// environment's folder and removed with it, because its database has the tables of that Airflow version.
    pub fn project_airflow_home(&self) -> Option<PathBuf> {
        self.environment_folder().filter(|_| self.has_airflow_sdk).map(|folder| folder.join("airflow"))
    }

    /// Runs the Python to read its version, which takes a moment.
    pub fn python(&self) -> Result<discover::Python, NoPython> {
        discover::find(Some(&self.program))
    }

    /// The arguments for a job. `-E` ignores PYTHON* variables, which are for the user's shell. Outside of an
    /// environment, `pycache_prefix` puts compiled modules into a folder of the home.
    pub fn arguments(&self, job: Job, options: &Value) -> Vec<OsString> {
        let mut arguments: Vec<OsString> = ["-E", "-X", "utf8"].map(Into::into).into();
        // Tests are in the user's folders.
        if !self.is_of_environment || job == Job::Pytest {
            let mut prefix = OsString::from("pycache_prefix=");
            prefix.push(self.package.with_file_name("compiled"));
            arguments.extend(["-X".into(), prefix]);
        }
        if disk::free_bytes(self.home.root()).is_ok_and(|free| free < NEEDED_FOR_COMPILED) {
            arguments.push("-B".into());
        }
        let options = self.options(options);
        let entry = self.package.join("_leoflow_entry.py").into_os_string();
        arguments.extend([entry, job.word().into(), options.to_string().into()]);
        arguments
    }

    /// A process for a job, which dies with this process; `mark` is its `TASK_MARK`.
    pub fn spawn(&self, job: Job, options: &Value, mark: Option<&str>) -> Spawn<'static> {
        let mark = mark.map(|mark| (TASK_MARK.into(), mark.into()));
        Spawn {
            arguments: self.arguments(job, options),
            environment: environment().into_iter().chain(mark).collect(),
            parent_death: Some(Signal::Kill),
            ..Spawn::new(&self.program)
        }
    }

    /// Adds to the options the paths and the URL that DAGs and tasks need.
    pub fn options(&self, options: &Value) -> Value {
        let mut options = options.clone();
        if let Some(map) = options.as_object_mut() {
            // uv need not be installed yet.
            let (uv, cache) = environments::uv_for_tasks(&self.home);
            map.insert("uv".to_owned(), uv.to_string_lossy().into());
            map.insert("uv_cache".to_owned(), cache.to_string_lossy().into());
            map.extend(self.home_options.clone());
            if self.has_airflow_sdk {
                // The folder for files that Airflow writes.
                let folder = self.home.python().join("airflow");
                map.entry("airflow_home").or_insert_with(|| folder.to_string_lossy().into());
            } else if let Some(packages) = support::installed(&self.home) {
                map.insert("support".to_owned(), packages.to_string_lossy().into());
            }
        }
        options
    }

    /// True if the program and our package still exist.
    fn is_intact(&self) -> bool {
        self.program.is_file() && self.package.join("_leoflow_entry.py").is_file()
    }

    /// Runs the Python to list its site-packages folders, which takes a moment.
    pub fn site_folders(&self) -> Vec<PathBuf> {
        let mut command = Command::new(&self.program);
        command.args([
            "-E",
            "-c",
            "import site; print(*site.getsitepackages(), site.getusersitepackages(), sep='\\n')",
        ]);
        let printed = command::output_within(&mut command, QUERY_LIMIT).map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&printed).lines().filter(|line| line.starts_with('/')).map(PathBuf::from).collect()
    }
}

/// Time limit for a Python to list its folders.
const QUERY_LIMIT: Duration = Duration::from_secs(10);

/// The Python with which this process runs the user's code. Prepared on first use, and again if its files were removed.
pub struct SharedInterpreter {
    home: Home,
    configured: Option<PathBuf>,
    prepared: tokio::sync::Mutex<Option<Interpreter>>,
}

impl SharedInterpreter {
    pub fn new(home: Home, configured: Option<PathBuf>) -> Self {
        Self { home, configured, prepared: tokio::sync::Mutex::default() }
    }

    /// True if the user configured a Python.
    pub fn is_configured(&self) -> bool {
        self.configured.is_some()
    }

    /// Returns the interpreter; prepares it if needed.
    pub async fn get(&self) -> Result<Interpreter, NoPython> {
        let mut prepared = self.prepared.lock().await;
        if let Some(interpreter) = prepared.as_ref().filter(|interpreter| interpreter.is_intact()) {
            return Ok(interpreter.clone());
        }
        let (home, configured) = (self.home.clone(), self.configured.clone());
        let result = blocking::run(move || Interpreter::prepare(&home, configured.as_deref())).await;
        let thread_failed = |error: tokio::task::JoinError| NoPython { reason: error.to_string(), is_transient: false };
        let interpreter = result.map_err(thread_failed)??;
        *prepared = Some(interpreter.clone());
        Ok(interpreter)
    }
}

/// The options that depend on the home only: the URL of the web UI, for links in messages that tasks send, and the
/// option that chooses the home, for the commands in hints.
fn home_options(home: &Home) -> Map<String, Value> {
    let options = [("base_url", base_url(home)), ("home_option", home::option_for(home.root()))];
    options.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?.into()))).collect()
}

/// URL of the running instance, or the configured one.
fn base_url(home: &Home) -> Option<String> {
    if let Some(url) = lock::holder(home).and_then(|holder| holder.url) {
        return Some(url);
    }
    // The command that needs the configuration reports an unreadable file.
    let config = config::load(&home.config()).ok()??.config;
    Some(format!("http://{}:{}", config.own_address(), config.port))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn options_contain_the_configured_base_url_and_the_home() {
        let folder = tempfile::tempdir().unwrap();
        let home = leoflow_base::home::resolve(Some(&folder.path().join("h"))).unwrap();
        home.create().unwrap();
        std::fs::write(home.config(), "port: 9123\n").unwrap();
        let interpreter = Interpreter {
            program: "/bin/python3".into(),
            package: folder.path().into(),
            is_of_environment: false,
            home_options: home_options(&home),
            home,
            has_airflow_sdk: false,
        };
        let options = interpreter.options(&json!({}));
        assert_eq!(options["base_url"], "http://127.0.0.1:9123");
        assert_eq!(options["home_option"], format!("--home {}", folder.path().join("h").display()));
    }
}

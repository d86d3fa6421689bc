//! The test harness: a temporary Leoflow home with helpers that run commands, query the datastore and wait for states.

pub mod airflow;
pub mod archive;
pub mod changing_release;
pub mod clients;
mod datastore;
pub mod external;
pub mod http;
pub mod index;
pub mod mirror;
pub mod mounts;
pub mod own_datastore;
mod ports;
mod postgres;
pub mod processes;
pub mod receiver;
pub mod releases;
pub mod rounds;
mod run;
pub mod services;
mod template;
pub mod tls;

use leoflow::home::journal;
use leoflow::protocol::control;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};
use tempfile::TempDir;

use datastore::HeldLock;
pub use ports::free_port;
pub use postgres::{
    archive as postgres_archive, bin as postgres_bin, cache as shared_cache, cache_lock, packages, ruff, shellcheck,
    uv, wheels,
};
pub use postgres::{quick_archive, quick_bin};

/// A DAG whose task waits for the file `go` beside it and appends an `x` to the file `ran` each time it starts.
pub const WAITING_DAG: &str = "
from airflow.sdk import DAG, task
import os, time

with DAG('patient'):

    @task
    def wait():
        here = os.path.dirname(os.path.abspath(__file__))
        with open(os.path.join(here, 'ran'), 'a') as file:
            file.write('x')
        while not os.path.exists(os.path.join(here, 'go')):
            time.sleep(0.05)
        return 'done'

    wait()
";

pub const LEOFLOW: &str = env!("CARGO_BIN_EXE_leoflow");

/// The exit code and the output of a finished command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: Option<i32>,
    pub stdout: String,
    pub stderr: String,
}

impl CommandOutput {
    #[track_caller]
    pub fn expect(self, code: i32) -> Self {
        assert_eq!(self.code, Some(code), "{}\n{}", self.stdout, self.stderr);
        self
    }

    #[track_caller]
    pub fn json(&self) -> Value {
        serde_json::from_str(&self.stdout).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    /// Parses the error of a command with `--json`: the last line of stderr.
    #[track_caller]
    pub fn error(&self) -> Value {
        let last = self.stderr.trim_end().lines().last().unwrap_or_default();
        serde_json::from_str(last).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }
}

impl From<Output> for CommandOutput {
    fn from(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }
}

/// A temporary folder that simulates a user's machine: a home directory, Leoflow's home, a workspace, a port.
/// Dropping a `TestHome` kills every process of its folder and removes the files.
pub struct TestHome {
    folder: TempDir,
    /// Folder in `/dev/shm` that contains the home; `None` if the home is in `folder`.
    memory: Option<PathBuf>,
    pub home: PathBuf,
    pub port: u16,
    /// The program that runs as `leoflow`.
    pub program: PathBuf,
    /// The `bin` folder of the PostgreSQL that the home uses.
    postgres: &'static Path,
    /// Overridden time limits of the product: environment variables and their values in seconds.
    limits: Vec<(&'static str, &'static str)>,
    /// The administrator's password of a home copied from the template, until `start` has returned it.
    unreported_password: Mutex<Option<String>>,
    /// True once a command may run in the background.
    has_background_commands: AtomicBool,
}

impl TestHome {
    /// Puts the home into memory and the workspace on the disk, as two file systems.
    pub fn new() -> Self {
        let folder = new_folder(&std::env::temp_dir());
        let memory = memory_folder(&folder);
        let home = memory.as_deref().unwrap_or(folder.path()).join("home");
        Self::with(folder, memory, home)
    }

    /// Puts home and workspace on one file system, as most users have them, so that moves between the two are renames.
    pub fn on_one_disk() -> Self {
        Self::in_one_folder(Path::new("home"))
    }

    /// Puts Leoflow's home at `relative` below the test's folder.
    pub fn with_home_at(relative: &Path) -> Self {
        Self::in_one_folder(relative)
    }

    fn in_one_folder(relative: &Path) -> Self {
        let folder = new_folder(&fast_folder());
        let home = folder.path().join(relative);
        Self::with(folder, None, home)
    }

    fn with(folder: TempDir, memory: Option<PathBuf>, home: PathBuf) -> Self {
        let (port, program, postgres) = (free_port(), LEOFLOW.into(), quick_bin().as_path());
        Self {
            folder,
            memory,
            home,
            port,
            program,
            postgres,
            limits: Vec::new(),
            unreported_password: Mutex::default(),
            has_background_commands: AtomicBool::new(false),
        }
    }

    /// Uses the real initdb instead of the quick one, for tests that depend on how initdb runs.
    pub fn with_real_initdb(mut self) -> Self {
        self.postgres = postgres_bin();
        self
    }

    /// Overrides a time limit, in seconds, for every process of the test; see `sys::limit`.
    pub fn with_limit(mut self, name: &'static str, seconds: &'static str) -> Self {
        self.limits.push((name, seconds));
        self
    }

    /// Runs `program` instead of `leoflow`.
    pub fn with_program(program: PathBuf) -> Self {
        let mut test = Self::new();
        test.program = program;
        test
    }

    /// Sets up a home and starts it in the background.
    pub fn started() -> Self {
        let test = Self::new();
        test.start();
        test
    }

    /// Starts a home with overridden time limits, see [`Self::with_limit`].
    pub fn started_with(limits: &[(&'static str, &'static str)]) -> Self {
        let test = limits.iter().fold(Self::new(), |test, (name, seconds)| test.with_limit(name, seconds));
        test.start();
        test
    }

    pub fn started_on_one_disk() -> Self {
        let test = Self::on_one_disk();
        test.start();
        test
    }

    /// Links the shared packages that DAG files expect (jinja2, pendulum) into the home; call it before the setup.
    pub fn with_packages(self) -> Self {
        let packages = packages();
        *self.unreported_password.lock().unwrap() = template::copy_template_home(&self);
        std::fs::create_dir_all(self.home.join("python")).unwrap();
        std::os::unix::fs::symlink(packages, self.home.join("python").join(packages.file_name().unwrap())).unwrap();
        self
    }

    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    pub fn workspace(&self) -> PathBuf {
        self.folder().join("user/leoflow")
    }

    /// Returns `leoflow --home …` with a clean environment that takes PostgreSQL from the PATH. It may run in the
    /// background and copy or rename the database, so that no wait keeps a connection from now on.
    pub fn command(&self, arguments: &[&str]) -> Command {
        self.has_background_commands.store(true, Ordering::Relaxed);
        self.foreground_command(arguments)
    }

    /// Like [`Self::command`], for a command whose end the caller awaits.
    fn foreground_command(&self, arguments: &[&str]) -> Command {
        datastore::close_wait_connection();
        let mut command = Command::new(&self.program);
        command
            .env_clear()
            .env("PATH", format!("{}:/usr/local/bin:/usr/bin:/bin", self.postgres.display()))
            .env("HOME", self.folder().join("user"))
            // Commands in hints then name no home, as those of most users.
            .env("LEOFLOW_HOME", &self.home)
            .env("LEOFLOW_POSTGRES_SOURCE", "system")
            .env("LEOFLOW_PYTHON_PACKAGES", "none")
            .env("LEOFLOW_UI", "none")
            // Few tests run a task within seconds of the start; for the others a warm Python would be prepared in vain.
            .env("LEOFLOW_PREPARE_DELAY", "3600")
            .env("TMPDIR", self.folder().join("tmp"))
            // Selects the half of the system calls that macOS has too.
            .envs(std::env::var_os("LEOFLOW_PORTABLE").map(|value| ("LEOFLOW_PORTABLE", value)))
            .envs(self.limits.iter().copied())
            .arg("--home")
            .arg(&self.home)
            .args(arguments)
            .stdin(Stdio::null());
        command
    }

    pub fn run(&self, arguments: &[&str]) -> CommandOutput {
        let mut command = self.foreground_command(arguments);
        let child = command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
        wait_for_output(child, &format!("{arguments:?}"))
    }

    pub fn run_with_input(&self, arguments: &[&str], input: &str) -> CommandOutput {
        use std::io::Write;
        let mut child = self
            .foreground_command(arguments)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        child.stdin.take().unwrap().write_all(input.as_bytes()).unwrap();
        wait_for_output(child, &format!("{arguments:?}"))
    }

    /// Sets up a migrated home with the test's port, as a copy of the template if possible; returns a JSON object with
    /// `admin_password`.
    #[track_caller]
    pub fn set_up(&self) -> Value {
        match template::copy_template(self) {
            Some(password) => serde_json::json!({"admin_password": password}),
            None => {
                let setup = self.first_setup();
                self.run(&["migrate-db"]).expect(0);
                setup
            }
        }
    }

    /// Runs `setup` with the test's port; returns its JSON. The datastore has no schema yet.
    #[track_caller]
    pub fn first_setup(&self) -> Value {
        self.run(&["setup", "--json", "--port", &self.port.to_string()]).expect(0).json()
    }

    /// Runs `lite start` without a prepared home, so that the real first start and its logs can be tested.
    #[track_caller]
    pub fn first_start(&self) -> Value {
        let port = self.port.to_string();
        self.run(&["lite", "start", "--port", &port, "--json"]).expect(0).json()
    }

    /// Runs `lite start`; returns its JSON. A missing home becomes a copy of the template first.
    #[track_caller]
    pub fn start(&self) -> Value {
        let password = self.unreported_password.lock().unwrap().take().or_else(|| template::copy_template(self));
        let mut started = self.first_start();
        if let Some(password) = password {
            // The real first start prints the password too.
            started["admin_password"] = password.into();
        }
        started
    }

    /// Runs `lite` in the foreground with piped output.
    pub fn foreground(&self) -> Child {
        let port = self.port.to_string();
        let leoflow = self.command(&["lite", "--port", &port]);
        // A shell's background jobs, and the processes they start, ignore SIGINT; `env` restores the default.
        let mut command = Command::new("env");
        command.arg("--default-signal=INT,QUIT,HUP").arg(leoflow.get_program()).args(leoflow.get_args()).env_clear();
        command.envs(leoflow.get_envs().filter_map(|(name, value)| Some((name, value?)))).stdin(Stdio::null());
        command.stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap()
    }

    pub fn status(&self) -> Value {
        self.run(&["lite", "status", "--json"]).json()
    }

    pub fn state(&self) -> String {
        let status = self.running_status().unwrap_or_else(|| self.status());
        status["state"].as_str().unwrap().to_owned()
    }

    /// Requests the supervisor's status without starting the CLI. `None` if no supervisor answers, or during an upgrade
    /// or rollback, which only the command reports, from the journal.
    fn running_status(&self) -> Option<Value> {
        let home = leoflow::home::resolve(Some(&self.home)).ok()?;
        let status = control::status_of(&home)?;
        let is_settled = journal::change_under_way(&home).is_none();
        is_settled.then(|| serde_json::to_value(status).unwrap())
    }

    /// Returns the pid of a process from the status.
    #[track_caller]
    pub fn pid(&self, name: &str) -> i32 {
        self.running_pid(name).unwrap_or_else(|| panic!("no {name} in {}", self.status()))
    }

    /// Returns the pid of a process, or `None` if it does not run.
    pub fn running_pid(&self, name: &str) -> Option<i32> {
        let status = self.running_status().unwrap_or_else(|| self.status());
        let process = status["processes"].as_array().unwrap().iter().find(|process| process["name"] == name)?;
        process["pid"].as_i64().filter(|_| process["state"] == "running").map(|pid| pid as i32)
    }

    /// Kills a process and waits until its replacement runs and the state is healthy. Waits for a new pid because the
    /// status shows the killed process until the supervisor notices its exit.
    #[track_caller]
    pub fn kill_and_wait(&self, name: &str) {
        let old = self.pid(name);
        processes::signal(old, "KILL");
        wait_until(&format!("a new {name} process replaces the killed one"), Duration::from_secs(60), || {
            self.running_pid(name).is_some_and(|pid| pid != old) && self.state() == "healthy"
        });
    }

    #[track_caller]
    pub fn wait_healthy(&self) {
        wait_until("healthy", Duration::from_secs(60), || self.state() == "healthy");
    }

    /// Runs SQL as the application's role: over the datastore's socket if it listens, otherwise with `lite psql`, which
    /// starts the datastore for the statement. Returns the rows as `psql -A -t` prints them.
    #[track_caller]
    pub fn sql(&self, text: &str) -> String {
        let may_keep = !self.has_background_commands.load(Ordering::Relaxed);
        if let Some(answer) = datastore::query(&self.home, text, may_keep) {
            let answer = answer.unwrap_or_else(|error| panic!("{text}: {error:?}"));
            return answer.trim().to_owned();
        }
        self.run(&["lite", "psql", "--", "-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1", "-c", text])
            .expect(0)
            .stdout
            .trim()
            .to_owned()
    }

    /// Holds a lock in the running datastore until the result is dropped; `statement` takes the lock.
    #[track_caller]
    pub fn hold_lock(&self, statement: &str) -> HeldLock {
        HeldLock::take(&self.home, statement)
    }

    /// Makes the scheduler plan all runs again, after the test has changed their rows.
    #[track_caller]
    pub fn plan_again(&self) {
        let notify = r#"SELECT pg_notify('leoflow_engine', '{"kind": "sweep"}')"#;
        self.sql(&format!("UPDATE dag_run SET revision = gen_random_uuid(); {notify}"));
    }

    /// Creates a backup in the test's folder; returns its path.
    #[track_caller]
    pub fn backup(&self, name: &str) -> PathBuf {
        let path = self.folder().join(name);
        self.run(&["lite", "backup", "--output", path.to_str().unwrap()]).expect(0);
        path
    }

    /// Runs `lite restore --input FILE` with more arguments.
    pub fn restore(&self, input: &Path, more: &[&str]) -> CommandOutput {
        self.run(&[&["lite", "restore", "--input", input.to_str().unwrap()], more].concat())
    }

    /// Lists leftovers of restores and test restores: temporary databases, roles and folders.
    #[track_caller]
    pub fn restore_leftovers(&self) -> Vec<String> {
        let query = r"SELECT datname FROM pg_database WHERE datname LIKE 'leoflow\_%'
                     UNION ALL SELECT rolname FROM pg_roles WHERE rolname LIKE 'leoflow\_%'";
        let mut leftovers: Vec<String> = self.sql(query).lines().map(str::to_owned).collect();
        let folders = std::fs::read_dir(self.home.join("restore")).into_iter().flatten().flatten();
        leftovers.extend(folders.map(|entry| entry.file_name().to_string_lossy().into_owned()));
        leftovers
    }

    /// Runs SQL statements, separated by `; `, as the superuser, each in its own transaction.
    #[track_caller]
    pub fn sql_as_superuser(&self, text: &str) {
        let credentials = std::fs::read_to_string(self.home.join("managed-postgres/credentials.json")).unwrap();
        let credentials: Value = serde_json::from_str(&credentials).unwrap();
        for statement in text.split("; ") {
            let done = Command::new(postgres_bin().join("psql"))
                .args(["-X", "-q", "-v", "ON_ERROR_STOP=1", "-U", "postgres", "-d", "postgres", "-c", statement])
                .env("PGHOST", self.home.join("run"))
                .env("PGPASSWORD", credentials["superuser_password"].as_str().unwrap())
                .output()
                .unwrap();
            assert!(done.status.success(), "{statement}: {}", String::from_utf8_lossy(&done.stderr));
        }
    }

    /// Saves a file in the workspace atomically, as an editor does.
    pub fn save(&self, name: &str, text: &str) -> PathBuf {
        let path = self.workspace().join(name);
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        let partial = path.with_extension("partial");
        std::fs::write(&partial, text).unwrap();
        std::fs::rename(&partial, &path).unwrap();
        path
    }

    /// Creates a virtual environment; returns its Python and its `site-packages` folder.
    pub fn virtual_environment(&self) -> (PathBuf, PathBuf) {
        let venv = self.folder().join("venv");
        let status = Command::new("python3").args(["-m", "venv", "--without-pip"]).arg(&venv).status();
        assert!(status.unwrap().success());
        let library = std::fs::read_dir(venv.join("lib")).unwrap().flatten().next().unwrap().path();
        (venv.join("bin/python3"), library.join("site-packages"))
    }

    pub fn dags(&self) -> Value {
        self.run(&["dags", "list", "--json"]).expect(0).json()
    }

    /// Waits until the DAG exists and asserts that no file fails to import.
    #[track_caller]
    pub fn wait_imported(&self, dag_id: &str) {
        let exists_or_fails =
            format!("SELECT EXISTS (SELECT FROM dag WHERE dag_id = '{dag_id}') OR EXISTS (SELECT FROM import_error)");
        wait_until("the DAG or an import error exists", Duration::from_secs(120), || self.sql(&exists_or_fails) == "t");
        assert_eq!(self.dags()["import_errors"], serde_json::json!([]));
    }

    /// Waits until the DAG's current version has this number; a changed file makes a new version.
    #[track_caller]
    pub fn wait_dag(&self, dag_id: &str, version: i64) {
        let (mut pauses, mut last) = (Pauses::until(Duration::from_secs(30)), None);
        while pauses.next() {
            last = self.shown_dag(dag_id);
            if last.as_ref().is_some_and(|shown| shown["version_number"] == version) {
                return;
            }
        }
        panic!("no {dag_id} in version {version}: {last:?}\n{:?}", self.run(&["dags", "list"]));
    }

    /// Returns the JSON of `dags show`, without starting the CLI if the path of the socket is short enough. `None` if
    /// the DAG is unknown or no server answers.
    fn shown_dag(&self, dag_id: &str) -> Option<Value> {
        if self.home.as_os_str().len() < LONGEST_SOCKET_HOME {
            let shown = http::try_socket_request(&self.home, "GET", &format!("/api/lite/dags/{dag_id}"), "", "")?;
            return (shown.status == 200).then(|| shown.json());
        }
        let shown = self.run(&["dags", "show", dag_id, "--json"]);
        (shown.code == Some(0)).then(|| shown.json())
    }

    /// Saves a file with one DAG and waits until the DAG exists.
    #[track_caller]
    pub fn add_dag(&self, dag_id: &str, text: &str) {
        self.save(&format!("{dag_id}.py"), text);
        self.wait_dag(dag_id, 1);
    }

    /// Starts a run and waits for its end; returns the JSON of `runs show`.
    #[track_caller]
    pub fn run_dag(&self, dag_id: &str) -> Value {
        wait_until(&format!("{dag_id} exists"), Duration::from_secs(30), || self.shown_dag(dag_id).is_some());
        let run = self.trigger(dag_id);
        self.wait_run(dag_id, &run)
    }

    /// Starts a run; returns its id.
    #[track_caller]
    pub fn trigger(&self, dag_id: &str) -> String {
        let run = self.run(&["dags", "trigger", dag_id, "--json"]).expect(0).json();
        run["dag_run_id"].as_str().unwrap().to_owned()
    }

    /// Waits for the end of a run; returns the JSON of `runs show`.
    #[track_caller]
    pub fn wait_run(&self, dag_id: &str, run_id: &str) -> Value {
        let watched = self.run(&["runs", "watch", dag_id, run_id, "--json"]);
        assert!(matches!(watched.code, Some(0 | 1)), "{watched:?}");
        self.run(&["runs", "show", dag_id, run_id, "--json"]).expect(0).json()
    }

    /// Returns the log of a task of the newest run.
    #[track_caller]
    pub fn task_log(&self, dag_id: &str, task_id: &str) -> String {
        self.run(&["tasks", "logs", dag_id, "latest", task_id, "--plain"]).expect(0).stdout
    }

    /// Returns every file below `below` in the home with its content, to assert that nothing changed.
    pub fn snapshot(&self, below: &str) -> Vec<(PathBuf, Vec<u8>)> {
        let mut files = Vec::new();
        collect_files(&self.home.join(below), &mut files);
        files.sort();
        files
    }

    /// Prints the last lines of each log, to help find out why a test failed.
    fn print_logs(&self) {
        let logs = std::fs::read_dir(self.home.join("logs")).into_iter().flatten().flatten();
        for path in logs.map(|entry| entry.path()) {
            let text = String::from_utf8_lossy(&std::fs::read(&path).unwrap_or_default()).into_owned();
            let lines: Vec<&str> = text.lines().collect();
            eprintln!("--- {}\n{}", path.display(), lines[lines.len().saturating_sub(LAST_LINES)..].join("\n"));
        }
    }

    #[track_caller]
    pub fn assert_nothing_runs(&self) {
        let remaining = || processes::mentioning(self.folder());
        wait_until("no process of the test runs", Duration::from_secs(10), || remaining().is_empty());
    }
}

fn collect_files(path: &Path, files: &mut Vec<(PathBuf, Vec<u8>)>) {
    if path.is_dir() {
        for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
            collect_files(&entry.path(), files);
        }
    } else {
        files.push((path.to_owned(), std::fs::read(path).unwrap_or_default()));
    }
}

impl Drop for TestHome {
    fn drop(&mut self) {
        if std::thread::panicking() {
            self.print_logs();
            // Again, because a shortened log of a failed test keeps the end.
            eprintln!("--- {}", LAST_PANIC.take());
        }
        processes::kill_all(self.folder());
        postgres::remove_shared_memory(self.folder());
        if let Some(memory) = &self.memory {
            postgres::remove_shared_memory(memory);
            let _ = std::fs::remove_dir_all(memory);
        }
    }
}

thread_local! {
    /// The message of this thread's last panic.
    static LAST_PANIC: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
}

/// Keeps the message of each panic in [`LAST_PANIC`].
fn remember_panics() {
    static HOOK: std::sync::Once = std::sync::Once::new();
    HOOK.call_once(|| {
        let print = std::panic::take_hook();
        std::panic::set_hook(Box::new(move |panic| {
            LAST_PANIC.set(panic.to_string());
            print(panic);
        }));
    });
}

fn new_folder(parent: &Path) -> TempDir {
    remember_panics();
    let folder = tempfile::Builder::new().prefix("leoflow-test-").tempdir_in(parent).unwrap();
    for name in ["user", "tmp"] {
        std::fs::create_dir(folder.path().join(name)).unwrap();
    }
    folder
}

const SHARED_MEMORY: &str = "/dev/shm";

/// Returns the parent folder of files that tests write often: in memory, or on the disk if [`has_memory`] is false.
pub fn fast_folder() -> PathBuf {
    if has_memory() { SHARED_MEMORY.into() } else { std::env::temp_dir() }
}

/// Creates a folder in memory with the name of the test's own folder, by which [`processes`] finds its processes.
/// `None` if [`has_memory`] is false.
fn memory_folder(folder: &TempDir) -> Option<PathBuf> {
    let memory = Path::new(SHARED_MEMORY).join(folder.path().file_name()?);
    (has_memory() && std::fs::create_dir(&memory).is_ok()).then_some(memory)
}

/// True if homes are in memory. On a disk a test would spend most of its time waiting for the disk, and memory suffices
/// because tests kill processes, not the machine. False if less than 6 GiB are free, or with LEOFLOW_TEST_ON_DISK.
fn has_memory() -> bool {
    const REQUIRED_BYTES: u64 = 6 * 1024 * 1024 * 1024;
    let available = || {
        let free = nix::sys::statvfs::statvfs(SHARED_MEMORY).ok()?;
        let text = std::fs::read_to_string("/proc/meminfo").ok()?;
        let available = text.lines().find_map(|line| line.strip_prefix("MemAvailable:")?.trim().strip_suffix(" kB"))?;
        Some((free.blocks_available() * free.fragment_size()).min(available.trim().parse::<u64>().ok()? * 1024))
    };
    std::env::var_os("LEOFLOW_TEST_ON_DISK").is_none() && available().is_some_and(|bytes| bytes > REQUIRED_BYTES)
}

/// Lists the files of `migrations/`, oldest first, with their versions.
pub fn migrations() -> Vec<(i64, String)> {
    let folder = std::fs::read_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/migrations")).unwrap();
    let mut migrations: Vec<_> = folder
        .flatten()
        .map(|entry| entry.file_name().to_str().unwrap().to_owned())
        .filter(|name| !name.ends_with(".rollback.sql"))
        .map(|name| (name[1..5].parse().unwrap(), name))
        .collect();
    migrations.sort();
    migrations
}

/// Returns the newest schema version that this binary knows.
pub fn newest() -> i64 {
    migrations().last().unwrap().0
}

/// Returns (task id, state) of each task instance in `run`, the JSON of `runs show`.
pub fn states(run: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().unwrap_or("none").to_owned();
    let instances = run["task_instances"].as_array().unwrap().iter();
    instances.map(|instance| (text(&instance["task_id"]), text(&instance["state"]))).collect()
}

/// Returns the instance of a task in `run`, the JSON of `runs show`.
#[track_caller]
pub fn task<'a>(run: &'a Value, task_id: &str) -> &'a Value {
    let mut instances = run["task_instances"].as_array().unwrap().iter();
    instances.find(|instance| instance["task_id"] == task_id).unwrap_or_else(|| panic!("no {task_id} in {run}"))
}

#[track_caller]
pub fn wait_until(condition: &str, limit: Duration, is_met: impl FnMut() -> bool) {
    assert!(happens_within(limit, is_met), "not within {limit:?}: {condition}");
}

/// Waits until the condition is met; false if it is not within the limit.
pub fn happens_within(limit: Duration, mut is_met: impl FnMut() -> bool) -> bool {
    let _wait = datastore::Wait::begin();
    let mut pauses = Pauses::until(limit);
    while !is_met() {
        if !pauses.next() {
            return false;
        }
    }
    true
}

/// Pauses between polls: short at first, then longer, because each poll may start a process.
struct Pauses {
    deadline: Instant,
    next: Duration,
}

impl Pauses {
    fn until(limit: Duration) -> Self {
        Self { deadline: Instant::now() + limit, next: Duration::ZERO }
    }

    /// Sleeps. Returns false only if the deadline passed before the sleep, so that one poll follows the deadline.
    fn next(&mut self) -> bool {
        let is_over = Instant::now() >= self.deadline;
        std::thread::sleep(self.next);
        self.next = (self.next * 5 / 4).clamp(Duration::from_millis(20), Duration::from_millis(200));
        !is_over
    }
}

/// A home's path must be shorter than this, in bytes, for its sockets' paths to fit into an address (108 bytes with the
/// final NUL, unix(7)).
const LONGEST_SOCKET_HOME: usize = 90;

/// Number of lines of each log that a failed test prints.
const LAST_LINES: usize = 30;

/// Maximum time of one command, on a busy machine.
const COMMAND_LIMIT: Duration = Duration::from_secs(180);

/// Waits for a command; one that hangs fails its test after [`COMMAND_LIMIT`].
fn wait_for_output(child: Child, arguments: &str) -> CommandOutput {
    let pid = child.id() as i32;
    let (done, ended) = std::sync::mpsc::channel();
    std::thread::spawn(move || done.send(child.wait_with_output()));
    match ended.recv_timeout(COMMAND_LIMIT) {
        Ok(output) => output.unwrap().into(),
        Err(_) => {
            processes::signal(pid, "KILL");
            panic!("leoflow {arguments} did not exit within {COMMAND_LIMIT:?}");
        }
    }
}

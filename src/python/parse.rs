//! Parsing: one file, one child, with limits on time, memory and output, so that a file can do
//! nothing to the others and nothing to us.

use super::interpreter::{Interpreter, Job, TASK_MARK, environment};
use super::roots::{project_of, roots};
use crate::config::{Problem, project};
use crate::sys::pidfd::PidFd;
use crate::sys::process::{self, Signal};
use crate::sys::reaper::{self, Exit};
use crate::sys::spawn::{FIRST_PASSED, Spawn};
use crate::sys::{listener, random};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::cell::RefCell;
use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::rc::Rc;
use std::time::Duration;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::task::JoinHandle;

/// Airflow's `dagbag_import_timeout`.
pub const TIME_LIMIT: Duration = Duration::from_secs(30);
/// Of writable memory.
const MEMORY_BYTES: u64 = 2 * 1024 * 1024 * 1024;
/// Of the result; a DAG of 5,000 tasks has 1.5 MB.
const RESULT_BYTES: usize = 64 * 1024 * 1024;
/// Of what is kept of the output; the rest is read and forgotten.
const OUTPUT_BYTES: usize = 16 * 1024;
/// What a child that has ended may still have in its pipes is there at once.
const DRAIN: Duration = Duration::from_millis(500);

/// What a file gave. `structures` are as the Python package describes DAGs.
#[derive(Debug, Clone, Deserialize)]
pub struct Found {
    #[serde(rename = "dags")]
    pub structures: Vec<Value>,
    pub error: Option<String>,
    /// Texts of the file and of every local module that it imported, by absolute path.
    pub sources: Map<String, Value>,
    /// Other files of the workspace that it read.
    #[serde(default)]
    pub reads: Vec<PathBuf>,
    /// Those of them that were not there.
    #[serde(default)]
    pub absent: Vec<PathBuf>,
    /// Whether it asked for Variables or Connections.
    #[serde(default)]
    pub asks: bool,
}

/// What to parse.
#[derive(Debug, Clone)]
pub struct Request {
    pub path: PathBuf,
    /// Folders whose modules belong to it, the nearest first. It is run in the first, as its tasks are.
    pub roots: Vec<PathBuf>,
    /// The folder with its settings; a file outside of projects has none.
    pub project: Option<PathBuf>,
    /// For Variables and Connections that are read at the top level.
    pub api_socket: PathBuf,
}

impl Request {
    /// A file of the workspace belongs to its project there; one elsewhere to its own folder.
    pub fn new(path: PathBuf, workspace: Option<&Path>, api_socket: PathBuf) -> Self {
        match workspace.filter(|workspace| path.starts_with(workspace)) {
            Some(workspace) => {
                Self { roots: roots(workspace, &path), project: project_of(workspace, &path), path, api_socket }
            }
            None => {
                let folder = path.parent().map(Path::to_owned);
                Self { roots: folder.iter().cloned().collect(), project: folder, path, api_socket }
            }
        }
    }
}

/// Parses in a child. `Err` is for people: why there is no result. Dropped, it ends the child.
/// Must be called on the main thread of the process, inside a `LocalSet`.
pub async fn parse(interpreter: &Interpreter, request: &Request) -> Result<Found, String> {
    if request.path.to_str().is_none() {
        return Err("The path of this file is not UTF-8; rename it.".to_owned());
    }
    if let Some(problem) = request.project.as_deref().and_then(settings_problem) {
        return Err(problem);
    }
    let mut child = Child::start(interpreter, request)
        .map_err(|error| format!("{} cannot be started: {error}", interpreter.program.display()))?;
    let exit = tokio::time::timeout(TIME_LIMIT, child.ended()).await;
    // What it left running goes with it, and lets go of the pipes.
    child.end_all().await;
    let (result, output) = child.harvest().await;
    let said = if output.is_empty() { String::new() } else { format!("\n\nIt printed:\n{}", output.trim_end()) };
    match exit {
        Err(_) => Err(format!("Importing it took longer than {} s and was ended.{said}", TIME_LIMIT.as_secs())),
        Ok(exit) => read_result(&result, exit)
            .map(|mut found| {
                if let Some(error) = &mut found.error {
                    error.push_str(&said);
                }
                found
            })
            .map_err(|reason| format!("{reason}{said}")),
    }
}

/// What is wrong with the settings of the project, which its files cannot be imported without.
pub fn settings_problem(folder: &Path) -> Option<String> {
    let file = folder.join(project::FILE);
    let problems = match project::check(folder) {
        Ok(problems) => problems,
        Err(error) => return Some(format!("{} cannot be read: {error}", file.display())),
    };
    let line = |problem: &Problem| format!("{}:{}: {}", file.display(), problem.line.max(1), problem.message);
    (!problems.is_empty()).then(|| problems.iter().map(line).collect::<Vec<_>>().join("\n"))
}

fn read_result(bytes: &[u8], exit: Exit) -> Result<Found, String> {
    if bytes.len() >= RESULT_BYTES {
        return Err(format!("Its DAGs are larger than {} MiB.", RESULT_BYTES / 1024 / 1024));
    }
    match serde_json::from_slice(bytes) {
        Ok(found) => Ok(found),
        Err(_) if exit == Exit::Signal(9) => {
            Err("The process that imported it was killed: it may have used too much memory.".to_owned())
        }
        Err(_) => Err(format!("The process that imported it ended before the import was done: {exit}.")),
    }
}

struct Child {
    pid: i32,
    /// In the environment of all its processes.
    mark: String,
    exit: Option<Exit>,
    result: Pipe,
    output: Pipe,
}

impl Child {
    fn start(interpreter: &Interpreter, request: &Request) -> io::Result<Self> {
        let (result, result_writer) = listener::pipe_with_async_reader()?;
        let (output, output_writer) = listener::pipe_with_async_reader()?;
        let options = json!({
            "path": request.path,
            "roots": request.roots,
            "descriptor": FIRST_PASSED,
            "socket": request.api_socket,
            "limits": {"RLIMIT_DATA": MEMORY_BYTES, "RLIMIT_CPU": TIME_LIMIT.as_secs() + 5, "RLIMIT_CORE": 0},
        });
        let mark = format!("parse-{}", random::hex(&random::bytes::<8>()));
        let mut environment = environment();
        environment.push((TASK_MARK.into(), mark.clone().into()));
        let spawn = Spawn {
            program: interpreter.program.clone(),
            called: None,
            arguments: interpreter.arguments(Job::Parse, &options),
            environment,
            output: output_writer.as_fd(),
            errors: None,
            folder: request.roots.first().cloned(),
            passed: vec![result_writer.as_fd()],
            single_user: None,
            parent_death: Some(Signal::Kill),
        };
        let pid = spawn.start().map_err(io::Error::other)?;
        Ok(Self {
            pid,
            mark,
            exit: None,
            result: Pipe::read(result, RESULT_BYTES),
            output: Pipe::read(output, OUTPUT_BYTES),
        })
    }

    async fn ended(&mut self) -> Exit {
        let exit = wait(self.pid).await;
        self.exit = Some(exit);
        exit
    }

    /// Its group, and what it had started in sessions of their own.
    async fn end_all(&self) {
        self.end_group();
        let mark = self.mark.clone();
        // Reads every process's environment, which takes its time.
        let ended = tokio::task::spawn_blocking(move || {
            process::marked(TASK_MARK, &mark).iter().for_each(|left| left.signal(Signal::Kill));
        });
        // It cannot fail in a way that would be worth more than the result.
        let _ = ended.await;
    }

    fn end_group(&self) {
        process::signal_group(self.pid, Signal::Kill);
    }

    /// What it wrote, as far as it is there.
    async fn harvest(&mut self) -> (Vec<u8>, String) {
        let result = self.result.take().await;
        let output = self.output.take().await;
        (result, String::from_utf8_lossy(&output).into_owned())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        self.end_group();
        if self.exit.is_none() {
            tokio::task::spawn_local(wait(self.pid));
        }
    }
}

/// Waits for a child of ours.
async fn wait(pid: i32) -> Exit {
    if let Ok(fd) = PidFd::of_pid(pid) {
        // Not to be had on an old kernel; then it is asked for below.
        let _ = fd.ended().await;
    }
    loop {
        if let Some(exit) = reaper::ended_child(pid) {
            return exit;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

/// What comes through a pipe, while it comes.
struct Pipe {
    kept: Rc<RefCell<Vec<u8>>>,
    reading: JoinHandle<()>,
}

impl Pipe {
    /// Keeps the first `limit` bytes and reads the rest too, so that the writer is never held up.
    fn read(mut reader: Receiver, limit: usize) -> Self {
        let kept = Rc::new(RefCell::new(Vec::new()));
        let shared = kept.clone();
        let reading = tokio::task::spawn_local(async move {
            let mut buffer = vec![0; 64 * 1024];
            while let Ok(length @ 1..) = reader.read(&mut buffer).await {
                let mut kept = shared.borrow_mut();
                let room = limit - kept.len();
                kept.extend_from_slice(&buffer[..length.min(room)]);
            }
        });
        Self { kept, reading }
    }

    /// All of it, or what is there when somebody keeps the pipe open.
    async fn take(&mut self) -> Vec<u8> {
        let _ = tokio::time::timeout(DRAIN, &mut self.reading).await;
        self.kept.take()
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.reading.abort();
    }
}
